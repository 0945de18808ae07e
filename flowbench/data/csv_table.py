"""Reads tables of text; `flowbench.data.dialect` finds their layout."""

import csv
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from flowbench.data.cells import Cells, cells_of_arrow
from flowbench.data.column_type import ColumnType
from flowbench.data.dialect import (
    COMMENTS,
    FALLBACK,
    Dialect,
    check_closed,
    find_dialect,
    find_encoding,
    split_blanks,
)
from flowbench.data.files import TableFile
from flowbench.data.header import is_value
from flowbench.data.raw_table import RawTable, check_size, numbered
from flowbench.data.read_options import ReadOptions
from flowbench.data.text_numbers import EXACT, has_decimal_commas, merged_digits
from flowbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.csv import InvalidRow

#: Bytes from which the layout is found; more, up to the second number, where lines are longer.
_HEAD, _LONGEST_HEAD = 2**20, 2**26
_BLOCK = 2**22
#: Columns by which a table is known as one that flowbench wrote.
_OWN = {"log_prob", "log_prob_error"}
#: The most cells with line breaks that are checked in a column.
_BROKEN_CELLS = 1000
#: A cell over more lines than this may have an unclosed quote.
_LONG_CELL = 4


@dataclass(frozen=True)
class _Contents:
    """Facts about all bytes: the number of quotes, whether numbers may be hexadecimal, and empty lines."""

    quotes: int
    hexadecimal: bool
    empty_lines: int


def read_csv(file: TableFile, reading: ReadOptions, wanted: Sequence[str] | None = None) -> RawTable:
    """Read a table of text; columns that are not `wanted` may be skipped.

    The layout is that of `find_dialect`. Text without a byte order mark that is not UTF-8 is read as
    Windows-1252. Blank lines are skipped and not counted. Raises `DataError`, `ValueError` or `OSError` for a
    file that cannot be read.
    """
    head, whole = read_head(file)
    usual = "\t" if file.ending in (".tsv", ".tab") else ","
    encoding, mark = find_encoding(head, reading.encoding)
    try:
        return _read(file, find_dialect(head, whole, encoding, mark, reading, usual), reading, wanted)
    except UnicodeDecodeError:
        if reading.encoding is not None or encoding != "utf-8" or mark:
            raise DataError(
                f"it is not text in {reading.encoding or encoding}; name its encoding with `--encoding`"
            ) from None
    try:
        found = _read(file, find_dialect(head, whole, FALLBACK, 0, reading, usual), reading, wanted)
    except UnicodeDecodeError:
        raise DataError(
            "it is text neither in UTF-8 nor in Windows-1252; name its encoding with `--encoding`"
        ) from None
    note = "the file is not UTF-8, and read as Windows-1252 (Latin-1); `--encoding` names another"
    return replace(found, notes=(note, *found.notes))


def is_own_text(file: TableFile) -> bool:
    """Whether a file is a table of text that flowbench wrote, whose layout needs no user's options."""
    try:
        if not file.path.is_file() or file.kind != "text":
            return False
        with file.open() as stream:
            first = stream.read(_HEAD).partition(b"\n")[0].decode(errors="replace").strip()
    except (DataError, OSError, EOFError, zlib.error):  # reading the table reports these
        return False
    return set(re.split(r"[,\t]", first)) >= _OWN


def read_head(file: TableFile) -> tuple[bytes, bool]:
    """The first bytes, with at least two lines in them, and whether they are the whole file."""
    size = _HEAD
    with file.open() as stream:
        head = stream.read(size)
        while len(head) == size and head.count(b"\n") < 2 and size < _LONGEST_HEAD:
            size *= 2
            head += stream.read(size - len(head))
        return head, not stream.read(1)


def _read(file: TableFile, dialect: Dialect, reading: ReadOptions, wanted: Sequence[str] | None) -> RawTable:
    contents = look_through(file, dialect)
    names, places = dialect.names, numbered(len(dialect.names))
    included = None
    if wanted is not None and not contents.quotes and set(wanted) <= set(names):
        # Of two columns with one name the first is read; using such a name is an error elsewhere.
        place_of = dict(zip(reversed(names), reversed(places), strict=True))
        included = [place_of[name] for name in dict.fromkeys(wanted)]
        if dialect.trailing:
            included.append(places[-1])
    as_text = contents.hexadecimal or dialect.decimal == "," or bool(reading.decimal or reading.thousands)
    table = _to_arrow(file, dialect, reading, as_text=as_text, included=included)
    if reading.decimal is None and dialect.decimal != "," and _has_decimal_commas(table, dialect, contents):
        # Decimal commas may begin below the rows from which the layout was found. Beside them, points may
        # stand between thousands, so the file is read again.
        dialect = replace(dialect, decimal=",")
        table = _to_arrow(file, dialect, reading, as_text=True, included=included)
    notes = dialect.notes
    if len(names) == 1 and contents.empty_lines:
        notes += (f"{contents.empty_lines:,} empty lines are passed over, and are no missing cells",)
    if contents.quotes:
        notes += _check_quotes(file, dialect, table, contents.quotes)
    if dialect.trailing and table.column(places[-1]).null_count < table.num_rows:
        row = 1 + int(np.argmax(~table.column(places[-1]).is_null().to_numpy()))
        raise DataError(
            f"row {row} has {len(names)} cells where the first line has {len(names) - 1}; give every row "
            "the same number of cells"
        )

    def cells(index: int, expected: ColumnType | None) -> Cells:
        column = table.column(places[index])
        found = cells_of_arrow(column, reading, decimal=dialect.decimal, expected=expected)
        if (
            str(column.type) == "double"
            and len(found.numbers)
            and np.nanmax(np.abs(found.numbers), initial=0) > EXACT
        ):
            again = _to_arrow(file, dialect, reading, as_text=True, included=[places[index]])
            found = replace(found, fault=merged_digits(again.column(0), found.numbers))
        if index in dialect.leading_zeros and found.type.is_integer:
            note = ("numbers begin with zeros, as codes do, and are read without them", "0...")
            found = replace(found, notes=(*found.notes, note))
        return found

    bookkeeping = {}
    if dialect.row_names:
        bookkeeping[0] = ""  # the dialect's notes say why
    if dialect.trailing:
        bookkeeping[len(names) - 1] = ""
    is_own = set(names) >= _OWN
    return RawTable(names, table.num_rows, cells, bookkeeping, notes, has_signs=not is_own)


def _has_decimal_commas(table: "pa.Table", dialect: Dialect, contents: _Contents) -> bool:
    """Whether a column of text has decimal commas, which only some layouts allow."""
    import pyarrow as pa

    if dialect.separator == "," and not contents.quotes:
        return False
    texts = [column for column in table.columns if pa.types.is_string(column.type)]
    return any(map(has_decimal_commas, texts))


def look_through(file: TableFile, dialect: Dialect, *, bounded: bool = True) -> _Contents:
    """Read every byte once; raises `DataError` if there are too many and they are `bounded`."""
    quote = dialect.quote.encode()
    total = quotes = empty = 0
    hexadecimal = dialect.encoding.startswith(("utf-16", "utf-32"))
    if bounded and not file.is_packed:
        check_size(file.path.stat().st_size)
    with file.open() as stream:
        last = b""
        while block := stream.read(_BLOCK):
            total += len(block)
            if bounded:
                check_size(total)
            quotes += block.count(quote)
            hexadecimal = (
                hexadecimal or b"0x" in block or b"0X" in block or (last == b"0" and block[:1] in b"xX")
            )
            empty += block.count(b"\n\n") + block.count(b"\n\r\n") + (last + block[:1] == b"\n\n")
            last = block[-1:]
    return _Contents(quotes, hexadecimal, empty)


def _to_arrow(
    file: TableFile,
    dialect: Dialect,
    reading: ReadOptions,
    *,
    as_text: bool = False,
    included: list[str] | None = None,
) -> "pa.Table":
    from pyarrow import csv as arrow_csv

    # A row may be longer than a block.
    for options in (arrow_csv.ReadOptions(), arrow_csv.ReadOptions(block_size=_LONGEST_HEAD)):
        try:
            return _parse(file, dialect, reading, as_text, included, options, [])
        except UnicodeDecodeError:  # a ValueError too, but not one that a larger block avoids
            raise
        except ValueError:
            continue
    # With several threads Arrow does not know the number of an invalid row.
    faults: list[InvalidRow] = []
    try:
        return _parse(
            file, dialect, reading, as_text, included, arrow_csv.ReadOptions(use_threads=False), faults
        )
    except UnicodeDecodeError:
        raise
    except ValueError:
        if not faults:
            raise
        row = faults[0]
        if dialect.separator != " ":
            _check_is_closed(file, dialect)
            if row.number is not None:
                _check_is_short(file, dialect, row.number)
        hint = ""
        if not str(row.text).strip("\x1a \t\r\n"):
            hint = ", and holds nothing to be seen: take it out"
        elif str(row.text).lstrip().startswith(COMMENTS):
            hint = ", and looks like a comment: take it out"
        elif dialect.separator == "," and row.actual_columns > row.expected_columns:
            hint = "; where commas stand inside numbers, say so with `--decimal ,` or `--thousands ,`"
        raise DataError(
            f"row {row.number} has {row.actual_columns} cells where the first line has "
            f"{row.expected_columns}; give every row the same number of cells{hint}"
        ) from None


def _parse(
    file: TableFile,
    dialect: Dialect,
    reading: ReadOptions,
    as_text: bool,
    included: list[str] | None,
    options: "pa.csv.ReadOptions",
    faults: list["InvalidRow"],
) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    columns = list(numbered(len(dialect.names)))
    options.column_names = columns
    separator = dialect.separator

    def note_and_stop(row: "InvalidRow") -> str:
        faults.append(row)
        return "error"

    # Truth words stay text, so that they are written as the file has them.
    conversion = arrow_csv.ConvertOptions(strings_can_be_null=True, true_values=[], false_values=[])
    if as_text:
        conversion.column_types = dict.fromkeys(columns, pa.string())
    if included is not None:
        conversion.include_columns = included
    with file.open() as stream:
        skip_bytes(stream, dialect.start)
        source: BinaryIO = stream
        # Arrow checks the encoding under any name but "utf8".
        options.encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
        if separator == " ":
            source, separator = _with_tabs(stream, dialect.encoding), "\t"
            options.encoding = "utf-8-sig"
        return arrow_csv.read_csv(
            source,
            options,
            arrow_csv.ParseOptions(
                delimiter=separator,
                quote_char=dialect.quote,
                newlines_in_values=True,
                invalid_row_handler=note_and_stop,
            ),
            conversion,
        )


def skip_bytes(stream: BinaryIO, n_bytes: int) -> None:
    """Read so many bytes, and forget them."""
    left = n_bytes
    while left and (block := stream.read(min(left, _BLOCK))):
        left -= len(block)


def _with_tabs(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The text in UTF-8, with a tab for each run of blanks between cells."""
    tabbed = io.BytesIO()
    with io.TextIOWrapper(stream, encoding, newline=None) as text:
        for line in text:
            tabbed.write("\t".join(split_blanks(line)).encode() + b"\n")
    tabbed.seek(0)
    return tabbed


def _check_quotes(file: TableFile, dialect: Dialect, table: "pa.Table", quotes: int) -> tuple[str, ...]:
    """Raise `DataError` for a quote that is never closed, or closed so late that its cell holds rows.

    Returns notes about cells over many lines that hold no rows.
    """
    import pyarrow as pa
    from pyarrow import compute

    notes: list[str] = []
    broken = False
    for number, column in enumerate(table.columns):
        if not pa.types.is_string(column.type):
            continue
        breaks = compute.fill_null(compute.count_substring_regex(column, "\r\n|\r|\n"), 0)
        rows = np.flatnonzero(breaks.to_numpy() > 0)
        broken = broken or len(rows) > 0
        name = dialect.names[number] or table.column_names[number]
        for row in rows[:_BROKEN_CELLS].tolist():
            lines = breaks[row].as_py() + 1
            if _holds_rows(column[row].as_py(), dialect):
                raise _long(f"column `{name}`, row {row + 1}", lines)
        if len(rows) and (most := compute.max(breaks).as_py()) >= _LONG_CELL:
            row = compute.index(breaks, most).as_py()
            notes.append(
                f"column `{name}`, row {row + 1}: the cell runs over {most + 1} lines; check its quotes"
            )
    if (broken or quotes % 2) and dialect.separator != " ":
        _check_is_closed(file, dialect)
    return tuple(notes)


def _holds_rows(text: str, dialect: Dialect) -> bool:
    """Whether half of a cell's lines after the first look like rows of the table, or parts of rows."""
    lines = re.split(r"\r\n|\r|\n", text)[1:]
    alike = 0
    for line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=dialect.separator), [])]
        if 2 <= len(cells) <= len(dialect.names):
            alike += sum(map(is_value, cells)) >= len(cells) / 2
    return alike > 0 and alike >= len(lines) / 2


def _check_is_closed(file: TableFile, dialect: Dialect) -> None:
    """Raise `DataError` if the text ends inside quotes."""
    above = _lines_before(file, dialect)
    with file.open() as stream:
        skip_bytes(stream, dialect.start)
        with io.TextIOWrapper(stream, dialect.encoding, newline="") as text:
            check_closed(text, above, dialect.separator, dialect.quote)


def _check_is_short(file: TableFile, dialect: Dialect, row: int) -> None:
    """Raise `DataError` if row number `row` runs over many lines."""
    with file.open() as stream:
        skip_bytes(stream, dialect.start)
        with io.TextIOWrapper(stream, dialect.encoding, newline="") as text:
            reader = csv.reader(text, delimiter=dialect.separator, quotechar=dialect.quote)
            before, number = 0, 0
            for cells in reader:
                number += bool(cells)
                if number == row and reader.line_num - before > _LONG_CELL:
                    raise _long(f"row {row}", reader.line_num - before)
                before = reader.line_num


def _long(where: str, lines: int) -> DataError:
    return DataError(
        f"{where}: the cell runs over {lines} lines, as it does where a quote is not closed in its line and "
        "hides the rows below; close it, or take the line breaks out"
    )


def _lines_before(file: TableFile, dialect: Dialect) -> int:
    """The number of lines above the rows."""
    with file.open() as stream:
        above = stream.read(dialect.start).decode(dialect.encoding, errors="replace")
    return len(list(io.StringIO(above, newline="")))
