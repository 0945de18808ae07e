"""Data frames of any library, and arrays, as Arrow tables."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import ArrayLike

from flowbench.errors import ConfigurationError, DataError
from flowbench.store import atomic_write

if TYPE_CHECKING:
    import pyarrow


def write_frame(table: "pyarrow.Table", path: Path) -> str:
    """Write a table as Parquet, atomically; returns the path as text."""
    from pyarrow import parquet

    with atomic_write(path) as partial:
        parquet.write_table(table, partial)
    return str(path)


def to_arrow(data: Any) -> "pyarrow.Table":
    """The columns of a frame or an array, without an index and without what a library notes beside them.

    Raises `DataError` for a column whose values have no type in common, and for a name that is there twice.
    """
    import pyarrow

    frame = as_frame(data)
    columns: dict[str, pyarrow.Array] = {}
    for name in frame.columns:
        if str(name) in columns:
            raise DataError(f"two columns of the frame are called `{name}`; rename one of them")
        try:
            columns[str(name)] = frame.get_column(name).to_arrow()
        except (pyarrow.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"the column `{name}` of the frame cannot be read: {error}; convert it to numbers"
            ) from error
    return pyarrow.table(columns)


def as_frame(data: Any) -> "nw.DataFrame[Any]":
    """A frame, or an array `(n, d)`, as narwhals sees it.

    Raises `ConfigurationError` for anything else, and `DataError` for a name that is there twice.
    """
    if isinstance(data, nw.DataFrame):
        return data
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(data, arrow.RecordBatch):
        # narwhals does not take a batch of records for a frame.
        data = arrow.Table.from_batches([data])
    try:
        native = nw.from_native(data)
    except DuplicateError as error:
        raise DataError(f"two columns of the frame have one name; rename one of them: {error}") from error
    except TypeError:
        return _frame_of_array(data)
    return native.collect() if isinstance(native, nw.LazyFrame) else native


def _frame_of_array(data: ArrayLike) -> "nw.DataFrame[Any]":
    values = np.asanyarray(data)
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise ConfigurationError(
            "data are the name or the path of a table, a pandas, polars or pyarrow frame, or an array (n, d) "
            f"of numbers; got {type(data).__name__}"
            + (f" of shape {values.shape} and {values.dtype}" if values.ndim else "")
        )
    if isinstance(values, np.ma.MaskedArray):
        # What is masked is missing.
        values = np.ma.filled(values.astype(np.float64), np.nan) if values.mask.any() else values.data
    columns = {f"x{i}": column for i, column in enumerate(values.T)}
    return nw.from_dict(columns, backend="pandas")
