"""Tables in parts, written as one file without being in memory as a whole."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import RunFailedError
from flowbench.store.atomic import atomic_write
from flowbench.store.hdf5 import LIBRARY_VERSIONS, create_column, fixed_length
from flowbench.store.table_parts import Parts
from flowbench.store.table_writing import (
    Attributes,
    Types,
    Units,
    all_units,
    check_table_path,
    is_text,
    names_of_rows,
    table_format,
    text_file,
    to_arrow,
    write_attributes,
    write_csv,
    write_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes that an HDF5 file may have beyond the values in it.
_OVERHEAD = 2**24
#: Row numbers that are made at once.
_ROWS = 2**16


def write_long_table(
    path: Path,
    parts: Parts,
    attributes: Attributes,
    units: Units,
    *,
    index: str | None = None,
    types: Types | None = None,
) -> None:
    """Write one part or more to `path`, atomically, as `write_table` writes a table of all their rows.

    A table of one part gives the same bytes as there. In memory there is one part at a time. Raises
    `RunFailedError` where the disk has no room for an HDF5 file.
    """
    path = Path(path)
    if len(parts) == 1:
        write_table(path, next(parts.read()), attributes, units, index=index, types=types)
        return
    names = list(next(parts.read()))
    check_table_path(path, names)
    units = all_units(names, units, index)
    format = table_format(path)
    if format == "csv":
        with text_file(path) as (file, separator):
            for number, part in enumerate(parts.read()):
                write_csv(file, part, separator, header=number == 0)
    elif format == "hdf5":
        _write_hdf5(path, parts, names, attributes, units, index)
    else:
        _write_arrow(path, format, parts, attributes, units, types or {})


def _write_arrow(
    path: Path, format: str, parts: Parts, attributes: Attributes, units: Units, types: Types
) -> None:
    from pyarrow import ipc, parquet

    types = _common(parts, types)

    def tables() -> Iterator["pa.Table"]:
        return (to_arrow(part, attributes, units, types) for part in parts.read())

    schema = next(tables()).schema
    with atomic_write(path) as partial:
        if format == "parquet":
            with parquet.ParquetWriter(partial, schema) as writer:
                for table in tables():
                    writer.write_table(table)
            return
        options = ipc.IpcWriteOptions(compression="lz4")
        with ipc.new_file(str(partial), schema, options=options) as batches:
            for table in tables():
                batches.write_table(table)


def _common(parts: Parts, types: Types) -> dict[str, str]:
    """Those of the `types` that do the same to the column in every part."""
    found: dict[str, set[Any]] = {}
    for part in parts.read() if types else ():
        for name, values in part.items():
            if name not in types:
                continue
            table = to_arrow({name: values}, {}, {name: ""}, types)
            found.setdefault(name, set()).add(table.schema.field(0).type)
    return {name: types[name] for name, kinds in found.items() if len(kinds) == 1}


def _write_hdf5(
    path: Path,
    parts: Parts,
    names: Sequence[str],
    attributes: Attributes,
    units: Units,
    index: str | None,
) -> None:
    name_of_rows = index or next(name for name in names_of_rows() if name not in names)
    rows, dtypes = _facts(parts)
    bound = rows * sum(dtype.itemsize for dtype in (*dtypes.values(), np.dtype(np.int64))) + _OVERHEAD
    if (free := shutil.disk_usage(path.parent).free) < bound:
        # The HDF5 library crashes the process when it closes a file on a full disk.
        raise RunFailedError(
            f"cannot write {path}: it may take {bound / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; "
            "free some space, or work in another folder"
        )
    with (
        atomic_write(path) as partial,
        h5py.File(partial, "w", libver=LIBRARY_VERSIONS, track_order=True) as file,
    ):
        write_attributes(file, attributes)
        dtype = dtypes.get(name_of_rows, np.dtype(np.int64))
        scale = create_column(file, name_of_rows, rows, dtype, {name_of_rows: None}, "1")
        if name_of_rows in dtypes:
            _fill(scale, (part[name_of_rows] for part in parts.read([name_of_rows])))
        else:
            _fill(scale, (np.arange(first, min(first + _ROWS, rows)) for first in range(0, rows, _ROWS)))
        for name in names:
            if name != index:
                column = create_column(file, name, rows, dtypes[name], {name_of_rows: scale}, units[name])
                _fill(column, (part[name] for part in parts.read([name])))


def _facts(parts: Parts) -> tuple[int, Mapping[str, np.dtype[Any]]]:
    """The number of rows, and the type of each column; text has the length of the longest one."""
    rows, dtypes = 0, dict[str, np.dtype[Any]]()
    for part in parts.read():
        rows += len(next(iter(part.values())))
        for name, values in part.items():
            found = fixed_length(values.tolist()).dtype if is_text(values) else values.dtype
            if name not in dtypes or found.itemsize > dtypes[name].itemsize:
                dtypes[name] = found
    return rows, dtypes


def _fill(dataset: h5py.Dataset, pieces: Iterator[NDArray[Any]]) -> None:
    """Write the values in `pieces` one after another, each chunk of the `dataset` once."""
    size, done = dataset.chunks[0], 0
    held: list[NDArray[Any]] = []

    def write(values: NDArray[Any]) -> None:
        nonlocal done
        # Joined texts are no longer marked as UTF-8.
        dataset[done : done + len(values)] = np.array(values, dataset.dtype)
        done += len(values)

    for piece in pieces:
        values = fixed_length(piece.tolist(), dataset.dtype.itemsize) if is_text(piece) else piece
        held.append(values)
        if sum(map(len, held)) >= size:
            values = np.concatenate(held)
            whole = len(values) // size * size
            for first in range(0, whole, size):
                write(values[first : first + size])
            held = [values[whole:]]
    if any(map(len, held)):
        write(np.concatenate(held))
