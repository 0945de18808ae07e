"""Tables that the user asked for: named columns as HDF5, CSV or Parquet, by the ending of the path."""

import gzip
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError
from flowbench.store.atomic import atomic_write
from flowbench.store.documents import to_json
from flowbench.store.hdf5 import LIBRARY_VERSIONS, write_array, write_attribute, write_image, write_texts

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, str | int | float]
Units = Mapping[str, str]
Types = Mapping[str, str]


@dataclass(frozen=True)
class _Table:
    """The arguments of `write_table`."""

    columns: Columns
    attributes: Attributes
    units: Units
    index: str | None
    types: Types


def write_table(
    path: Path,
    columns: Columns,
    attributes: Attributes,
    units: Units,
    *,
    index: str | None = None,
    types: Types | None = None,
) -> None:
    """Write equally long `columns: (n,)` to `path`, atomically, every float64 exactly.

    They hold numbers, truth values or `str`.

    The ending of the path chooses the format; `FORMATS` lists them. `attributes` describe the file, and
    `units` the columns, which are in data units by default. HDF5, Parquet and Arrow keep both; text does not.

    Parquet and Arrow also take dates and times (`datetime64`). `types` has Arrow's names of the types that
    columns get there, if their values allow it. In HDF5, the column `index` is the scale of the rows. Without
    an `index`, a scale called `row` counts them from 0; the name gets underscores if a column has it.

    Raises `ConfigurationError` for another ending, and for a column that the format cannot hold.
    """
    path = Path(path)
    check_table_path(path, columns)
    check_columns(columns)
    units = all_units(columns, units, index)
    _WRITERS[table_format(path)](path, _Table(columns, attributes, units, index, types or {}))


def all_units(columns: Iterable[str], units: Units, index: str | None = None) -> dict[str, str]:
    """The unit of each column: that in `units`, 1 for the `index`, or data units."""
    return dict.fromkeys(columns, "data units") | ({index: "1"} if index else {}) | dict(units)


def write_csv(stream: BinaryIO, columns: Columns, separator: str = ",", *, header: bool = True) -> None:
    """Write equally long `columns: (n,)` of numbers or of `str` as CSV."""
    import pandas as pd

    check_columns(columns)
    pd.DataFrame(dict(columns)).to_csv(stream, index=False, na_rep="nan", sep=separator, header=header)


def check_table_path(path: Path, columns: Iterable[str] = ()) -> None:
    """Raise `ConfigurationError` unless `write_table` can write `columns` of these names to `path`."""
    if table_format(path) != "hdf5":
        return
    if unfit := [name for name in columns if "/" in name or "\0" in name or name in {"", "."}]:
        raise ConfigurationError(
            f"column `{unfit[0]}` cannot be written to {path}: HDF5 allows no such name; "
            "write .csv or .parquet instead, with `-o`"
        )


def table_format(path: Path) -> str:
    """The format that the ending of `path` stands for, one of the values of `FORMATS`.

    Raises `ConfigurationError` for another ending.
    """
    for ending, format in FORMATS.items():
        if path.name.lower().endswith(ending):
            return format
    raise ConfigurationError(f"cannot tell the format of {path}: it must end in {', '.join(FORMATS)}")


def check_columns(columns: Columns) -> None:
    """Raise `ConfigurationError` unless the columns are equally long, of numbers, times or text."""
    lengths = {name: np.shape(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
        raise ConfigurationError(f"the columns of a table must be equally long; the shapes are {lengths}")
    for name, values in columns.items():
        if values.dtype.kind not in "bfiuM" and not is_text(values):
            raise ConfigurationError(
                f"column `{name}` must hold numbers or text to be written, and is {values.dtype}"
            )


def is_text(values: NDArray[Any]) -> bool:
    """Whether all `values` are text, of numpy's own type or Python's."""
    if values.dtype.kind == "O":
        return all(isinstance(each, str) for each in values)
    return values.dtype.kind == "U"


def _write_hdf5(path: Path, table: _Table) -> None:
    columns, index = table.columns, table.index
    name_of_rows = index or next(name for name in names_of_rows() if name not in columns)
    rows = len(next(iter(columns.values())))
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBRARY_VERSIONS, track_order=True) as file:
        write_attributes(file, table.attributes)
        numbers = columns.get(name_of_rows, np.arange(rows, dtype=np.int64))
        scale = write_array(file, name_of_rows, numbers, {name_of_rows: None}, "1")
        for name, values in columns.items():
            if name != index:
                dims = {name_of_rows: scale}
                if is_text(values):
                    write_texts(file, name, values.tolist(), dims, table.units[name])
                else:
                    write_array(file, name, values, dims, table.units[name])
    write_image(path, image)


def write_attributes(file: h5py.File, attributes: Attributes) -> None:
    """Set the attributes of an HDF5 file."""
    for name, value in attributes.items():
        if isinstance(value, str):
            write_attribute(file, name, value)
        else:
            file.attrs[name] = value


def names_of_rows() -> Iterator[str]:
    """Names for the scale of the rows, of which the first that no column has is taken."""
    return (f"row{'_' * length}" for length in itertools.count())


def _write_text(path: Path, table: _Table) -> None:
    with text_file(path) as (file, separator):
        write_csv(file, table.columns, separator)


@contextmanager
def text_file(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """A file of text to write to, packed if `path` says so, and its separator; at the end it is `path`."""
    separator = "\t" if ".tsv" in path.name.lower()[-7:] else ","
    with atomic_write(path) as partial, partial.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # Without a time stamp and a name inside, the same table gives the same bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                yield cast(BinaryIO, compressed), separator
        else:
            yield file, separator


def _write_parquet(path: Path, table: _Table) -> None:
    from pyarrow import parquet

    with atomic_write(path) as partial:
        parquet.write_table(to_arrow(table.columns, table.attributes, table.units, table.types), partial)


def _write_arrow(path: Path, table: _Table) -> None:
    from pyarrow import feather

    with atomic_write(path) as partial:
        feather.write_feather(
            to_arrow(table.columns, table.attributes, table.units, table.types), str(partial)
        )


def to_arrow(columns: Columns, attributes: Attributes, units: Units, types: Types) -> "pa.Table":
    """The columns as an Arrow table, each of its type in `types` if its values allow it."""
    import pyarrow as pa

    arrays = [_array(values, types.get(name)) for name, values in columns.items()]
    fields = [
        pa.field(name, array.type, metadata={"units": units[name]})
        for name, array in zip(columns, arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields, metadata={"flowbench": to_json(attributes)}))


def _array(values: NDArray[Any], wanted: str | None) -> "pa.Array":
    """`values` as an Arrow array, of the type that is `wanted` if the values allow it."""
    import pyarrow as pa

    array = pa.array(values, pa.string() if is_text(values) else None)
    kind = _type(wanted) if wanted else None
    # Numbers keep the type that they have: a draw may lie beyond the type of its column.
    if kind is None or not (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)):
        return array
    try:
        if pa.types.is_time(kind):  # the values are seconds
            return pa.array(np.rint(values * 1e6).astype(np.int64)).cast(pa.time64("us")).cast(kind)
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return array


def _type(name: str) -> "pa.DataType | None":
    """The type that Arrow calls `name`; None if no column of a table can have it."""
    import pyarrow as pa

    if match := re.fullmatch(r"decimal(128|256)\((\d+), (\d+)\)", name):
        return getattr(pa, f"decimal{match[1]}")(int(match[2]), int(match[3]))
    if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(match[1], match[2])
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None


#: The format of a table, by the ending of its path.
FORMATS = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "arrow",
    ".arrow": "arrow",
}
_WRITERS: dict[str, Callable[[Path, _Table], None]] = {
    "hdf5": _write_hdf5,
    "csv": _write_text,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
}
