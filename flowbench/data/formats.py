"""The reader for each format of table files, and the errors that all readers share.

Files are untrusted: nothing is unpickled, and sizes are checked before anything is read.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cells import Cells
from flowbench.data.column_type import ColumnType
from flowbench.data.csv_table import read_csv
from flowbench.data.files import TableFile
from flowbench.data.hdf5_table import read_hdf5
from flowbench.data.raw_table import RawTable, check_size
from flowbench.data.read_options import ReadOptions
from flowbench.data.row_draw import RowDraw
from flowbench.data.sheet_table import read_sheet
from flowbench.data.text_numbers import EXACT, merged_digits
from flowbench.errors import DataError, FlowbenchError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

Wanted = Sequence[str] | None

#: Bytes of a column that are decoded from Parquet at once, whatever the size of its row groups.
PARQUET_BUFFER = 2**20
#: What to do about a Parquet file that is too large.
LESS_PARQUET = (
    "name some of its columns with `--columns`, or learn from rows drawn at random, such as `--rows 1000000`"
)


@contextmanager
def reading_errors(path: object) -> Iterator[None]:
    """Turn every error of reading `path` into a `DataError` that names the file.

    Other errors of flowbench pass unchanged. So do a library that is not installed and a lack of memory.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (FlowbenchError, ImportError, MemoryError):
        raise
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it") from error
    # The list of exceptions for damaged files is open: numpy alone raises ValueError, SyntaxError and
    # tokenize.TokenError.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: it is damaged, or not what its suffix says ({reason})") from error


def read_raw_table(
    file: TableFile, reading: ReadOptions, wanted: Wanted = None, draw: RowDraw | None = None
) -> RawTable:
    """Read a file by its suffix; to be called within `reading_errors`.

    Columns that are not `wanted` may be skipped. `draw` says which rows to take, by default all; of Parquet
    the others are never held. Raises `DataError` if the file is missing, not a regular file, of an unknown
    suffix or too large. For a damaged file it raises whatever the format's library raises.
    """
    path = file.path
    if path.is_dir():
        raise DataError("it is a folder; give the path of a table file in it")
    if not path.exists():
        raise DataError("there is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
    if not path.is_file():
        raise DataError("it is not a regular file")
    if path.stat().st_size == 0:
        raise DataError("the file is empty")
    if file.kind == "parquet":
        return _read_parquet(file, reading, wanted, draw)
    table = _READERS[file.kind](file, reading, wanted)
    return table if draw is None else draw.of(table)


def _read_parquet(file: TableFile, reading: ReadOptions, wanted: Wanted, draw: RowDraw | None) -> RawTable:
    from pyarrow import parquet

    # Without these a row group is held as a whole.
    with parquet.ParquetFile(file.path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as source:
        schema, n = source.schema_arrow, source.metadata.num_rows
        names = _names(schema, wanted)
        columns = list(dict.fromkeys(names))
        rows = None if draw is None else draw.rows(n)
        check_size((n if rows is None else len(rows)) * len(names) * 8, LESS_PARQUET)
        table = source.read(columns) if rows is None else _taken(source, columns, rows)
    found = RawTable.from_arrow(
        tuple(table.column_names), table, reading, _pandas_index(schema, table.column_names)
    )
    if draw is None:
        return found
    cells = found.cells
    return replace(
        found,
        cells=lambda index, expected: replace(cells(index, expected), rows=rows),
        notes=(draw.note(n),),
    )


def _taken(source: "parquet.ParquetFile", columns: Sequence[str], rows: NDArray[np.int64]) -> "pa.Table":
    """The `rows: (k,)`, ascending, of a Parquet file, of which a batch is held at a time."""
    import pyarrow as pa

    first, taken = 0, []
    for batch in source.iter_batches(columns=list(columns)):
        low, high = np.searchsorted(rows, [first, first + batch.num_rows])
        taken.append(batch.take(pa.array(rows[low:high] - first)))
        first += batch.num_rows
    return pa.Table.from_batches(taken).unify_dictionaries()


def _read_arrow(file: TableFile, reading: ReadOptions, wanted: Wanted) -> RawTable:
    from pyarrow import feather, ipc

    check_size(file.path.stat().st_size)
    with file.open() as stream:
        is_file = stream.read(6) in (b"ARROW1", b"FEA1\0\0")
    if is_file:
        table = feather.read_table(file.path, memory_map=False)
    else:
        with file.open() as stream:
            table = ipc.open_stream(stream).read_all()
    check_size(table.nbytes)
    table = table.select(_names(table.schema, wanted))
    return RawTable.from_arrow(
        tuple(table.column_names), table, reading, _pandas_index(table.schema, table.column_names)
    )


def _names(schema: "pa.Schema", wanted: Wanted) -> list[str]:
    """The columns to read: those `wanted`, if each of them is there exactly once."""
    names = list(schema.names)
    if wanted is None or any(names.count(name) != 1 for name in wanted):
        return names
    return list(wanted)


def _pandas_index(schema: "pa.Schema", names: Sequence[str]) -> dict[int, str]:
    """Which of the columns called `names` pandas wrote as an index, with the reason to leave them out."""
    try:
        described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        described = None
    found = described.get("index_columns") if isinstance(described, dict) else None
    index = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    return {
        number: "it is the index of a pandas table"
        for number, name in enumerate(names)
        if name in index or (name.startswith("__index_level_") and name.endswith("__"))
    }


def _read_json(file: TableFile, reading: ReadOptions, wanted: Wanted) -> RawTable:
    from pyarrow import json as arrow_json

    if not file.is_packed:
        check_size(file.path.stat().st_size)
    with file.open() as stream:
        content = _bounded(stream.read, 2**22)
    import pyarrow as pa

    table = arrow_json.read_json(pa.BufferReader(content))
    names = _names(table.schema, wanted)
    found = RawTable.from_arrow(tuple(names), table.select(names), reading)

    def cells(index: int, expected: ColumnType | None) -> Cells:
        each = found.cells(index, expected)
        if each.type.storage == "float64" and np.nanmax(np.abs(each.numbers), initial=0) > EXACT:
            # If a column has a number with decimals, or one with many digits, Arrow rounds its whole numbers
            # too.
            lines = (json.loads(line, parse_int=str) for line in content.splitlines() if line.strip())
            texts = [line.get(names[index]) for line in lines]
            digits = [text if isinstance(text, str) else None for text in texts]
            fault = merged_digits(pa.chunked_array([pa.array(digits, pa.string())]), each.numbers)
            each = replace(each, fault=fault)
        return each

    return replace(found, cells=cells)


def _bounded(read: Callable[[int], bytes], block: int) -> bytes:
    parts, total = [], 0
    while part := read(block):
        total += len(part)
        check_size(total)
        parts.append(part)
    return b"".join(parts)


def _read_npy(file: TableFile, reading: ReadOptions, wanted: Wanted) -> RawTable:
    # Mapping checks that the file has the size that its header declares.
    return RawTable.from_array(np.lib.format.open_memmap(file.path, mode="r"), reading)


def _read_npz(file: TableFile, reading: ReadOptions, wanted: Wanted) -> RawTable:
    with zipfile.ZipFile(file.path) as archive:
        sizes = {member.filename.removesuffix(".npy"): member.file_size for member in archive.infolist()}
    with np.load(file.path, allow_pickle=False) as arrays:
        names = list(arrays.files)
        if not names:
            raise DataError("it holds no arrays")
        if file.inside is not None:
            if file.inside not in names:
                there = ", ".join(f"`{name}`" for name in names[:5])
                raise DataError(f"it has no array `{file.inside}`; there is {there}")
            names = [file.inside]
        elif wanted and set(wanted) <= set(names):
            names = [name for name in names if name in wanted]
        check_size(sum(sizes.get(name, 0) for name in names))
        return RawTable.from_arrays({name: arrays[name] for name in names}, reading, wanted=wanted)


def _read_hdf5(file: TableFile, reading: ReadOptions, wanted: Wanted) -> RawTable:
    return read_hdf5(file.path, file.inside, reading, wanted)


_READERS: dict[str, Callable[[TableFile, ReadOptions, Wanted], RawTable]] = {
    "text": read_csv,
    "json": _read_json,
    "arrow": _read_arrow,
    "npy": _read_npy,
    "npz": _read_npz,
    "hdf5": _read_hdf5,
    "sheet": read_sheet,
}
