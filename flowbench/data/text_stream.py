"""Long tables of text, read in parts where every cell is a plain number or empty."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowbench.data.column_type import ColumnType
from flowbench.data.csv_table import look_through, read_head, skip_bytes
from flowbench.data.dialect import Dialect, find_dialect, find_encoding
from flowbench.data.files import TableFile
from flowbench.data.raw_table import numbered
from flowbench.data.read_options import ReadOptions
from flowbench.data.text_numbers import EXACT
from flowbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

#: A file of fewer bytes is read whole; text packs to about one part in so many.
STREAMED_BYTES, PACKED = 2**24, 8
#: Bytes that Arrow parses at once; no row is longer.
_BLOCK = 2**20


@dataclass(frozen=True)
class PlainText:
    """A table of text whose `columns` hold plain numbers and empty cells alone, in `n_rows` rows."""

    file: TableFile
    dialect: Dialect
    columns: tuple[str, ...]
    n_rows: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed about the layout."""
        return self.dialect.notes

    def batches(self) -> Iterator["pa.RecordBatch"]:
        """The rows, in batches of some size; raises `ValueError` for a cell that is no plain number."""
        import pyarrow as pa
        from pyarrow import csv

        places = numbered(len(self.dialect.names))
        wanted = [places[self.dialect.names.index(name)] for name in self.columns]
        encoding = "utf-8-sig" if self.dialect.encoding == "utf-8" else self.dialect.encoding
        with self.file.open() as stream:
            skip_bytes(stream, self.dialect.start)
            reader = csv.open_csv(
                stream,
                csv.ReadOptions(
                    column_names=list(places), block_size=_BLOCK, encoding=encoding, use_threads=False
                ),
                csv.ParseOptions(delimiter=self.dialect.separator, quote_char=self.dialect.quote),
                csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.float64()), include_columns=wanted),
            )
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(self.columns))


def open_plain_text(
    file: TableFile, columns: Sequence[str], reading: ReadOptions, types: Mapping[str, ColumnType]
) -> PlainText | None:
    """The table, if reading it in parts gives what reading it whole gives; else None.

    That is so where nothing has to be guessed from all rows: without quotes, signs, dates, levels and decimal
    commas. All bytes are read twice to find out, and the rows are counted.
    """
    if file.path.stat().st_size * (PACKED if file.is_packed else 1) < STREAMED_BYTES:
        return None
    if reading.decimal or reading.thousands or any(not _is_plain(types.get(name)) for name in columns):
        return None
    try:
        return _checked(file, columns, reading)
    except (ValueError, DataError, OSError, EOFError):  # reading the file whole says what is wrong
        return None


def _is_plain(kind: ColumnType | None) -> bool:
    return kind is not None and kind.unit is None and kind.mark is None and kind.levels is None


def _checked(file: TableFile, columns: Sequence[str], reading: ReadOptions) -> PlainText | None:
    head, whole = read_head(file)
    encoding, mark = find_encoding(head, reading.encoding)
    usual = "\t" if file.ending in (".tsv", ".tab") else ","
    dialect = find_dialect(head, whole, encoding, mark, reading, usual)
    names = dialect.names
    if any(names.count(name) != 1 or names.index(name) in dialect.leading_zeros for name in columns):
        return None
    if dialect.separator == " " or dialect.decimal == "," or dialect.trailing:
        return None
    contents = look_through(file, dialect, bounded=False)
    if contents.quotes or contents.hexadecimal or (len(names) == 1 and contents.empty_lines):
        return None
    found = PlainText(file, dialect, tuple(columns))
    rows = 0
    for batch in found.batches():
        rows += batch.num_rows
        if any(_is_beyond_exact(column) for column in batch.columns):
            return None
    return PlainText(file, dialect, tuple(columns), rows) if rows else None


def _is_beyond_exact(column: "pa.DoubleArray") -> bool:
    """Whether a number is so large that a float64 may have rounded it."""
    from pyarrow import compute

    most = compute.max(compute.abs(column.filter(compute.is_finite(column)))).as_py()
    return most is not None and most > EXACT
