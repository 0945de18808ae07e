"""The values of a column for its schema: its numbers, or its levels as text, with their counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cells import Cells

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ColumnValues:
    """The known values of a column, as codes into its distinct values.

    `distinct: (k,)` are numbers in ascending order, or texts in that of their characters. `codes: (n,)` index
    them, with -1 for a cell without a value of that kind. `declared` says that the file itself names the
    levels of the column: "boolean", "categories" or "ordered". `order` is the order of an ordered column.
    """

    distinct: Floats | tuple[str, ...]
    codes: Integers
    declared: str | None = None
    order: tuple[str, ...] | Floats | None = None

    @property
    def is_text(self) -> bool:
        """Whether the values are text."""
        return isinstance(self.distinct, tuple)

    @property
    def counts(self) -> Integers:
        """The number of cells that hold each distinct value: `(k,)`."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.distinct)).astype(np.int64)

    @property
    def numbers(self) -> Floats:
        """The numbers of the known cells, in the order of the rows; none for text."""
        return np.empty(0) if isinstance(self.distinct, tuple) else self.distinct[self.codes[self.codes >= 0]]

    @property
    def rows(self) -> Integers:
        """The indices of the rows with a known cell, in order."""
        return np.flatnonzero(self.codes >= 0)

    def plain(self) -> list[str | float]:
        """The distinct values as plain ones."""
        return list(self.distinct) if isinstance(self.distinct, tuple) else self.distinct.tolist()


def values_of(cells: Cells) -> ColumnValues:
    """The values of a column: its numbers if it has any that can be told, else its text."""
    finite = np.isfinite(cells.numbers)
    # What cannot be read as numbers without a guess is text.
    if not finite.any() or (cells.fault is not None and cells.source is not None):
        return _texts(cells)
    distinct, codes = np.unique(cells.numbers[finite], return_inverse=True)
    placed = np.full(len(finite), -1, dtype=np.int64)
    placed[finite] = codes
    declared, order = _declared(cells)
    numbers = None if order is None else np.array(order, dtype=np.float64)
    return ColumnValues(distinct + 0.0, placed, declared, numbers)


def _texts(cells: Cells) -> ColumnValues:
    known = ~cells.is_missing
    texts = _arrow_text(cells)
    if texts is None:
        rows = np.flatnonzero(known & cells.is_foreign)
        found = np.array([cells.text(int(row)).strip() for row in rows], dtype=object)
    else:
        rows = np.flatnonzero(known & ~np.asarray(texts.is_null().to_numpy()))
        encoded = texts.take(rows).combine_chunks().dictionary_encode()
        words = encoded.dictionary.to_pylist()
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), dtype=np.int64)
        rank[order] = np.arange(len(words))
        codes = np.full(len(known), -1, dtype=np.int64)
        codes[rows] = rank[np.asarray(encoded.indices.to_numpy())]
        declared, levels = _declared(cells)
        ordered = None if levels is None else tuple(map(str, levels))
        return ColumnValues(tuple(words[i] for i in order), codes, declared, ordered)
    distinct = sorted(set(found))
    place = {word: number for number, word in enumerate(distinct)}
    codes = np.full(len(known), -1, dtype=np.int64)
    codes[rows] = [place[word] for word in found]
    return ColumnValues(tuple(distinct), codes)


def _arrow_text(cells: Cells) -> "pa.ChunkedArray | None":
    """The column as trimmed text, or None if Arrow has no text for its type."""
    import pyarrow as pa
    from pyarrow import compute

    source = cells.source
    if source is None:
        return None
    if pa.types.is_dictionary(source.type):
        source = source.cast(source.type.value_type)
    try:
        return compute.utf8_trim_whitespace(source.cast(pa.string()))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return None


def _declared(cells: Cells) -> tuple[str | None, list[str | float] | None]:
    """What the type of the column says of its levels, and their order if they have one."""
    if cells.source is None:
        return None, None
    import pyarrow as pa

    kind = cells.source.type
    if pa.types.is_boolean(kind):
        return "boolean", None
    if not pa.types.is_dictionary(kind):
        return None, None
    if not kind.ordered:
        return "categories", None
    chunks = cells.source.unify_dictionaries().chunks
    levels = chunks[0].dictionary.to_pylist() if chunks else []
    return "ordered", [each.strip() if isinstance(each, str) else each for each in levels]
