"""Reading CSV files: separated by commas, semicolons or tabs, with a line of column names or without."""

import csv
import gzip
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from flowbench.data.raw_table import RawTable, check_size, is_number, numbered
from flowbench.errors import DataError

if TYPE_CHECKING:
    from pyarrow.csv import InvalidRow

_LONGEST_HEADER_BYTES = 2**20
_DELIMITERS = ",;\t"
_NOT_UTF8 = "it is not UTF-8 text; save it as UTF-8"


def read_csv(path: Path) -> RawTable:
    """Read a CSV file, compressed if its name ends in .gz.

    The separator is the one of comma, semicolon and tab that the first line has most of. If all cells of
    that line are numbers or missing, the file has no header, and its columns are called c1, c2, ... Blank
    lines are skipped and not counted. Raises `DataError`, `ValueError` or `OSError` for a file that cannot
    be read.
    """
    from pyarrow import csv as arrow_csv

    check_size(_text_bytes(path))
    faults: list[InvalidRow] = []
    conversion = arrow_csv.ConvertOptions(strings_can_be_null=True)

    def note_and_stop(row: "InvalidRow") -> str:
        faults.append(row)
        return "error"

    with _open(path) as file:
        names, delimiter = _read_header(file, conversion.null_values)
        try:
            table = arrow_csv.read_csv(
                file,
                arrow_csv.ReadOptions(
                    # With several threads Arrow does not know the number of a faulty row.
                    use_threads=False,
                    column_names=numbered(len(names)),
                    # Under any name but "utf8" Arrow checks the encoding.
                    encoding="utf-8-sig",
                ),
                arrow_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note_and_stop
                ),
                conversion,
            )
        except UnicodeDecodeError:
            raise DataError(_NOT_UTF8) from None
        except ValueError:
            if not faults:
                raise
            row = faults[0]
            raise DataError(
                f"row {row.number} has {row.actual_columns} cells where the first line has "
                f"{row.expected_columns}; give every row the same number of cells"
            ) from None
    return RawTable.from_arrow(names, table)


def _read_header(file: BinaryIO, missing: Collection[str]) -> tuple[tuple[str, ...], str]:
    """The names of the columns and the separator; leaves `file` where the rows begin.

    Cells that are one of `missing` hold nothing.
    """
    start, line = _next_line(file)
    if not line:
        raise DataError("it holds nothing but blank lines")
    if b"\0" in line:
        raise DataError("it is not a text file, whatever its suffix says")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(_NOT_UTF8) from None
    delimiter = max(_DELIMITERS, key=text.count)
    cells = tuple(cell.strip() for cell in next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter)))
    if _are_values(cells, missing):
        file.seek(start)
        return numbered(len(cells)), delimiter
    start, line = _next_line(file)
    if not line:
        raise DataError("it holds a line of names but no rows")
    file.seek(start)
    return cells, delimiter


def _are_values(cells: tuple[str, ...], missing: Collection[str]) -> bool:
    """Whether the first line is a row: numbers, beside which cells may be missing."""
    # What pandas writes above an index and columns that have no names.
    numbered_columns = ("", *map(str, range(len(cells) - 1)))
    known = [cell for cell in cells if cell not in missing]
    return bool(known) and all(map(is_number, known)) and cells != numbered_columns


def _next_line(file: BinaryIO) -> tuple[int, bytes]:
    """Where the next line that is not blank begins, and the line; an empty line at the end of the file."""
    line = b"\n"
    while line and not line.strip():
        start = file.tell()
        line = file.readline(_LONGEST_HEADER_BYTES)
    return start, line


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _text_bytes(path: Path) -> int:
    """The size of the text; of a compressed file only as far as it takes to break the bound."""
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    total = 0
    with _open(path) as file:
        while block := file.read(2**24):
            total += len(block)
            check_size(total)
    return total
