"""The rows of a table in chunks, so that it may be larger than memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import check_cells
from flowbench.data.cells import Cells, cells_of_arrow
from flowbench.data.column_type import ColumnType
from flowbench.data.files import TableFile
from flowbench.data.formats import PARQUET_BUFFER, reading_errors
from flowbench.data.read_options import ReadOptions
from flowbench.data.table_reading import as_expected, read_rows
from flowbench.data.text_stream import open_plain_text
from flowbench.data.unfit_rows import UnfitCell, rows_of_cells

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowChunk:
    """Rows `x: (k, d)` of a table, data units, of which the first is number `first`, from 0.

    A cell is NaN if it is missing or not a number. `unfit` gives the first unfit cell of each row that has
    one, by the row's place among these. `notes` are what reading guessed: column, note and an example.
    """

    first: int
    x: Floats
    unfit: Mapping[int, UnfitCell] = field(default_factory=dict)
    notes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class RowStream:
    """The `n_rows` rows of a table; `chunks(first)` gives those from number `first` on, by the chunk.

    All chunks have the same number of rows but for the last. `notes` say what was guessed about the file.
    """

    n_rows: int
    chunks: Callable[[int], Iterator[RowChunk]]
    notes: tuple[str, ...] = ()


def open_rows(
    file: TableFile,
    columns: Sequence[str],
    reading: ReadOptions,
    types: Mapping[str, ColumnType],
    size: int,
    *,
    strict: bool = False,
) -> RowStream:
    """The rows of a table file in chunks of `size` rows; the `types` of its `columns` are known.

    Parquet is never in memory as a whole. Neither is text of plain numbers without quotes, if it is long
    (`flowbench.data.text_stream`). Other files are read whole.

    Raises as `read_table` does, for cells only if `strict`. What is wrong with a cell, or with a column, is
    raised when its chunk is read.
    """
    stream = None
    if file.path.is_file():
        with reading_errors(file):
            kind = file.kind
            if kind == "parquet":
                stream = _of_parquet(file, columns, reading, types, size, strict)
            elif kind == "text" and (text := open_plain_text(file, columns, reading, types)):

                def chunks(first: int) -> Iterator[RowChunk]:
                    tables = _rebatched(text.batches(), first, size)
                    return _read(file, tables, first, columns, reading, types, strict)

                stream = RowStream(text.n_rows, chunks, text.notes)
    if stream is not None:
        return stream
    x, unfit, notes = read_rows(file, columns, reading, types, strict=strict)
    return whole_rows(x, size, unfit, notes)


def whole_rows(
    x: Floats, size: int, unfit: Mapping[int, UnfitCell] | None = None, notes: tuple[str, ...] = ()
) -> RowStream:
    """Rows `x: (n, d)` that are in memory, in chunks of `size`; `unfit` and `notes` are of all of them."""
    places = dict[int, dict[int, UnfitCell]]()
    for row, cell in (unfit or {}).items():
        places.setdefault(row // size, {})[row % size] = cell

    def chunks(first: int) -> Iterator[RowChunk]:
        for start in range(first, len(x), size):
            yield RowChunk(start, x[start : start + size], places.get(start // size, {}))

    return RowStream(len(x), chunks, notes)


def _of_parquet(
    file: TableFile,
    columns: Sequence[str],
    reading: ReadOptions,
    types: Mapping[str, ColumnType],
    size: int,
    strict: bool,
) -> RowStream | None:
    """The rows of a Parquet file; None if reading it whole says what is wrong with it."""
    from pyarrow import parquet

    with parquet.ParquetFile(file.path) as source:
        names, metadata = list(source.schema_arrow.names), source.metadata
    if not columns or any(names.count(name) != 1 for name in columns) or not metadata.num_rows:
        return None

    def chunks(first: int) -> Iterator[RowChunk]:
        tables = _rebatched(*_parquet_batches(file, columns, metadata, first, size), size)
        return _read(file, tables, first, columns, reading, types, strict)

    return RowStream(metadata.num_rows, chunks)


def _parquet_batches(
    file: TableFile, columns: Sequence[str], metadata: "FileMetaData", first: int, size: int
) -> tuple[Iterator["pa.RecordBatch"], int]:
    """The batches of the row groups from that of row `first` on, and how many rows come before this row."""
    from pyarrow import parquet

    group, before = 0, first
    while group < metadata.num_row_groups and before >= metadata.row_group(group).num_rows:
        before -= metadata.row_group(group).num_rows
        group += 1

    def batches() -> Iterator["pa.RecordBatch"]:
        with parquet.ParquetFile(file.path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as source:
            groups = list(range(group, metadata.num_row_groups))
            yield from source.iter_batches(size, row_groups=groups, columns=list(columns))

    return batches(), before


def _rebatched(batches: Iterator["pa.RecordBatch"], skipped: int, size: int) -> Iterator["pa.Table"]:
    """The rows of `batches` without the first `skipped`, in tables of `size` rows and a rest."""
    import pyarrow as pa

    held, rows = [], 0
    for batch in batches:
        if skipped >= batch.num_rows:
            skipped -= batch.num_rows
            continue
        batch = batch.slice(skipped)
        skipped = 0
        held.append(batch)
        rows += batch.num_rows
        while rows >= size:
            table = pa.Table.from_batches(held)
            yield table.slice(0, size)
            held, rows = table.slice(size).to_batches(), rows - size
    if rows:
        yield pa.Table.from_batches(held)


def _read(
    file: TableFile,
    tables: Iterator["pa.Table"],
    first: int,
    columns: Sequence[str],
    reading: ReadOptions,
    types: Mapping[str, ColumnType],
    strict: bool,
) -> Iterator[RowChunk]:
    """The rows in Arrow's `tables`, which begin with row number `first` of the file."""
    gaps = reading.missing == "model"
    with reading_errors(file):
        for table in tables:
            cells = {name: _cells(table.column(name), reading, types.get(name)) for name in columns}
            if strict:
                check_cells(cells, may_be_missing=gaps, may_leave_out=False, first=first)
            x, unfit = rows_of_cells(cells, gaps=gaps)
            notes = tuple((name, *note) for name, each in cells.items() for note in each.notes)
            yield RowChunk(first, x, unfit, notes)
            first += len(x)


def _cells(values: "pa.ChunkedArray", reading: ReadOptions, expected: ColumnType | None) -> Cells:
    return as_expected(cells_of_arrow(values, reading, expected=expected, typed=True), expected, False)
