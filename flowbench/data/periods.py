"""Periods of columns such as hours and angles, which begin anew where they end."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Values come close to an end if they come as near to it as this share of the period.
NEAR = 0.05
#: The unit of times of day, as they are read, and how many there are in a day.
TIME_OF_DAY, DAY = "seconds since midnight", 86_400.0

_HOUR = frozenset({"hour", "hours", "hr", "hod"})
_ANGLE = frozenset({"angle", "direction", "bearing", "azimuth", "heading"})


@dataclass(frozen=True)
class Period:
    """One period of a column: its values lie from `low` on and below `high` (data units)."""

    low: float
    high: float

    @property
    def length(self) -> float:
        """The length of the period."""
        return self.high - self.low

    @property
    def in_words(self) -> str:
        """The period as the end of a sentence, such as "from 0 to 24"."""
        return f"from {self.low:.10g} to {self.high:.10g}"


def infer_period(name: str, unit: str | None, values: Floats) -> Period | None:
    """The period of the column `name` if it is plain from its `unit`, or from name and `values: (n,)`.

    Times of day have one. So have whole numbers from 0 to 23 under the name of an hour, and values close to
    both 0 and 360 under the name of an angle.
    """
    if unit == TIME_OF_DAY:
        return Period(0.0, DAY)
    if unit is not None or not len(values):
        return None
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    low, high = float(values.min()), float(values.max())
    if words & _HOUR and (low, high) == (0, 23) and bool((values == np.rint(values)).all()):
        return Period(0.0, 24.0)
    near = NEAR * 360
    if words & _ANGLE and 0 <= low <= near and 360 - near <= high <= 360:
        return Period(0.0, 360.0)
    return None
