"""Text that means dates and times."""

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
_FRACTION = ".%f"
_TIMES = ("", " %H:%M", " %H:%M:%S", f" %H:%M:%S{_FRACTION}", "T%H:%M", "T%H:%M:%S", f"T%H:%M:%S{_FRACTION}")
_CLOCKS = ("%H:%M:%S", "%H:%M", f"%H:%M:%S{_FRACTION}")
#: A cell with a date or time has digits, then one of these signs.
_LIKELY = r"[0-9][-/.: ][0-9A-Za-z]"
#: Cells from which the format is found, and the share of a column's cells that must have it.
_TELLING, _MOSTLY = 1000, 0.5


@dataclass(frozen=True, eq=False)
class Dates:
    """A column of text as dates: `values: (n,)` in days or seconds, by the `type`; NaN elsewhere."""

    values: Floats
    type: ColumnType = FLOAT64
    fault: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


def read_dates(known: "pa.ChunkedArray", given: Sequence[str], expected: str | None = None) -> Dates:
    """Read trimmed text, null for a missing cell, by the format that fits most cells.

    The `expected` format of a column whose type is known comes first, then those `given`, each if it fits any
    cell.
    """
    from pyarrow import compute

    none = Dates(np.full(len(known), np.nan))
    filled = len(known) - known.null_count
    if not filled:
        return none
    for formats in ([expected] if expected else [], given):
        fitting = {format: _fits(known, format) for format in formats}
        if fitting and max(fitting.values()):
            return _read(known, max(fitting, key=lambda format: fitting[format]))
    if given and not expected:
        return none
    if not compute.any(compute.match_substring_regex(known, _LIKELY)).as_py():
        return none
    few = known.drop_null()[:_TELLING]
    likely = {format: fit for format in _formats() if (fit := _fits(few, format)) >= _MOSTLY * len(few)}
    found = {format: fit for format in likely if (fit := _fits(known, format)) >= _MOSTLY * filled}
    best = [format for format, fit in found.items() if fit == max(found.values())]
    if not best:
        return none
    if len(best) > 1:
        first, second = (_seconds(known, format) for format in best[:2])
        if not np.array_equal(first, second, equal_nan=True):
            example = known.drop_null()[0].as_py()
            return Dates(
                none.values,
                fault=f"dates such as `{example}` could have the day first or the month; say which with "
                f"`--date-format {best[0]}` or `--date-format {best[1]}`, or leave the column out",
            )
    return _read(known, best[0])


def _formats() -> list[str]:
    return [day + time for day in _DAYS for time in _TIMES] + list(_CLOCKS)


def _fits(known: "pa.ChunkedArray", format: str) -> int:
    """The number of cells that have this format."""
    return int(np.isfinite(_seconds(known, format)).sum())


def _seconds(known: "pa.ChunkedArray", format: str) -> Floats:
    """Seconds since 1970-01-01, or since midnight, `(n,)`; NaN if the text does not have this format."""
    import pyarrow as pa
    from pyarrow import compute

    text, pattern, fraction = known, format, None
    if format.endswith(_FRACTION):
        pattern = format.removesuffix(_FRACTION)
        whole = compute.match_substring_regex(known, r"\.[0-9]{1,9}$")
        fraction = compute.if_else(whole, compute.replace_substring_regex(known, r"^.*\.", "0."), None)
        text = compute.if_else(whole, compute.replace_substring_regex(known, r"\.[0-9]*$", ""), None)
    # Without a date Arrow refuses a format, or takes the current date; so a date is added.
    if format in _CLOCKS:
        text, pattern = compute.binary_join_element_wise("1970-01-01 ", text, ""), f"%Y-%m-%d {pattern}"
    parsed = compute.strptime(text, format=pattern, unit="s", error_is_null=True)
    # A year needs four digits: 31.01.20 is not 20 January of the year 31.
    if "%Y" in pattern:
        parsed = compute.if_else(compute.greater(compute.year(parsed), 999), parsed, None)
    # Arrow reads 31 February as a day of March, and 60 seconds as a minute; writing the result shows that.
    again = compute.strftime(parsed, format=pattern)
    parsed = compute.if_else(compute.equal(_bare(again), _bare(text)), parsed, None)
    seconds = np.array(parsed.cast(pa.int64()).cast(pa.float64()).to_numpy(), dtype=np.float64)
    if fraction is not None:
        seconds = seconds + np.asarray(fraction.cast(pa.float64()).to_numpy(), dtype=np.float64)
    return seconds


def _bare(text: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The text in lower case, its numbers without leading zeros."""
    from pyarrow import compute

    return compute.replace_substring_regex(compute.utf8_lower(text), r"(^|[^0-9])0+([0-9])", r"\1\2")


def _read(known: "pa.ChunkedArray", format: str) -> Dates:
    seconds = _seconds(known, format)
    example = str(known[int(np.argmax(np.isfinite(seconds)))].as_py())
    if not any(part in format for part in ("%H", "%I", "%M", "%S", "%T", "%R")):
        days = np.round(seconds / 86400)
        note = ("dates are read as days since 1970-01-01", example)
        return Dates(days, ColumnType("date32[day]", format=format), notes=(note,))
    if format in _CLOCKS:
        note = ("times of day are read as seconds since midnight", example)
        storage = "time64[us]" if format.endswith(_FRACTION) else "time32[s]"
        return Dates(seconds, type_of_times(storage, seconds, format), notes=(note,))
    note = ("times are read as seconds since 1970-01-01", example)
    return Dates(seconds, type_of_times("timestamp[us]", seconds, format), notes=(note,))
