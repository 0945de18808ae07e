"""Values so far from the others of their column that they may mean "missing"."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Common markers of missing values, whatever their sign; numbers of nines alone are found by rule.
_KNOWN = (
    1e20, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e99, 1e100, 9.969209968386869e36, 999.25,
    99.99, 999.9, 999.99, 9999.9, 9999.99, 8888.0, 32767.0, 32768.0, 65535.0, 2147483647.0, 2147483648.0,
    4294967295.0, 1.7976931348623157e308, 3.4028234663852886e38, 888.0, 7777.0,
)  # fmt: skip
#: How far from the others a value must be, in units of their range: a known marker, and any other value.
_KNOWN_APART, _APART = 1.0, 1000.0
#: Values that are checked first, before all are.
_SOME = 5000
#: The least number of distinct other values.
_FEWEST_OTHERS = 5


@dataclass(frozen=True)
class Marker:
    """A `value` that may mean "missing".

    `row` is the first row that has it, from 1, and `count` the number of rows. `low` and `high` are the range
    of the other values.
    """

    value: float
    row: int
    count: int
    low: float
    high: float


def find_markers(values: Floats) -> list[Marker]:
    """The values far from all other finite `values: (n,)`, the farthest first.

    A known marker of missing values, or a number of nines, counts if its distance from the others exceeds
    their range. Any other value has to be a thousand times as far. If all values are positive it also has to
    be far on a logarithmic scale, since such columns often have long tails.
    """
    # In most columns no value is far from the others. A sample with both extremes shows that without sorting
    # all values.
    some = np.append(values[:: len(values) // _SOME + 1], [values.min(), values.max()])
    few = np.unique(some)
    if len(few) > _FEWEST_OTHERS + 1 and not (
        _stands_apart(few[-1], few[:-1]) or _stands_apart(few[0], few[1:])
    ):
        return []
    distinct = np.unique(values)
    found: list[Marker] = []
    low, high = 0, len(distinct) - 1
    # Both ends are checked in turn, since one marker can hide another: -9999 beside 1e20.
    while high - low >= _FEWEST_OTHERS:
        with np.errstate(over="ignore"):
            below, above = distinct[low + 1] - distinct[low], distinct[high] - distinct[high - 1]
        if above >= below and _stands_apart(distinct[high], distinct[low:high]):
            end, high = high, high - 1
        elif _stands_apart(distinct[low], distinct[low + 1 : high + 1]):
            end, low = low, low + 1
        elif above < below and _stands_apart(distinct[high], distinct[low:high]):
            end, high = high, high - 1
        else:
            break
        place = values == distinct[end]
        found.append(Marker(float(distinct[end]), int(np.argmax(place)) + 1, int(place.sum()), 0.0, 0.0))
    rest = (float(distinct[low]), float(distinct[high])) if len(distinct) else (0.0, 0.0)
    return [Marker(each.value, each.row, each.count, *rest) for each in found]


def _stands_apart(value: float, others: Floats) -> bool:
    """Whether `value` is far from the ascending `others: (m,)`, which all lie on one side of it."""
    low, high = float(others[0]), float(others[-1])
    with np.errstate(over="ignore"):
        gap = min(abs(value - low), abs(value - high))
        span = high - low
    if _is_known(value):
        return gap > _KNOWN_APART * span
    if not gap > _APART * span:
        return False
    if low > 0 and value > 0:
        gap = abs(np.log(value) - np.log(high if value > high else low))
        return bool(gap > np.log(high) - np.log(low))
    return True


def _is_known(value: float) -> bool:
    size = abs(value)
    # A single 9 may be a count or a code.
    nines = (
        (size >= 99 or value == -9) and size == np.rint(size) and size < 1e15 and set(f"{size:.0f}") == {"9"}
    )
    return bool(nines) or bool(np.isclose(_KNOWN, size, rtol=1e-6, atol=0).any())
