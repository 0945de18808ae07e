"""What every reader of a table file returns, and the bound that each keeps to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]

# A table beyond this would not fit the memory of the machines that flowbench is made for.
LARGEST_TABLE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RawTable:
    """The columns of a file before any check of their values.

    `column(i)` gives column i as an array (n,): of numbers, or of objects (None where a cell is missing).
    """

    names: tuple[str, ...]
    n_rows: int
    column: Callable[[int], Array]

    @classmethod
    def from_arrow(cls, names: tuple[str, ...], table: "pa.Table") -> "RawTable":
        """The columns of an Arrow table, under `names`."""
        import pyarrow as pa

        def column(index: int) -> Array:
            values = table.column(index)
            kind = values.type
            if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
                return np.asarray(values.cast(pa.float64(), safe=False).to_numpy())
            cells = np.empty(len(values), dtype=object)
            cells[:] = values.to_pylist()
            return cells

        return cls(names, table.num_rows, column)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "RawTable":
        """The table that named arrays hold, in one of the layouts that `LAYOUTS` describes.

        Raises `DataError` if the arrays have none of these layouts.
        """
        if all(array.ndim == 1 and array.dtype.names is None for array in arrays.values()):
            lengths = {name: len(array) for name, array in arrays.items()}
            if len(set(lengths.values())) > 1:
                raise DataError(f"its columns differ in length ({_listed(lengths)}); {LAYOUTS}")
            columns = list(arrays.values())
            return cls(tuple(arrays), len(columns[0]), lambda index: columns[index])
        labels = arrays.get("columns") if len(arrays) > 1 else None
        tables = [array for name, array in arrays.items() if labels is None or name != "columns"]
        if len(tables) != 1:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise DataError(f"it holds several arrays ({_listed(shapes)}); {LAYOUTS}")
        return cls.from_array(tables[0], labels)

    @classmethod
    def from_array(cls, array: Array, labels: Array | None = None) -> "RawTable":
        """The table in one array: (n, d), (n,), or (n,) with named fields; `labels: (d,)` name the columns.

        Raises `DataError` for any other shape, or labels that do not match the columns.
        """
        fields = array.dtype.names or ()
        if fields and array.ndim == 1 and not any(array.dtype[field].shape for field in fields):
            return cls(fields, len(array), lambda index: array[fields[index]])
        if fields or array.ndim not in (1, 2):
            raise DataError(f"it holds an array of shape {array.shape}; {LAYOUTS}")
        matrix = array if array.ndim == 2 else array[:, None]
        n, d = matrix.shape
        if labels is None:
            return cls(numbered(d), n, lambda index: matrix[:, index])
        if labels.shape != (d,):
            raise DataError(f"`columns` has the shape {labels.shape} where the array has {d} columns")
        return cls(tuple(map(_text, labels)), n, lambda index: matrix[:, index])


LAYOUTS = (
    "a table is one array of rows and columns (with an array `columns` of names beside it, if wished), "
    "or one-dimensional arrays of equal length, one per column"
)


def numbered(n: int) -> tuple[str, ...]:
    """The names of `n` columns that have none of their own: c1, c2, ..."""
    return tuple(f"c{i + 1}" for i in range(n))


def is_number(cell: str) -> bool:
    """Whether `cell` reads as a decimal number."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def check_size(n_bytes: int) -> None:
    """Raise `DataError` if a table of `n_bytes` is above the bound."""
    if n_bytes > LARGEST_TABLE_BYTES:
        raise DataError(
            f"it holds {n_bytes / 2**30:.1f} GiB, above the bound of {LARGEST_TABLE_BYTES // 2**30} GiB; "
            "give a file with fewer rows or columns"
        )


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)


def _listed(facts: Mapping[str, object]) -> str:
    shown = [f"`{name}`: {fact}" for name, fact in list(facts.items())[:5]]
    return ", ".join(shown + ["..."] * (len(facts) > 5))
