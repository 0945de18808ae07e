"""A straight line through points, with the interval of its slope."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError
from flowbench.statistics.paired import CONFIDENCE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The least-squares line y = `intercept` + `slope` x, with the t interval of the slope.

    `low` and `high` bound it at confidence `CONFIDENCE`; they are infinite for two points.
    """

    slope: float
    intercept: float
    low: float
    high: float

    @property
    def is_level(self) -> bool:
        """Whether the interval of the slope holds zero."""
        return self.low <= 0 <= self.high


def fit_line(x: Floats, y: Floats) -> Line:
    """The line through the points `(x, y)`, both `(n,)`, by ordinary least squares.

    Raises `DataError` for fewer than two different `x`.
    """
    if len(np.unique(x)) < 2:
        raise DataError("a line needs points at two places at least")
    if np.ptp(y) == 0:
        return Line(0.0, float(y[0]), 0.0, 0.0)
    from scipy.stats import linregress
    from scipy.stats import t as student

    found = linregress(x, y)
    slope, degrees = float(found.slope), len(x) - 2
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, degrees) * found.stderr) if degrees else math.inf
    return Line(slope, float(found.intercept), slope - reach, slope + reach)
