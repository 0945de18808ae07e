"""Finds the layout of a text table: encoding, separator, lines above the rows, names of the columns.

The layout is found from the start of the file, and Arrow then reads the rows. Why it is not found by a
library: benchmarks/DEFAULTS.md#layout-of-text-files.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flowbench.data.header import Header, is_value, read_header
from flowbench.data.read_options import ReadOptions
from flowbench.data.text_numbers import decimal_sign
from flowbench.errors import DataError

#: Separators in order of preference; a blank stands for any run of blanks.
_SEPARATORS = (",", "\t", ";", "|", " ")
_NAMED = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks"}
#: Comment lines begin with one of these.
COMMENTS = ("#", "%", "//")
#: The layout is found from `_RECORDS` records, or from fewer, but at least `_FEW`, once they have `_CELLS`
#: cells.
_RECORDS, _FEW, _CELLS = 300, 20, 30_000
#: Byte order marks and their encodings. Those of UTF-32 stand before that of UTF-16, which is their
#: beginning.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: The encoding for text that is not UTF-8: Windows-1252, which contains the printable part of Latin-1.
FALLBACK = "cp1252"


@dataclass(frozen=True)
class Dialect:
    """The layout of a text table, as `find_dialect` finds it.

    The first row begins after `start` bytes. `names` has an entry for each cell of a row; it is empty for a
    column without a name. With `row_names` the first column holds names of the rows. With `trailing` every
    row ends with a separator, after which there is an empty last column. `decimal` is the decimal sign that
    the rows show, or None. `leading_zeros` are the columns with numbers that begin with a zero.
    """

    encoding: str
    start: int
    separator: str
    quote: str
    names: tuple[str, ...]
    row_names: bool = False
    trailing: bool = False
    decimal: str | None = None
    leading_zeros: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Record:
    """A record: the first line, the offset in characters, and the cells.

    It is one line, or several where a quoted cell has line breaks.
    """

    line: int
    start: int
    cells: tuple[str, ...]


def find_encoding(head: bytes, given: str | None) -> tuple[str, int]:
    """The encoding of a text that begins with `head`, and the length of its byte order mark.

    Raises `DataError` if it is not text.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if given is not None:
        return codecs.lookup(given).name, 0
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.3 * len(head) / 2 and even < 0.05 * len(head):
        return "utf-16-le", 0
    if even > 0.3 * len(head) / 2 and odd < 0.05 * len(head):
        return "utf-16-be", 0
    if even or odd:
        raise DataError("it is not a text file, whatever its suffix says")
    return "utf-8", 0


def find_dialect(
    head: bytes, whole: bool, encoding: str, mark: int, reading: ReadOptions, usual: str = ","
) -> Dialect:
    """The layout of a text that begins with `head`, which is all of it if `whole`.

    `mark` is the length of the byte order mark. `usual` is the separator that needs no note.

    Raises `UnicodeDecodeError` if the text is not in this encoding. Raises `DataError` if it holds no rows or
    its layout cannot be found.
    """
    text = codecs.getincrementaldecoder(encoding)().decode(head[mark:], final=whole)
    lines = list(io.StringIO(text, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()  # cut by the end of the head
    notes: list[str] = []
    first, given, comments = _above(lines)
    if first == len(lines):
        raise DataError(
            "it holds nothing but blank lines" if not comments else "it holds nothing but comments"
        )
    quote = _quote(lines[first:])
    # A cell can only be too long because a quote is not closed. That error is raised elsewhere, so the limit
    # on lengths is lifted.
    csv.field_size_limit(2**31 - 1)
    separator = reading.separator or given or _find_separator(lines[first:], quote)
    records = list(_records(lines, first, separator, quote))
    if whole and len(records) < _FEW and separator != " ":
        check_closed(lines[first:], first, separator, quote)
    records, titles = _without_titles(records)
    if titles:
        shown = " ".join(",".join(titles[0].cells).split())[:40]
        notes.append(
            f"{_counted(len(titles), 'line')} above the table, `{shown}`, {_is_are(titles)} passed over: "
            "unlike the lines below"
        )
    commented = _commented(comments, separator, quote)
    cells_of = [list(record.cells) for record in records]
    header = read_header(cells_of, commented, reading, commas=separator == ",")
    if passed := len(comments) - header.in_comment:
        above = _counted(passed, "comment line")
        notes.insert(0, f"{above} above the table {'is' if passed == 1 else 'are'} passed over")
    if header.has_names and len(records) == 1 and whole and not header.in_comment:
        raise DataError("it holds a line of names but no rows")
    rows = records[1:] if header.has_names and not header.in_comment else records
    _check_one_number_a_line(header, rows, separator, reading)
    place = rows[0].start if rows else sum(map(len, lines))
    start = mark + len(text[:place].encode(encoding))
    if separator != usual:
        notes.insert(0, f"cells are separated by {_NAMED.get(separator, repr(separator))}")
    if quote == "'":
        notes.append("cells stand in single quotes")
    body = [list(record.cells) for record in rows]
    cells = [cell.strip() for record in body for cell in record]
    decimal = reading.decimal or decimal_sign(cells)
    return Dialect(
        encoding=encoding,
        start=start,
        separator=separator,
        quote=quote,
        names=header.names,
        row_names=header.row_names,
        trailing=header.trailing,
        decimal=decimal,
        leading_zeros=_leading_zeros(body, len(header.names)),
        notes=(*notes, *header.notes),
    )


def check_closed(lines: Iterable[str], above: int, separator: str, quote: str) -> None:
    """Raise `DataError` if the text of `lines`, with `above` lines before it, ends inside quotes."""
    reader = csv.reader(iter(lines), delimiter=separator, quotechar=quote, strict=True)
    line = 0
    try:
        for _ in reader:
            line = reader.line_num
    except csv.Error as error:
        if "unexpected end of data" in str(error) or "field larger" in str(error):
            raise DataError(
                f"a quote that opens in line {above + line + 1} is never closed, and hides what is below it; "
                "close it there"
            ) from None


def split_blanks(line: str) -> list[str]:
    """The cells of a line whose separator is any run of blanks."""
    if '"' not in line:
        return line.split()
    return next(csv.reader([line.strip()], delimiter=" ", skipinitialspace=True), [])


def _above(lines: Sequence[str]) -> tuple[int, str | None, list[str]]:
    """The number of the table's first line, the separator of a line such as `sep=;`, and the comments."""
    given: str | None = None
    comments: list[str] = []
    for number, line in enumerate(lines):
        text = line.strip()
        if not text:
            continue
        if given is None and not comments and (match := re.fullmatch(r'"?sep=(.)"?', line.strip("\r\n"))):
            given = match[1]
        elif text.startswith(COMMENTS):
            comments.append(text)
        else:
            return number, given, comments
    return len(lines), given, comments


def _quote(lines: Sequence[str]) -> str:
    """The quote character of cells: a single quote only if most lines have pairs of them."""
    some = [line for line in lines[:50] if line.strip()]
    single = sum(line.strip().startswith("'") and line.count("'") % 2 == 0 for line in some)
    return "'" if single > len(some) / 2 else '"'


def _records(lines: Sequence[str], first: int, separator: str, quote: str) -> Iterator[_Record]:
    """The first records from line `first` on; blank lines are not records."""
    offset = sum(map(len, lines[:first]))
    if separator == " ":
        for number, line in enumerate(lines[first : first + _RECORDS], start=first):
            if line.strip():
                yield _Record(number, offset, tuple(split_blanks(line)))
            offset += len(line)
        return
    reader = csv.reader(iter(lines[first:]), delimiter=separator, quotechar=quote)
    found = passed = told = 0
    while found < _FEW or (found < _RECORDS and told < _CELLS):
        try:
            cells = next(reader, None)
        except csv.Error:  # an unclosed quote: reading the table reports it
            return
        if cells is None:
            return
        these = lines[first + passed : first + reader.line_num]
        if any(each.strip() for each in these):
            yield _Record(first + passed, offset, tuple(cells))
            found, told = found + 1, told + len(cells)
        offset += sum(map(len, these))
        passed = reader.line_num


def _find_separator(lines: Sequence[str], quote: str) -> str:
    """The separator that splits lines into equally many cells that look like values; else a comma."""
    best, chosen = 0.0, ","
    for separator in _SEPARATORS:
        records = list(_records(lines, 0, separator, quote))
        counts = Counter(len(record.cells) for record in records)
        # Lines that are one value each, such as a date and a time, are not split at blanks.
        if separator == " " and _are_values(lines):
            continue
        # Of two counts that are equally common the larger is that of the rows; a line of names may be one
        # cell shorter.
        width, common = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        if width < 2 or common <= len(records) / 2:
            continue
        regular = [record for record in records if len(record.cells) == width]
        score = common / len(records) * _cleanliness(regular, separator)
        if score > best + 1e-9:
            best, chosen = score, separator
    return chosen


def _are_values(lines: Sequence[str]) -> bool:
    """Whether most lines after the first are one value each."""
    some = [line.strip() for line in lines[1:_RECORDS] if line.strip()]
    return bool(some) and sum(map(is_value, some)) > len(some) / 2


def _cleanliness(records: Sequence[_Record], separator: str) -> float:
    """How much the cells look like those of a table, from 0 to 1."""
    cells = [cell.strip() for record in records for cell in record.cells]
    others = [other for other in _SEPARATORS if other not in (separator, " ")]

    def clean(cell: str) -> float:
        if not cell or is_value(cell, decimal_comma=separator != ","):
            return 1.0
        return 0.1 if any(other in cell for other in others) else 0.6

    return sum(map(clean, cells)) / len(cells)


def _without_titles(records: list[_Record]) -> tuple[list[_Record], list[_Record]]:
    """The records from the first one of the table on, and the records above it."""
    counts = Counter(len(record.cells) for record in records)
    width = max(counts.items(), key=lambda item: (item[1], item[0]))[0]
    first = 0
    # A line that is one cell short may hold the names of all columns but that of row names; a row with a
    # value is not a title.
    while first < len(records) - 1 and len(records[first].cells) < width and not _has_value(records[first]):
        if len(records[first].cells) == width - 1 and len(records[first + 1].cells) == width:
            filled = [cell for cell in records[first].cells if cell.strip()]
            if len(filled) == width - 1 and _has_value(records[first + 1]):
                break
        first += 1
    return records[first:], records[:first]


def _has_value(record: _Record) -> bool:
    return any(is_value(cell.strip()) for cell in record.cells)


def _commented(comments: Sequence[str], separator: str, quote: str) -> list[str] | None:
    """The cells of the last comment, which may hold the names of the columns."""
    if not comments:
        return None
    text = comments[-1].lstrip("#%/ \t")
    if separator == " ":
        return split_blanks(text)
    return next(csv.reader([text], delimiter=separator, quotechar=quote), None)


def _check_one_number_a_line(
    header: Header, rows: Sequence[_Record], separator: str, reading: ReadOptions
) -> None:
    """Raise `DataError` for two columns without names that may be one column of numbers with a comma."""
    if separator != "," or reading.separator or header.has_names or len(header.names) != 2:
        return
    second = [record.cells[1].strip() for record in rows if len(record.cells) == 2]
    first = [record.cells[0].strip() for record in rows if len(record.cells) == 2]
    if not second or not all(re.fullmatch(r"[+-]?\d{1,3}", cell) for cell in first):
        return
    grouped = all(re.fullmatch(r"\d{3}", cell) for cell in second)
    padded = all(cell.isdigit() for cell in second) and any(re.match(r"0\d", cell) for cell in second)
    if grouped or padded:
        example = ",".join(rows[0].cells)
        raise DataError(
            f"`{example}` could be two cells, or one number with decimals or thousands; say which with "
            "`--separator ,`, `--separator tab --decimal ,` or `--separator tab --thousands ,`"
        )


def _leading_zeros(body: Sequence[Sequence[str]], width: int) -> tuple[int, ...]:
    """The columns with whole numbers that begin with a zero, as codes do."""
    return tuple(
        index
        for index in range(width)
        if any(re.fullmatch(r"0\d+", record[index].strip()) for record in body if index < len(record))
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _is_are(each: Sequence[object]) -> str:
    return "is" if len(each) == 1 else "are"
