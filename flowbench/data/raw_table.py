"""The result of every reader of table files, and the largest size of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowbench.data.cells import Array, Cells, cells_of_array, cells_of_arrow
from flowbench.data.column_type import ColumnType
from flowbench.data.read_options import ReadOptions
from flowbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# A larger table would not fit into the memory of the machines that flowbench is made for.
LARGEST_TABLE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RawTable:
    """The columns of a file, before any check of their values.

    `cells(i, expected)` returns the cells of column i; `expected` is its type, if it is known. The name of a
    column without a name is empty. `bookkeeping` maps the index of a column to the reason why, by the file
    itself, it is not data. `has_signs` says whether signs such as percent may stand beside numbers. `notes`
    say what was guessed.
    """

    names: tuple[str, ...]
    n_rows: int
    cells: Callable[[int, ColumnType | None], Cells]
    bookkeeping: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_signs: bool = False

    @classmethod
    def from_arrow(
        cls,
        names: tuple[str, ...],
        table: "pa.Table",
        reading: ReadOptions,
        bookkeeping: Mapping[int, str] | None = None,
        *,
        typed: bool = True,
    ) -> "RawTable":
        """The columns of an Arrow table, under `names`; unless it is `typed`, text may mean numbers."""

        def cells(index: int, expected: ColumnType | None) -> Cells:
            return cells_of_arrow(table.column(index), reading, expected=expected, typed=typed)

        return cls(names, table.num_rows, cells, bookkeeping or {})

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Array],
        reading: ReadOptions,
        units: Mapping[str, str] | None = None,
        wanted: Sequence[str] | None = None,
    ) -> "RawTable":
        """The table in named arrays, in one of the layouts that `LAYOUTS` describes.

        If all `wanted` columns are there, only these are used. Raises `DataError` if the arrays have none of
        these layouts.
        """
        if wanted and set(wanted) <= set(arrays):
            arrays = {name: array for name, array in arrays.items() if name in wanted}
        if all(array.ndim == 1 and array.dtype.names is None for array in arrays.values()):
            lengths = {name: len(array) for name, array in arrays.items()}
            if len(set(lengths.values())) > 1:
                raise DataError(f"its columns differ in length ({_listed(lengths)}); {LAYOUTS}")
            return cls._of_columns(arrays, reading, units or {})
        labels = arrays.get("columns") if len(arrays) > 1 else None
        tables = [array for name, array in arrays.items() if labels is None or name != "columns"]
        if len(tables) != 1:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise DataError(
                f"it holds several arrays ({_listed(shapes)}); name one behind the file, with a colon "
                f"between them, or some with `--columns`; {LAYOUTS}"
            )
        return cls.from_array(tables[0], reading, labels)

    @classmethod
    def from_array(cls, array: Array, reading: ReadOptions, labels: Array | None = None) -> "RawTable":
        """The table in one array: (n, d), (n,), or (n,) with named fields; `labels: (d,)` name the columns.

        Raises `DataError` for any other shape, or labels that do not match the columns.
        """
        fields = array.dtype.names or ()
        if fields and array.ndim == 1 and not any(array.dtype[name].shape for name in fields):
            return cls._of_columns({name: array[name] for name in fields}, reading, {})
        if fields or array.ndim not in (1, 2):
            raise DataError(f"it holds an array of shape {array.shape}; {LAYOUTS}")
        matrix = array if array.ndim == 2 else array[:, None]
        d = matrix.shape[1]
        if labels is not None and labels.shape != (d,):
            raise DataError(f"`columns` has the shape {labels.shape} where the array has {d} columns")
        names = numbered(d) if labels is None else tuple(map(_text, labels))

        def cells(index: int, expected: ColumnType | None) -> Cells:
            return cells_of_array(matrix[:, index], reading=reading, expected=expected)

        return cls(names, len(matrix), cells)

    @classmethod
    def _of_columns(
        cls, columns: Mapping[str, Array], reading: ReadOptions, units: Mapping[str, str]
    ) -> "RawTable":
        names = tuple(columns)

        def cells(index: int, expected: ColumnType | None) -> Cells:
            name = names[index]
            return cells_of_array(columns[name], units.get(name, ""), reading, expected=expected)

        return cls(names, len(next(iter(columns.values()), ())), cells)


LAYOUTS = (
    "a table is one array of rows and columns (with an array `columns` of names beside it, if wished), "
    "or one-dimensional arrays of equal length, one per column"
)


def numbered(n: int) -> tuple[str, ...]:
    """Names for `n` columns without names: c1, c2, ..."""
    return tuple(f"c{i + 1}" for i in range(n))


def check_size(n_bytes: int, remedy: str = "give a file with fewer rows or columns") -> None:
    """Raise `DataError`, with the `remedy`, if a table of `n_bytes` is too large."""
    if n_bytes > LARGEST_TABLE_BYTES:
        raise DataError(
            f"it holds {n_bytes / 2**30:.1f} GiB, above the bound of {LARGEST_TABLE_BYTES // 2**30} GiB; "
            f"{remedy}"
        )


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)


def _listed(facts: Mapping[str, object]) -> str:
    shown = [f"`{name}`: {fact}" for name, fact in list(facts.items())[:5]]
    return ", ".join(shown + ["..."] * (len(facts) > 5))
