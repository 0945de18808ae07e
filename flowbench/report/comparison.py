"""The statistics of a comparison: means over test rows, and paired differences between models.

All models of a comparison are scored on the same rows, and a row that is hard for one model is hard for
the next. The difference of two models is therefore estimated row by row, which is far sharper than the
difference of two means with separate errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `rows` rows; its standard error is None where it cannot be estimated."""

    mean: float
    standard_error: float | None
    rows: int

    @property
    def is_finite(self) -> bool:
        """Whether the mean is a number that can be compared."""
        return math.isfinite(self.mean)


@dataclass(frozen=True)
class PairedDifference:
    """The mean of row-by-row differences, with the t interval at confidence `CONFIDENCE`."""

    mean: float
    standard_error: float
    low: float
    high: float
    rows: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    @property
    def is_resolved(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def estimate_mean(values: Floats) -> Estimate:
    """Mean and standard error of `values: (n,)`, taken as independent draws.

    With fewer than two rows, or where a value is not finite, the standard error is None. Raises
    `DataError` for no rows at all.
    """
    if values.size == 0:
        raise DataError("cannot average over no test rows; score at least one")
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(values))
    if values.size < 2 or not math.isfinite(mean):
        return Estimate(mean, None, values.size)
    return Estimate(mean, float(np.std(values, ddof=1)) / math.sqrt(values.size), values.size)


def compare_paired(first: Floats, second: Floats) -> PairedDifference | None:
    """The mean of `first - second`, both `(n,)` and row-aligned, with its t interval.

    None where it is not defined: fewer than two rows, or a value that is not finite. Raises `DataError`
    if the two do not hold the same number of rows.
    """
    if first.shape != second.shape:
        raise DataError(f"cannot pair {first.size} rows with {second.size}; score both on the same rows")
    if first.size < 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    from scipy.stats import t as student

    estimate = estimate_mean(first - second)
    error = estimate.standard_error or 0.0
    reach = error * float(student.ppf(0.5 + CONFIDENCE / 2, first.size - 1))
    return PairedDifference(estimate.mean, error, estimate.mean - reach, estimate.mean + reach, first.size)


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a few repeats; None for fewer than two, or where one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return float(np.std(values, ddof=1))
