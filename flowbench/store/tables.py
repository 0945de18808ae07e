"""Tables that the user asked for: named columns as HDF5, CSV or Parquet, by the ending of the path."""

import gzip
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError
from flowbench.store.atomic import atomic_write
from flowbench.store.documents import to_json
from flowbench.store.hdf5 import LIBRARY_VERSIONS, write_array, write_image, write_text, write_texts

Columns = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, str | int | float]
Units = Mapping[str, str]


def write_table(
    path: Path, columns: Columns, attributes: Attributes, units: Units, *, index: str | None = None
) -> None:
    """Write equally long `columns: (n,)` of numbers or of `str` to `path`, atomically, every float64 exactly.

    The ending chooses the format: .h5 or .hdf5, .csv, .csv.gz, .parquet. `attributes` describe the file and
    `units` the columns, data units unless they say otherwise; HDF5 and Parquet keep both, CSV has no place
    for either. In HDF5 each column is a dataset on the dimension that the column `index` is, or else on one
    that numbers the rows from 0, called `row` unless a column is, and text is of fixed length. Raises
    `ConfigurationError` for another ending, and for a column that the format cannot hold.
    """
    path = Path(path)
    check_table_path(path, columns)
    _check_columns(columns)
    units = dict.fromkeys(columns, "data units") | ({index: "1"} if index else {}) | dict(units)
    _writer(path)(path, columns, attributes, units, index)


def check_table_path(path: Path, columns: Iterable[str] = ()) -> None:
    """Raise `ConfigurationError` unless `write_table` can write `columns` of these names to `path`."""
    if _writer(path) is not _write_hdf5:
        return
    if unfit := [name for name in columns if "/" in name or "\0" in name or name in {"", "."}]:
        raise ConfigurationError(
            f"column `{unfit[0]}` cannot be written to {path}: HDF5 allows no such name; "
            "write .csv or .parquet instead, with `-o`"
        )


def _writer(path: Path) -> Callable[[Path, Columns, Attributes, Units, str | None], None]:
    for ending, writer in _WRITERS.items():
        if path.name.lower().endswith(ending):
            return writer
    raise ConfigurationError(f"cannot tell the format of {path}: it must end in {', '.join(_WRITERS)}")


def _check_columns(columns: Columns) -> None:
    lengths = {name: np.shape(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
        raise ConfigurationError(f"the columns of a table must be equally long; the shapes are {lengths}")
    for name, values in columns.items():
        if values.dtype.kind not in "fiu" and not _is_text(values):
            raise ConfigurationError(
                f"column `{name}` must hold numbers or text to be written, and is {values.dtype}"
            )


def _is_text(values: NDArray[Any]) -> bool:
    """Whether these are all texts, of numpy's own type or Python's."""
    if values.dtype.kind == "O":
        return all(isinstance(each, str) for each in values)
    return values.dtype.kind == "U"


def _write_hdf5(
    path: Path, columns: Columns, attributes: Attributes, units: Units, index: str | None
) -> None:
    name_of_rows = index or next(name for name in _names_of_rows() if name not in columns)
    rows = len(next(iter(columns.values())))
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBRARY_VERSIONS, track_order=True) as file:
        for name, value in attributes.items():
            if isinstance(value, str):
                write_text(file, name, value)
            else:
                file.attrs[name] = value
        numbers = columns.get(name_of_rows, np.arange(rows, dtype=np.int64))
        scale = write_array(file, name_of_rows, numbers, {name_of_rows: None}, "1")
        for name, values in columns.items():
            if name != index:
                dims = {name_of_rows: scale}
                if _is_text(values):
                    write_texts(file, name, values.tolist(), dims, units[name])
                else:
                    write_array(file, name, values, dims, units[name])
    write_image(path, image)


def _names_of_rows() -> Iterator[str]:
    return (f"row{'_' * length}" for length in itertools.count())


def _write_csv(path: Path, columns: Columns, attributes: Attributes, units: Units, index: str | None) -> None:
    import pandas as pd

    frame = pd.DataFrame(dict(columns))
    with atomic_write(path) as partial, partial.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # Neither a time stamp nor a name inside: the same table gives the same bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                frame.to_csv(compressed, index=False, na_rep="nan")
        else:
            frame.to_csv(file, index=False, na_rep="nan")


def _write_parquet(
    path: Path, columns: Columns, attributes: Attributes, units: Units, index: str | None
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    fields = [
        pa.field(
            name,
            pa.string() if _is_text(values) else pa.from_numpy_dtype(values.dtype),
            metadata={"units": units[name]},
        )
        for name, values in columns.items()
    ]
    schema = pa.schema(fields, metadata={"flowbench": to_json(attributes)})
    table = pa.table(
        [pa.array(values, field.type) for values, field in zip(columns.values(), schema, strict=True)],
        schema=schema,
    )
    with atomic_write(path) as partial:
        parquet.write_table(table, partial)


_WRITERS = {
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".csv": _write_csv,
    ".csv.gz": _write_csv,
    ".parquet": _write_parquet,
}
