"""The cells of a column as numbers, from Arrow's types or from text that means numbers, dates or nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.column_type import FLOAT64, ColumnType, type_of_numbers, type_of_times
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.text_dates import Dates, read_dates
from flowbench.data.text_numbers import EXACT, Note, Numbers, describe_merging, read_numbers

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: A column of text is numeric if at least this share of its cells are numbers; the others are mistakes.
_MOSTLY = 0.5
#: Range of years for dates that are written as eight digits.
_YEARS = (1800, 2200)


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a column as `numbers: (n,)`, NaN for a cell that holds no number.

    `missing: (n,)` marks the empty cells; None means that every NaN is one. `text` gives the text of a cell
    that is neither a number nor empty. `fault` says why the column cannot be read as numbers without a guess,
    and `notes` say what was guessed. A column that `is_typed` as text holds no numbers, whatever its text
    looks like. `markers` are the user's markers of missing cells that occur in the column. `source` is the
    column as Arrow has it, if it has been there. `rows: (n,)` are the rows' numbers in the file, from 0, if
    these are some of them.
    """

    numbers: Floats
    missing: Bools | None = None
    text: Callable[[int], str] = field(default=lambda row: "nan")
    type: ColumnType = FLOAT64
    fault: str | None = None
    notes: tuple[Note, ...] = ()
    is_typed: bool = False
    markers: frozenset[str] = frozenset()
    source: "pa.ChunkedArray | None" = None
    rows: NDArray[np.int64] | None = None

    def row(self, place: int) -> int:
        """The number of a cell's row in the file, from 1."""
        return 1 + (place if self.rows is None else int(self.rows[place]))

    @property
    def is_missing(self) -> Bools:
        """Which cells are empty: `(n,)`."""
        return np.isnan(self.numbers) if self.missing is None else self.missing

    @property
    def is_foreign(self) -> Bools:
        """Which cells hold something other than a number: `(n,)`."""
        return np.isnan(self.numbers) & ~self.is_missing


def cells_of_array(
    values: Array,
    unit: str = "",
    reading: ReadOptions = AUTOMATIC,
    *,
    expected: ColumnType | None = None,
) -> Cells:
    """The cells of a numpy array `(n,)` of numbers or other objects; `unit` is that of the CF conventions.

    `expected` is the known type of the column; it decides whether numbers that look like dates are dates.
    """
    if values.dtype.kind in "OSUbMmc":
        import pyarrow as pa

        if values.dtype.kind in "Mm":  # as Python's objects they would lose their unit
            chunked = pa.chunked_array([pa.array(values)])
            return cells_of_arrow(chunked, reading, expected=expected, typed=True)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8", errors="replace")
        if values.dtype.kind == "c":
            values = values.astype(str)
        return cells_of_arrow(
            pa.chunked_array([pa.array(values.tolist())]), reading, expected=expected, typed=True
        )
    if (kind := unit.strip().removesuffix(" 00:00:00").removesuffix(" 00:00")) in _UNITS:
        return _of_counts(values.astype(np.float64), kind)
    cells = _without(_of_numbers(values, values.dtype.name), reading)
    return _dated(cells, expected)


#: Units of the CF conventions that are read as dates and times, and the note about each.
_UNITS = {
    "days since 1970-01-01": "dates are read as days since 1970-01-01",
    "seconds since 1970-01-01": "times are read as seconds since 1970-01-01",
    "seconds since midnight": "times of day are read as seconds since midnight",
}


def _of_counts(numbers: Floats, unit: str) -> Cells:
    """Cells of dates or times that are stored as numbers in a `unit`."""
    known = numbers[np.isfinite(numbers)]
    example = f"{known[0]:g}" if len(known) else ""
    if unit.startswith("days"):
        if np.all(known == np.rint(known)):
            notes = ((_UNITS[unit], example),)
            return Cells(numbers, type=ColumnType("date32[day]", format="%Y-%m-%d"), notes=notes)
        numbers, unit = numbers * 86400, "seconds since 1970-01-01"
    notes = ((_UNITS[unit], example),)
    if unit == "seconds since midnight":
        type_ = type_of_times("time64[us]", numbers, _time_format("", numbers))
    else:
        type_ = type_of_times("timestamp[us]", numbers, _time_format("%Y-%m-%d ", numbers))
    return Cells(numbers, type=type_, notes=notes)


def cells_of_arrow(
    values: "pa.ChunkedArray",
    reading: ReadOptions = AUTOMATIC,
    *,
    decimal: str | None = None,
    expected: ColumnType | None = None,
    typed: bool = False,
) -> Cells:
    """The cells of an Arrow column; `decimal` is the decimal sign found in other columns of the file.

    `expected` is the known type of the column; it decides whether numbers that look like dates are dates. In
    a `typed` file format text is never read as numbers.
    """
    return replace(_of_arrow(values, reading, decimal, expected, typed), source=values)


def _of_arrow(
    values: "pa.ChunkedArray",
    reading: ReadOptions,
    decimal: str | None,
    expected: ColumnType | None,
    typed: bool,
) -> Cells:
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_run_end_encoded(values.type):
        values = pa.chunked_array([compute.run_end_decode(chunk) for chunk in values.chunks])
    kind = values.type
    if expected is not None and expected.levels is not None:
        # Text is a level there, even if it looks like a number.
        typed = True
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values = values.cast(pa.string())
            kind = values.type
    if pa.types.is_integer(kind):
        exact = values.to_numpy() if not values.null_count else values.fill_null(0).to_numpy()
        cells = _without(_of_integers(exact, values, str(kind)), reading)
        return _dated(cells, expected)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = np.asarray(values.cast(pa.float64(), safe=False).to_numpy())
        storage = {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))
        type_ = type_of_numbers(storage, numbers)
        fault = None
        if pa.types.is_decimal(kind):
            type_ = ColumnType(str(kind), decimals=kind.scale)
            finite = numbers[np.isfinite(numbers)]
            # A float64 distinguishes all numbers of up to 15 digits.
            before = compute.count_distinct(values).as_py() if kind.precision > 15 else 0
            if before and (after := len(np.unique(finite))) < before:
                fault = f"its decimals have more digits than a float64: {before:,} values become {after:,}"
        return _without(Cells(numbers, type=type_, fault=fault), reading)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _without_dates(_of_times(values), reading)
    if pa.types.is_null(kind):
        return Cells(np.full(len(values), np.nan))
    if not typed and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return _of_text(values, reading, decimal, expected)
    empty = compute.is_null(values, nan_is_null=True)
    markers = set[str]()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        trimmed = compute.utf8_trim_whitespace(values)
        for text in ("", *(reading.missing_values or ())):
            marked = compute.fill_null(compute.equal(trimmed, text), text == "")
            markers |= {text} if text and compute.any(marked).as_py() else set()
            empty = compute.or_(empty, marked)
    missing = np.asarray(empty.to_numpy())
    nothing = np.full(len(values), np.nan)
    held = frozenset(markers)
    return Cells(nothing, missing, lambda row: str(values[row].as_py()), is_typed=True, markers=held)


def _of_integers(exact: Array, values: "pa.ChunkedArray", storage: str) -> Cells:
    found = _of_numbers(exact, storage)
    if values.null_count:
        missing = np.asarray(values.is_null().to_numpy())
        numbers = np.where(missing, np.nan, found.numbers)
        return replace(found, numbers=numbers)
    return found


def _of_numbers(values: Array, storage: str) -> Cells:
    numbers = values.astype(np.float64)
    if values.dtype.kind in "iu" and len(values):
        largest = max(abs(int(values.max())), abs(int(values.min())))
        with np.errstate(invalid="ignore"):
            inexact = largest > EXACT and bool(np.any(numbers.astype(values.dtype) != values))
        if inexact:
            fault = describe_merging(f"up to {largest}", len(np.unique(values)), len(np.unique(numbers)))
            return Cells(numbers, type=ColumnType(storage), fault=fault)
    return Cells(numbers, type=type_of_numbers(storage, numbers))


def _without(cells: Cells, reading: ReadOptions) -> Cells:
    """`cells` with the user's markers of missing values as missing."""
    storage = cells.type.storage if cells.type.storage in ("float32", "float16") else "float64"
    marked, markers = np.zeros(len(cells.numbers), dtype=bool), set(cells.markers)
    for text in reading.missing_values or ():
        if (value := _number(text)) is None:
            continue
        with np.errstate(over="ignore"):
            holds = cells.numbers == np.float64(np.array(value).astype(storage))
        if holds.any():
            marked |= holds
            markers.add(text)
    if not marked.any():
        return cells
    missing = None if cells.missing is None else cells.missing | marked
    numbers = np.where(marked, np.nan, cells.numbers)
    type_ = type_of_numbers(cells.type.storage, numbers) if cells.type.unit is None else cells.type
    return replace(cells, numbers=numbers, missing=missing, type=type_, markers=frozenset(markers))


def _without_dates(cells: Cells, reading: ReadOptions) -> Cells:
    """`cells` of dates or times with the user's markers of missing values as missing."""
    unit = 86400 if cells.type.storage.startswith("date") else 1
    marked, markers = np.zeros(len(cells.numbers), dtype=bool), set[str]()
    for text in reading.missing_values or ():
        with suppress(ValueError):
            holds = cells.numbers * unit == np.datetime64(text, "s").astype(np.int64)
            marked |= holds
            markers |= {text} if holds.any() else set()
    if not marked.any():
        return cells
    return replace(cells, numbers=np.where(marked, np.nan, cells.numbers), markers=frozenset(markers))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _dated(cells: Cells, expected: ColumnType | None) -> Cells:
    """`cells` as dates if all are whole numbers such as 20200131, unless plain numbers are `expected`.

    If dates are expected, cells that are no such date are not numbers either.
    """
    finite = np.isfinite(cells.numbers)
    known = cells.numbers[finite]
    if expected is not None and expected.format != "%Y%m%d":
        return cells
    dates = _date_of_digits(known)
    good = np.isfinite(dates)
    if (not good.all() and expected is None) or len(known) < (2 if expected is None else 1):
        return cells
    if not good.any():
        return cells
    numbers = cells.numbers.copy()
    numbers[finite] = dates
    missing = cells.is_missing
    what = "numbers are read as dates, days since 1970-01-01, unless `--keep` names the column"
    note = (what, f"{known[good][0]:.0f}")
    type_ = ColumnType("date32[day]", format="%Y%m%d")

    def shown(row: int) -> str:
        return f"{cells.numbers[row]:.0f}" if finite[row] else cells.text(row)

    return Cells(numbers, missing, shown, type_, cells.fault, (*cells.notes, note))


def _date_of_digits(known: Floats) -> Floats:
    """Days since 1970-01-01 of numbers such as 20200131; NaN for any other number."""
    days = np.full(len(known), np.nan)
    low, high = _YEARS[0] * 1e4, _YEARS[1] * 1e4
    likely = (known == np.rint(known)) & (known >= low) & (known <= high)
    likely[likely] &= (known[likely] % 100 >= 1) & (known[likely] % 100 <= 31)
    likely[likely] &= (known[likely] // 100 % 100 >= 1) & (known[likely] // 100 % 100 <= 12)
    digits = known[likely].astype(np.int64)
    first = (digits // 10000 - 1970).astype("datetime64[Y]").astype("datetime64[M]")
    first = first + (digits // 100 % 100 - 1).astype("timedelta64[M]")
    dates = first.astype("datetime64[D]") + (digits % 100 - 1).astype("timedelta64[D]")
    # A day that its month does not have falls into the next month.
    there = dates.astype("datetime64[M]") == first
    days[likely] = np.where(there, dates.astype(np.int64).astype(np.float64), np.nan)
    return days


def _of_times(values: "pa.ChunkedArray") -> Cells:
    """Cells in days or seconds since 1970-01-01 from Arrow's dates, times of day and timestamps."""
    import pyarrow as pa

    kind = values.type
    filled = values.drop_null()
    example = str(filled[0].as_py()) if len(filled) else ""
    if pa.types.is_date(kind):
        notes = (("dates are read as days since 1970-01-01", example),)
        days = values.cast(pa.date32()).cast(pa.int32()).cast(pa.float64()).to_numpy()
        return Cells(np.asarray(days), type=ColumnType("date32[day]", format="%Y-%m-%d"), notes=notes)
    if pa.types.is_time(kind):
        seconds = (
            values.cast(pa.time64("us"), safe=False).cast(pa.int64()).cast(pa.float64()).to_numpy() / 1e6
        )
        notes = (("times of day are read as seconds since midnight", example),)
        type_ = type_of_times(str(kind), seconds, _time_format("", seconds))
        return Cells(seconds, type=type_, notes=notes)
    storage = f"timestamp[us, tz={kind.tz}]" if kind.tz else "timestamp[us]"
    micro = values.cast(pa.timestamp("us", kind.tz), safe=False)
    fault = None
    if kind.unit == "ns" and not micro.cast(kind).equals(values):
        fault = "its times are finer than a microsecond, which is all that is learnt of them; round them"
    exact = micro.cast(pa.int64())
    seconds = exact.to_numpy() / 1e6
    notes = (("times are read as seconds since 1970-01-01", example),)
    type_ = type_of_times(storage, seconds, _time_format("%Y-%m-%d ", seconds))
    return Cells(seconds, type=type_, fault=fault, notes=notes)


def _time_format(date: str, seconds: Floats) -> str:
    known = seconds[np.isfinite(seconds)]
    return f"{date}%H:%M:%S.%f" if np.any(known != np.rint(known)) else f"{date}%H:%M:%S"


def _iso(known: "pa.ChunkedArray") -> "pa.ChunkedArray | None":
    """Timestamps, if all of the text is in the format that Arrow itself reads, with a time; else None."""
    import pyarrow as pa
    from pyarrow import compute

    shape = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
    if len(known) == known.null_count or not compute.all(compute.match_substring_regex(known, shape)).as_py():
        return None
    for zone in (None, "UTC"):
        try:
            return known.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None


def _of_text(
    values: "pa.ChunkedArray", reading: ReadOptions, decimal: str | None, expected: ColumnType | None
) -> Cells:
    """Cells of text that means numbers or dates, whichever most cells are."""
    from pyarrow import compute

    trimmed = compute.utf8_trim_whitespace(values)
    empty = compute.fill_null(compute.equal(trimmed, ""), True)
    markers = set[str]()
    for text in reading.missing_values or ():
        marked = compute.fill_null(compute.equal(trimmed, text), False)
        if compute.any(marked).as_py():
            markers.add(text)
            empty = compute.or_(empty, marked)
    missing = np.asarray(empty.to_numpy())
    known = compute.if_else(empty, None, trimmed)
    numbers: Numbers | Dates = read_numbers(known, reading, decimal)
    dates_wanted = expected is not None and expected.unit is not None and expected.format != "%Y%m%d"
    if dates_wanted or (not numbers.fault and np.isnan(numbers.values[~missing]).any()):
        if (iso := _iso(known)) is not None:
            return replace(_of_times(iso), missing=missing, markers=frozenset(markers))
        dates = read_dates(known, reading.date_format or (), expected.format if expected else None)
        if dates_wanted or dates.fault or np.isfinite(dates.values).sum() > np.isfinite(numbers.values).sum():
            numbers = dates
    found = numbers.values
    # In a column whose type is known, cells that do not fit are mistakes.
    if expected is None and (~np.isnan(found)).sum() < _MOSTLY * (~missing).sum():
        found = np.full(len(found), np.nan)
        numbers = Numbers(found, fault=numbers.fault)

    def shown(row: int) -> str:
        return str(values[row].as_py())

    if isinstance(numbers, Dates):
        type_, held = numbers.type, frozenset(markers)
        return Cells(found, missing, shown, type_, numbers.fault, numbers.notes, markers=held)
    cells = Cells(found, missing, shown, fault=numbers.fault, notes=numbers.notes, markers=frozenset(markers))
    cells = _without(cells, reading)
    storage = "float64"
    whole = np.isfinite(found)
    if numbers.whole and whole.any() and float(np.abs(found[whole]).max()) < EXACT:
        storage = "int64"
    mark = numbers.mark if np.isfinite(found).any() else None
    cells = replace(cells, type=replace(type_of_numbers(storage, cells.numbers), mark=mark))
    return _dated(cells, expected) if storage == "int64" and not mark else cells
