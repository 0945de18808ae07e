"""Decides whether the first line of a text table holds names of the columns or is a row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from flowbench.data.raw_table import numbered
from flowbench.data.read_options import ReadOptions
from flowbench.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.' \u00a0\u202f]\d{3})+([.,]\d+)?")
_DECORATED = re.compile(r"\(?[$€£¥]\s*[+-]?[\d.,]+\)?|[+-]?[\d.,]+\s*[%$€£¥]")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")
#: Texts that mean a missing value.
_NOTHING = frozenset(
    {"?", "-", "--", ".", "..", "*", "na", "n/a", "n.a.", "nan", "nil", "null", "none", "missing"}
    | {"#n/a", "#na", "<na>", "unknown", "undefined", "inf"}
)
#: A column is numeric if this share of its cells are numbers.
_MOSTLY = 0.8
_YEARS = range(1700, 2201)
#: Fewest rows from which it can be decided whether a first line of numbers is like the rows below.
_FEWEST = 9


@dataclass(frozen=True)
class Header:
    """The `names` of the columns, one for each cell of a row, and their origin.

    `has_names` says whether the file names the columns, and `in_comment` whether in a comment. With
    `row_names` the first column holds names of the rows. With `trailing` every row ends with a separator.
    """

    names: tuple[str, ...]
    has_names: bool
    in_comment: bool = False
    row_names: bool = False
    trailing: bool = False
    notes: tuple[str, ...] = ()


def is_value(cell: str, *, decimal_comma: bool = True) -> bool:
    """Whether a trimmed cell looks like a number, a date or a time."""
    patterns = (_NUMBER, _DATE, _CLOCK, _DECORATED, _GROUPED, *([_COMMA_NUMBER] if decimal_comma else []))
    return any(pattern.fullmatch(cell) for pattern in patterns)


def is_plain_number(cell: str) -> bool:
    """Whether a trimmed cell is a decimal number with no other sign than a point."""
    return _NUMBER.fullmatch(cell) is not None


def is_date(cell: str) -> bool:
    """Whether a trimmed cell looks like a date."""
    return _DATE.fullmatch(cell) is not None


def read_header(
    records: Sequence[list[str]], comment: list[str] | None, reading: ReadOptions, *, commas: bool = False
) -> Header:
    """The header of a table whose first lines are `records`.

    `comment` holds the cells of a comment right above them, if there is one. `commas` says that commas
    separate the cells; numbers may contain them too.

    Raises `DataError` if the first line has fewer cells than the others for no known reason.
    """
    first, body = [cell.strip() for cell in records[0]], records[1:]
    width = max({len(record) for record in body}, key=[len(record) for record in body].count) if body else 0
    notes: tuple[str, ...] = ()
    if reading.header is not None:
        names = reading.header == "yes"
    else:
        names, notes = _decide(first, body)
    if not names:
        commented = [cell.strip() for cell in comment or ()]
        if reading.header is None and len(commented) == len(first) and _are_names(commented):
            said = f"the comment {_shown(commented)} is taken for the names of the columns"
            return Header(tuple(commented), True, in_comment=True, notes=(said,))
        if commas and len(first) == 2 and all(re.fullmatch(r"[+-]?\d+,\d+", ",".join(r)) for r in records):
            notes += ("where its commas are decimal signs, say `--separator tab --decimal ,`",)
        every = [first, *([cell.strip() for cell in record] for record in body)]
        # An empty column at an edge comes from a separator at an end of each line.
        edges = {i for i in (0, len(first) - 1) if not any(record[i] for record in every if i < len(record))}
        places = ("" if i in edges else name for i, name in enumerate(numbered(len(first))))
        return Header(tuple(places), False, notes=notes)
    if body and len(first) == width - 1:
        if all(not record[-1].strip() for record in body if len(record) == width):
            said = "every row ends with a separator, behind which there is no column"
            return Header((*first, ""), True, trailing=True, notes=(*notes, said))
        whole = [record for record in body if len(record) == width]
        decimals = commas and width == 2 and all(re.fullmatch(r"\d+,\d+", ",".join(each)) for each in whole)
        if decimals or not _names_rows([record[0].strip() for record in whole]):
            raise DataError(
                f"the first line has {len(first)} cells where the others have {width}; give every line the "
                "same number of cells. Where commas stand inside numbers, say so with `--decimal ,` or "
                "`--thousands ,`, and name the separator of cells with `--separator`"
            )
        said = "the first cell of each row has no name above it, as names of rows have none: it is left out"
        return Header(("", *first), True, row_names=True, notes=(*notes, said))
    if body and len(first) == width + 1 and not first[-1]:
        return Header(tuple(first[:-1]), True, notes=(*notes, "the line of names ends with a separator"))
    return Header(tuple(first), True, notes=notes)


def _decide(first: list[str], body: Sequence[list[str]]) -> tuple[bool, tuple[str, ...]]:
    """Whether the first line holds names, and the notes about it."""
    columns = [[record[i].strip() for record in body if i < len(record)] for i in range(len(first))]
    if len(body) and len(body[0]) == len(first) + 1:  # the first column holds names of the rows
        columns = [
            [record[i + 1].strip() for record in body if i + 1 < len(record)] for i in range(len(first))
        ]
    numeric = [_is_numeric(column) for column in columns]
    # A date above a column of numbers is not one of its values.
    values = [
        is_value(cell) and not (is_date(cell) and not any(map(is_date, column)))
        for cell, column in zip(first, columns, strict=True)
    ]
    texts = [bool(cell) and not value for cell, value in zip(first, values, strict=True)]
    if not any(texts):
        return _decide_numbers(first, columns, numeric)
    above = any(
        text and kind and cell.lower() not in _NOTHING
        for text, kind, cell in zip(texts, numeric, first, strict=True)
    )
    beside = any(value and kind for value, kind in zip(values, numeric, strict=True))
    if above and beside:
        numbers = [cell for cell, value in zip(first, values, strict=True) if value]
        note = (
            f"the first line is taken for names, though some are numbers: {_shown(numbers)}; `--header no` "
            "takes it for a row"
        )
        return True, (note,)
    if beside:
        return False, (_as_row(first, "it has numbers where the lines below have numbers"),)
    alike = any(cell in column for cell, column in zip(first, columns, strict=True) if cell)
    if alike and not above:
        note = (
            f"the first line, {_shown(first)}, is taken for names, though the lines below have such cells too"
        )
        return True, (f"{note}; `--header no` takes it for a row",)
    return True, ()


def _decide_numbers(
    first: list[str], columns: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> tuple[bool, tuple[str, ...]]:
    """`_decide` for a first line of numbers, with or without empty cells."""
    known = [cell for cell in first if cell]
    if not known or not columns[0]:
        return False, (_as_row(first, "it holds no names"),)
    if first == ["", *map(str, range(len(first) - 1))]:
        return True, ()  # pandas writes this for an index and columns without names
    # With fewer rows the line cannot be compared to those below.
    doubted = len(columns[0]) >= _FEWEST and _is_sequence(known)
    unlike = [
        kind and cell.isdigit() and not _are_whole(column)
        for cell, column, kind in zip(first, columns, numeric, strict=True)
        if cell
    ]
    counting = [[str(i + start) for i in range(len(known))] for start in (0, 1)]
    if (len(known) > 2 and doubted and known in counting) or (doubted and sum(unlike) >= len(known) / 2):
        note = f"the first line, {_shown(first)}, is taken for names: numbers in sequence"
        return True, (f"{note}; `--header no` takes it for a row",)
    if doubted or all(unlike):
        why = "it could be names, and is numbers like those below" if doubted else "it is numbers"
        return False, (_as_row(first, why),)
    return False, (_as_row(first, "it is numbers like those below"),)


def _as_row(first: Sequence[str], why: str) -> str:
    end = numbered(len(first))[-1]
    called = "the column is called c1" if end == "c1" else f"the columns are called c1 to {end}"
    return f"the first line is taken for a row: {why}; {called}; `--header yes` takes it for names"


def _is_sequence(cells: Sequence[str]) -> bool:
    """Whether the numbers rise in equal steps, or are years in order."""
    numbers = [float(cell) if _NUMBER.fullmatch(cell) else float("nan") for cell in cells]
    steps = [after - before for before, after in pairwise(numbers)]
    years = all(number in _YEARS for number in numbers) and all(step > 0 for step in steps)
    even = len(numbers) > 2 and all(abs(step - steps[0]) <= 1e-9 * abs(steps[0]) for step in steps)
    counting = all(step == 1 for step in steps) and numbers[0] in (0, 1)
    return counting or (even and steps[0] > 0) or (years and len(numbers) > 1)


def _is_numeric(cells: Sequence[str]) -> bool:
    known = [cell for cell in cells if cell and cell.lower() not in _NOTHING]
    return bool(known) and sum(map(is_value, known)) >= _MOSTLY * len(known)


def _are_whole(cells: Sequence[str]) -> bool:
    known = [cell for cell in cells if cell and cell.lower() not in _NOTHING]
    return sum(bool(re.fullmatch(r"[+-]?\d+", cell)) for cell in known) > len(known) / 2


def _are_names(cells: Sequence[str]) -> bool:
    """Whether the cells of a comment can be names: all are text, and a single one is one word."""
    if not all(cells) or any(map(is_value, cells)):
        return False
    return len(cells) > 1 or " " not in cells[0]


def _names_rows(cells: Sequence[str]) -> bool:
    """Whether cells are names of rows: consecutive numbers, or texts that all differ."""
    if all(re.fullmatch(r"\d+", cell) for cell in cells):
        numbers = [int(cell) for cell in cells]
        return all(after == before + 1 for before, after in pairwise(numbers))
    return len(set(cells)) == len(cells) and not any(map(is_value, cells))


def _shown(cells: Sequence[str]) -> str:
    text = ", ".join(" ".join(cell.split()) or "(empty)" for cell in cells[:5])
    return f"`{text[:60]}`" + ("..." if len(cells) > 5 or len(text) > 60 else "")
