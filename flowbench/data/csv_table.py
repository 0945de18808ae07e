"""Reading tables of text, of which `flowbench.data.dialect` tells the layout."""

import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from flowbench.data.cells import EXACT, Cells, cells_of_arrow
from flowbench.data.column_type import ColumnType
from flowbench.data.dialect import FALLBACK, Dialect, check_closed, find_dialect, find_encoding, split_blanks
from flowbench.data.files import TableFile, table_suffix
from flowbench.data.header import is_value
from flowbench.data.raw_table import RawTable, check_size, numbered
from flowbench.data.reading import ReadOptions
from flowbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.csv import InvalidRow

#: Bytes that tell the layout, at least, and at most where lines are longer.
_HEAD, _LONGEST_HEAD = 2**20, 2**26
_BLOCK = 2**22
#: What the first line of a table that flowbench wrote has, whose dialect is no matter of a user's options.
_OWN = b"log_prob,log_prob_error"
_DIALECT = ("header", "separator", "decimal", "thousands", "encoding")
#: Lines that a cell may run over before it is called strange.
_LONG_CELL = 4


@dataclass(frozen=True)
class _Contents:
    """What a look at all bytes tells: whether there are quotes, and numbers that may be hexadecimal."""

    quotes: int
    hexadecimal: bool


def read_csv(file: TableFile, reading: ReadOptions, wanted: Sequence[str] | None = None) -> RawTable:
    """Read a table of text; columns that are not `wanted` may be passed over.

    The layout is that of `find_dialect`. Text that is neither marked nor UTF-8 is taken for Windows-1252.
    Blank lines are skipped and not counted. Raises `DataError`, `ValueError` or `OSError` for a file that
    cannot be read.
    """
    head, whole = _read_head(file)
    if _OWN in head.partition(b"\n")[0]:
        reading = reading.model_copy(update=dict.fromkeys(_DIALECT))
    usual = "\t" if (table_suffix(file.path) or "").startswith((".tsv", ".tab")) else ","
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
    note = "it is not UTF-8, and read as Windows-1252 (Latin-1); `--encoding` names another"
    return replace(found, notes=(note, *found.notes))


def _read_head(file: TableFile) -> tuple[bytes, bool]:
    """The first bytes, with at least two lines in them, and whether they are all."""
    size = _HEAD
    with file.open() as stream:
        head = stream.read(size)
        while len(head) == size and head.count(b"\n") < 2 and size < _LONGEST_HEAD:
            size *= 2
            head += stream.read(size - len(head))
        return head, not stream.read(1)


def _read(file: TableFile, dialect: Dialect, reading: ReadOptions, wanted: Sequence[str] | None) -> RawTable:
    contents = _look_through(file, dialect)
    names = dialect.names
    included = None
    if wanted is not None and not contents.quotes and set(wanted) <= set(names):
        included = [numbered(len(names))[names.index(name)] for name in dict.fromkeys(wanted)]
    as_text = contents.hexadecimal or dialect.decimal == "," or bool(reading.decimal or reading.thousands)
    table = _to_arrow(file, dialect, reading, as_text=as_text, included=included)
    notes = dialect.notes
    if contents.quotes:
        notes += _check_quotes(file, dialect, table, contents.quotes)
    if dialect.trailing and table.column(len(names) - 1).null_count < table.num_rows:
        row = 1 + int(np.argmax(~table.column(len(names) - 1).is_null().to_numpy()))
        raise DataError(
            f"row {row} has {len(names)} cells where the first line has {len(names) - 1}; give every row "
            "the same number of cells"
        )

    def cells(index: int, expected: ColumnType | None) -> Cells:
        column = table.column(numbered(len(names))[index])
        found = cells_of_arrow(column, reading, decimal=dialect.decimal, expected=expected)
        if (
            str(column.type) == "double"
            and len(found.numbers)
            and np.nanmax(np.abs(found.numbers), initial=0) > EXACT
        ):
            found = replace(found, fault=_merged(file, dialect, reading, index))
        if index in dialect.leading_zeros and found.type.is_integer:
            note = ("numbers begin with zeros, as codes do, and are read without them", "0...")
            found = replace(found, notes=(*found.notes, note))
        return found

    bookkeeping = {}
    if dialect.row_names:
        bookkeeping[0] = ""  # what the dialect's notes say already
    if dialect.trailing:
        bookkeeping[len(names) - 1] = ""
    is_own = set(_OWN.decode().split(",")) <= set(names)
    return RawTable(names, table.num_rows, cells, bookkeeping, notes, has_signs=not is_own)


def _look_through(file: TableFile, dialect: Dialect) -> _Contents:
    """Look at every byte once; raises `DataError` if there are too many."""
    quote = dialect.quote.encode()
    total = quotes = 0
    hexadecimal = dialect.encoding.startswith(("utf-16", "utf-32"))
    if not file.is_packed:
        check_size(file.path.stat().st_size)
    with file.open() as stream:
        last = b""
        while block := stream.read(_BLOCK):
            total += len(block)
            check_size(total)
            quotes += block.count(quote)
            hexadecimal = (
                hexadecimal or b"0x" in block or b"0X" in block or (last == b"0" and block[:1] in b"xX")
            )
            last = block[-1:]
    return _Contents(quotes, hexadecimal)


def _to_arrow(
    file: TableFile,
    dialect: Dialect,
    reading: ReadOptions,
    *,
    as_text: bool = False,
    included: list[str] | None = None,
) -> "pa.Table":
    from pyarrow import csv as arrow_csv

    with suppress(ValueError):
        return _parse(file, dialect, reading, as_text, included, arrow_csv.ReadOptions(), [])
    # With several threads Arrow does not know the number of a faulty row.
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
        if dialect.separator == ",":
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

    conversion = arrow_csv.ConvertOptions(strings_can_be_null=True)
    conversion.null_values = [*conversion.null_values, *(reading.missing_values or ())]
    if as_text:
        conversion.column_types = dict.fromkeys(columns, pa.string())
    if included is not None:
        conversion.include_columns = included
    with file.open() as stream:
        _skip(stream, dialect.start)
        source: BinaryIO = stream
        # Under any name but "utf8" Arrow checks the encoding.
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


def _skip(stream: BinaryIO, n_bytes: int) -> None:
    left = n_bytes
    while left and (block := stream.read(min(left, _BLOCK))):
        left -= len(block)


def _with_tabs(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The text with a tab for each run of blanks between cells, in UTF-8."""
    tabbed = io.BytesIO()
    with io.TextIOWrapper(stream, encoding, newline=None) as text:
        for line in text:
            tabbed.write("\t".join(split_blanks(line)).encode() + b"\n")
    tabbed.seek(0)
    return tabbed


def _check_quotes(file: TableFile, dialect: Dialect, table: "pa.Table", quotes: int) -> tuple[str, ...]:
    """Refuse a quote that is never closed, and one that is closed so late that it took rows with it.

    Returns what to say of a cell that runs over many lines and took none.
    """
    import pyarrow as pa
    from pyarrow import compute

    longest: tuple[int, str, int, str] = (0, "", 0, "")
    for number, name in enumerate(table.column_names):
        column = table.column(name)
        if not pa.types.is_string(column.type):
            continue
        breaks = compute.count_substring_regex(column, "\r\n|\r|\n")
        most = compute.max(breaks).as_py() or 0
        if most > longest[0]:
            row = compute.index(breaks, most).as_py()
            longest = (most, dialect.names[number] or name, row, column[row].as_py())
    if (longest[0] or quotes % 2) and dialect.separator != " ":
        _check_is_closed(file, dialect)
    most, name, row, text = longest
    if most < _LONG_CELL:
        return ()
    if _holds_rows(text, dialect):
        raise _long(f"column `{name}`, row {row + 1}", most + 1)
    return (f"column `{name}`, row {row + 1}: the cell runs over {most + 1} lines; check its quotes",)


def _holds_rows(text: str, dialect: Dialect) -> bool:
    """Whether most lines inside of a cell look like rows of the table."""
    inner = re.split(r"\r\n|\r|\n", text)[1:-1]
    cells = [next(csv.reader([line], delimiter=dialect.separator), []) for line in inner]
    alike = [each for each in cells if len(each) == len(dialect.names) and any(map(is_value, each))]
    return len(alike) > len(inner) / 2


def _check_is_closed(file: TableFile, dialect: Dialect) -> None:
    """Raise `DataError` if the text ends inside quotes."""
    above = _lines_before(file, dialect)
    with file.open() as stream:
        _skip(stream, dialect.start)
        with io.TextIOWrapper(stream, dialect.encoding, newline="") as text:
            check_closed(text, above, dialect.separator, dialect.quote)


def _check_is_short(file: TableFile, dialect: Dialect, row: int) -> None:
    """Raise `DataError` if row number `row` runs over many lines."""
    with file.open() as stream:
        _skip(stream, dialect.start)
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
    """How many lines stand above the rows."""
    with file.open() as stream:
        above = stream.read(dialect.start).decode(dialect.encoding, errors="replace")
    return len(list(io.StringIO(above, newline="")))


def _merged(file: TableFile, dialect: Dialect, reading: ReadOptions, index: int) -> str | None:
    """What is wrong with a column of large numbers, if they have digits that a float64 does not hold."""
    from pyarrow import compute

    name = numbered(len(dialect.names))[index]
    texts = _to_arrow(file, dialect, reading, as_text=True, included=[name]).column(name)
    long = compute.fill_null(compute.match_substring_regex(texts, r"^\s*[+-]?[0-9]{16,}\s*$"), False)
    if not compute.any(long).as_py():
        return None
    digits = texts.filter(long)
    before = compute.count_distinct(digits).as_py()
    after = len(np.unique([float(each) for each in compute.unique(digits).to_pylist()]))
    if all(int(float(each)) == int(each) for each in compute.unique(digits).to_pylist()):
        return None
    merged = f", and {before:,} different values become {after:,}" if after < before else ""
    return (
        f"its whole numbers, such as {digits[0].as_py().strip()}, go beyond 2^53, where the floating-point "
        f"numbers of a model leave gaps{merged}; subtract a constant from them, or leave the column out"
    )
