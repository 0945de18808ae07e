"""Columns of text and truth values, read as the places of their levels."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import join_names, shown
from flowbench.data.cells import Cells
from flowbench.data.column_inference import are_few, infer_kind, why_rare
from flowbench.data.column_type import UNKNOWN_LEVEL, ColumnType
from flowbench.data.column_values import ColumnValues, values_of
from flowbench.data.read_options import ReadOptions
from flowbench.errors import DataError

#: Text that may be a number with a sign or a unit, a date, or a number in a notation that is not known.
_NUMBER_LIKE = re.compile(r"^\W*\d[\d.,:/'\s]*(\W?[^\W\d]{1,5}([+-]?\d+)?)?\W*$|^0x[0-9a-fA-F]+$")
#: The number in front of a label.
_NUMBERED = re.compile(r"^\d+\s*[.):-]\s+(?=[^\W\d_])")
#: A note names at most this many levels.
_MOST_NAMED = 5


def is_of_levels(cells: Cells) -> bool:
    """Whether a column holds text or truth values, and no number."""
    if cells.fault is not None or np.isfinite(cells.numbers).any() or not cells.is_foreign.any():
        return False
    if cells.source is None:
        return True
    import pyarrow as pa

    kind = cells.source.type.value_type if pa.types.is_dictionary(cells.source.type) else cells.source.type
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean))


def read_levels(
    name: str, cells: Cells, *, wanted: bool = False, levels: Sequence[str | float] | None = None
) -> Cells:
    """The `cells` of a column of text as the places of its levels.

    The levels are sorted, so that the order of the rows does not matter. Missing cells are no level. If the
    text names rows, or has so many levels that nothing can be learnt of most, the column gets a fault. Text
    that may mean numbers, such as 5 kg, stays text, which the caller refuses. The user may say that levels
    are `wanted` all the same, and which `levels` there are, in their order. Raises `DataError` for another.
    """
    values = values_of(cells)
    found = tuple(str(each) for each in values.distinct)
    if not found or int(values.counts.sum()) == 1:
        return cells
    if levels is not None:
        return _as_told(name, cells, values, tuple(map(str, levels)))
    if not wanted:
        if _may_be_numbers(found):
            return cells
        (kind, why), rare = infer_kind(name, cells.type, values), why_rare(values)
        names_rows = kind == "identifier" and why != rare
        if fault := f"it names the rows: {why}" if names_rows else rare:
            return replace(cells, fault=f"{fault}; `--categories` learns what it names")
    return _placed(cells, values, values.codes, found)


def _may_be_numbers(levels: Sequence[str]) -> bool:
    """Whether most of the levels may mean numbers, and not labels that are numbered, such as "1. White"."""
    alike = [level for level in levels if _NUMBER_LIKE.match(level)]
    labels = {_NUMBERED.sub("", level).casefold() for level in alike if _NUMBERED.match(level)}
    return len(alike) >= len(levels) / 2 and len(labels) < len(alike)


def _placed(cells: Cells, values: ColumnValues, places: NDArray[np.int64], levels: tuple[str, ...]) -> Cells:
    """The `cells` as the `places: (n,)` of `levels`, -1 where missing."""
    storage = "bool" if values.declared == "boolean" else "string"
    numbers = np.where(places >= 0, places.astype(np.float64), np.nan)
    return replace(cells, numbers=numbers, type=ColumnType(storage, levels=levels))


def _as_told(name: str, cells: Cells, values: ColumnValues, levels: tuple[str, ...]) -> Cells:
    """The `cells` as the places of `levels` that the user told; raises `DataError` for another level."""
    place = {level: number for number, level in enumerate(levels)}
    places = np.array([place.get(str(each), -1) for each in values.distinct] + [-1])
    unknown = (values.codes >= 0) & (places[values.codes] < 0)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(_none_of_them(name, cells.row(row), str(values.distinct[values.codes[row]])))
    return _placed(cells, values, places[values.codes], levels)


def known_levels(
    name: str, numbers: NDArray[np.float64], told: Sequence[str | float], rows: NDArray[np.int64] | None
) -> tuple[float, ...]:
    """The levels, ascending, that are `told` of a column of `numbers: (n,)`, NaN where missing.

    `rows: (n,)` are their numbers in the file, from 0, if some were dropped. Raises `DataError` for a number
    that is none of them.
    """
    levels = np.array([each for each in told if isinstance(each, float)])
    unknown = ~(np.isin(numbers, levels) | np.isnan(numbers))
    if unknown.any():
        place = int(np.argmax(unknown))
        row = place if rows is None else int(rows[place])
        raise DataError(_none_of_them(name, row + 1, _text(float(numbers[place]))))
    return tuple(np.sort(levels).tolist())


def _none_of_them(name: str, row: int, value: str) -> str:
    return f"column `{name}`, row {row}: `{shown(value)}` is none of the `levels` that the schema names"


def read_known_levels(cells: Cells, expected: ColumnType) -> Cells:
    """The `cells` as the places of the levels that are known; another text is `UNKNOWN_LEVEL`.

    Numbers are read as their text, which a column of levels that look like numbers needs.
    """
    levels = expected.levels or ()
    values = values_of(cells)
    place = {level: float(number) for number, level in enumerate(levels)}
    texts = [each if isinstance(each, str) else _text(each) for each in values.plain()]
    if sorted(map(str.casefold, levels)) == ["false", "true"]:
        # Truth values are spelt in one way or another, and stored as 0 and 1.
        place = {level.casefold(): number for level, number in place.items()}
        place |= {"0": place["false"], "1": place["true"]}
        texts = [text.casefold() for text in texts]
    found = np.array([place.get(text, UNKNOWN_LEVEL) for text in texts] + [np.nan])
    numbers: NDArray[np.float64] = found[values.codes]
    missing = cells.is_missing & np.isnan(numbers)
    return replace(cells, numbers=numbers, missing=missing, type=expected, notes=(), is_typed=False)


def are_levels(numbers: NDArray[np.float64]) -> bool:
    """Whether `numbers: (n,)`, NaN where missing, are 0 and 1 alone, or so few that each is a level."""
    distinct, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    return len(distinct) > 1 and (are_few(distinct, counts) or np.array_equal(distinct, [0, 1]))


def describe_levels(name: str, numbers: NDArray[np.float64], type_: ColumnType) -> str:
    """A sentence on a categorical column: which levels it has."""
    distinct = np.unique(numbers[~np.isnan(numbers)])
    named = [f"`{shown(level)}`" for level in type_.text(distinct[:_MOST_NAMED])]
    more = f" and {len(distinct) - _MOST_NAMED:,} more" if len(distinct) > _MOST_NAMED else ""
    text = f"column `{name}` holds {len(distinct):,} categories: {', '.join(named)}{more}"
    if type_.levels is not None:
        return text
    return f"{text}; `--keep {shlex.quote(join_names([name]))}` learns it as a number"


def _text(number: float) -> str:
    return f"{number:.0f}" if number == np.rint(number) and abs(number) < 1e15 else repr(number)


def categorical_columns(
    numbers: Mapping[str, NDArray[np.float64]], types: Mapping[str, ColumnType], reading: ReadOptions
) -> tuple[str, ...]:
    """The names of the categorical columns: of text, or of few `numbers`.

    Columns of few numbers are categories beside others only. Where all columns are categories, they are
    numbers with a spacing.
    """
    named = reading.categories or ()
    told = {name for name, each in types.items() if each.levels is not None or name in named}
    few = {
        name
        for name, values in numbers.items()
        if name not in told and name not in reading.as_numbers
        if types[name].unit is None and are_levels(values)
    }
    if len(told) + len(few) == len(types):
        few.clear()
    return tuple(name for name in types if name in told or name in few)
