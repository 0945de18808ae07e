"""Numbers as text, with as many digits as their uncertainty allows."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from flowbench.statistics.paired import Estimate, PairedDifference

DASH = "–"
MINUS = "−"
DEFAULT_DECIMALS = 3
MAX_DECIMALS = 8
#: Numbers from here on are written with a power of ten, to be readable.
TOO_LONG = 1e7
#: A p-value that float64 rounds to 0 is written as being below this.
LEAST_P_VALUE = 1e-300


def decimals_for(uncertainty: float | None) -> int:
    """Decimals that show two significant digits of `uncertainty`."""
    if uncertainty is None or not math.isfinite(uncertainty) or uncertainty <= 0:
        return DEFAULT_DECIMALS
    # From the rounded text, so that 0.0996 counts as 0.10.
    exponent = int(f"{uncertainty:.1e}".partition("e")[2])
    return min(max(1 - exponent, 0), MAX_DECIMALS)


def shared_decimals(uncertainties: Iterable[float | None]) -> int:
    """Decimals for a whole column: two significant digits of the largest uncertainty, one of the smallest."""
    known = [each for each in uncertainties if each is not None and math.isfinite(each) and each > 0]
    if not known:
        return DEFAULT_DECIMALS
    return max(decimals_for(max(known)), decimals_for(min(known)) - 1)


def fixed(value: float | None, decimals: int) -> str:
    """`value` with thousands separators and a true minus sign; a dash where there is no number.

    One of eight digits or more is rounded to two: "1.6e10".
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if abs(value) >= TOO_LONG:
        return _with_power(value, 2)
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def with_error(estimate: Estimate | None, decimals: int | None = None) -> str:
    """ "2.834 ± 0.012": a mean and its standard error, which decides the digits unless `decimals` does."""
    if estimate is None:
        return DASH
    if decimals is None:
        decimals = decimals_for(estimate.standard_error)
    if estimate.standard_error is None:
        return fixed(estimate.mean, decimals)
    return f"{fixed(estimate.mean, decimals)} ± {fixed(estimate.standard_error, decimals)}"


def with_half_width(difference: PairedDifference) -> str:
    """ "0.123 ± 0.022", the size of a difference and half the length of its interval."""
    decimals = decimals_for(difference.half_width)
    return f"{fixed(abs(difference.mean), decimals)} ± {fixed(difference.half_width, decimals)}"


def with_interval(difference: PairedDifference, decimals: int) -> str:
    """ "+0.123 [0.101, 0.145]", a difference and its interval."""
    mean, low, high = (fixed(each, decimals) for each in (difference.mean, difference.low, difference.high))
    sign = "+" if not mean.startswith(MINUS) and mean.strip("0.,") else ""
    return f"{sign}{mean} [{low}, {high}]"


def significant(value: float | None, digits: int = 2) -> str:
    """A positive number to a few significant digits: "0.00012", "3.4e−5"."""
    if value is None or not math.isfinite(value):
        return fixed(value, 0)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if exponent < -4:
        return _with_power(value, digits)
    return fixed(value, max(digits - 1 - exponent, 0))


def probability(p_value: float | None, digits: int = 2) -> str:
    """A p-value, as `significant` writes it; one too small for float64 as "< 1.0e−300"."""
    if p_value is not None and p_value < LEAST_P_VALUE:
        return f"< {significant(LEAST_P_VALUE, digits)}"
    return significant(p_value, digits)


def _with_power(value: float, digits: int) -> str:
    """ "1.6e10", "3.4e−5"."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def seconds(value: float | None) -> str:
    """A time in seconds: with tenths below a hundred, in whole seconds above."""
    if value is not None and 0 < value < 0.1:
        return significant(value, 1)
    return fixed(value, 1 if value is not None and abs(value) < 100 else 0)


def count(value: float | None) -> str:
    """A whole number, with all its digits; a mean of whole numbers keeps one decimal."""
    if value is None or not math.isfinite(value) or value != round(value):
        return fixed(value, 1)
    return f"{value:,.0f}".replace("-", MINUS)


def moment(text: str, unknown: str = DASH) -> str:
    """An ISO time to the minute, in UTC: "2026-05-01 12:30"; `unknown` if `text` is no such time.

    A time without an offset is taken to be in UTC.
    """
    try:
        told = datetime.fromisoformat(text)
        return f"{told.astimezone(UTC) if told.tzinfo else told:%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return unknown


def listed(parts: Iterable[str]) -> str:
    """ "a, b and c": `parts`, at least one, as a list in a sentence."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def plural(number: int, noun: str) -> str:
    """ "1 test row", "1,000 test rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
