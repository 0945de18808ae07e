"""Text that stands for dates and times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowbench.data.column_type import FLOAT64, ColumnType, type_of_times

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S")
_CLOCKS = ("%H:%M:%S", "%H:%M")
#: What a cell of dates or times looks like: digits, and a sign between them.
_LIKELY = r"[0-9][-/.: ][0-9A-Za-z]"


@dataclass(frozen=True, eq=False)
class Dates:
    """What a column of text says: `values: (n,)`, days or seconds as the `type` has them, NaN elsewhere."""

    values: Floats
    type: ColumnType = FLOAT64
    fault: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


def read_dates(known: "pa.ChunkedArray", given: Sequence[str]) -> Dates:
    """Read trimmed text, null where a cell is missing, by one of the formats `given` or of all."""
    from pyarrow import compute

    none = Dates(np.full(len(known), np.nan))
    filled = len(known) - known.null_count
    if not filled:
        return none
    if given:
        parsed = {format: _parsed(known, format).null_count for format in given}
        return _read(known, min(parsed, key=lambda format: parsed[format]))
    if not compute.any(compute.match_substring_regex(known, _LIKELY)).as_py():
        return none
    few = known.drop_null()[:1000]
    fitting = [format for format in _formats() if not _parsed(few, format).null_count]
    fitting = [format for format in fitting if _parsed(known, format).null_count == known.null_count]
    if not fitting:
        return none
    if len(fitting) > 1:
        differing = _read(known, fitting[0]).values, _read(known, fitting[1]).values
        if not np.array_equal(*differing, equal_nan=True):
            example = known.drop_null()[0].as_py()
            return Dates(
                none.values,
                fault=f"dates such as `{example}` could have the day first or the month; say which with "
                f"`--date-format {fitting[0]}` or `--date-format {fitting[1]}`, or leave the column out",
            )
    return _read(known, fitting[0])


def _formats() -> list[str]:
    return [day + time for day in _DAYS for time in _TIMES] + list(_CLOCKS)


def _parsed(known: "pa.ChunkedArray", format: str) -> "pa.ChunkedArray":
    """Timestamps, null where the text is not of this format."""
    from pyarrow import compute

    # Arrow fills what a format lacks with the current date's parts, or refuses it; a date settles both.
    whole, pattern = known, format
    if format in _CLOCKS:
        whole, pattern = compute.binary_join_element_wise("1970-01-01 ", known, ""), f"%Y-%m-%d {format}"
    parsed = compute.strptime(whole, format=pattern, unit="s", error_is_null=True)
    # Two digits are no year: 31.01.20 is not the 20th of January in the year 31.
    return compute.if_else(compute.greater(compute.year(parsed), 999), parsed, None)


def _read(known: "pa.ChunkedArray", format: str) -> Dates:
    import pyarrow as pa

    seconds = np.asarray(_parsed(known, format).cast(pa.int64()).cast(pa.float64()).to_numpy()).astype(float)
    example = known.drop_null()[0].as_py()
    if not any(part in format for part in ("%H", "%I", "%M", "%S", "%T", "%R")):
        days = np.round(seconds / 86400)
        note = ("dates are read as days since 1970-01-01", example)
        return Dates(days, ColumnType("date32[day]", format=format), notes=(note,))
    if format in _CLOCKS:
        note = ("times of day are read as seconds since midnight", example)
        return Dates(seconds, type_of_times("time32[s]", seconds, format), notes=(note,))
    note = ("times are read as seconds since 1970-01-01", example)
    return Dates(seconds, type_of_times("timestamp[us]", seconds, format), notes=(note,))
