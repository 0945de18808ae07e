"""The statistics of a comparison: means over test rows, and paired differences between models.

All models of a comparison are scored on the same rows, and a row that is hard for one model is hard for
the next. The difference of two models is therefore estimated row by row, which is far sharper than the
difference of two means with separate errors. The spread over seeds is reported separately: it does not
come from the choice of rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError
from flowbench.statistics.weighting import effective_size, mean_of, standard_error_of

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
#: Resamples of a bootstrap, and the fewest rows that are resampled.
RESAMPLES = 2000
LEAST_RESAMPLED = 10
#: Resamples that are held in memory at once.
BATCH = 100


@dataclass(frozen=True)
class Estimate:
    """A mean over `rows` rows; its standard error is None where it cannot be estimated.

    `effective_rows` is the number of equally weighted rows that say as much, if rows have weights.
    """

    mean: float
    standard_error: float | None
    rows: int
    effective_rows: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the mean is a number that can be compared."""
        return math.isfinite(self.mean)


@dataclass(frozen=True)
class PairedDifference:
    """The mean of row-by-row differences, with the t interval at confidence `CONFIDENCE`.

    `bootstrap_low` and `bootstrap_high` bound the bootstrap interval, at the same confidence. `p_value` is
    that of the t test. `p_adjusted` corrects it for the comparison of all pairs of several models (Holm
    1979); all pairs count, since the best model was not known before. `seed_spread` is the standard deviation
    of the difference over the seeds that both models were fitted with; None for fewer than two.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    rows: int
    bootstrap_low: float
    bootstrap_high: float
    p_value: float
    p_adjusted: float
    seed_spread: float | None = None

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    @property
    def is_resolved(self) -> bool:
        """Whether the difference is significant at 1 - `CONFIDENCE`, whatever the number of models.

        The t test and the bootstrap, if there is one, have to agree. A few extreme rows can mislead either.
        """
        return self.p_adjusted < 1 - CONFIDENCE and not self.bootstrap_low <= 0 <= self.bootstrap_high


def estimate_mean(values: Floats, weights: Floats | None = None) -> Estimate:
    """The mean and its standard error of `values: (n,)`, taken as independent draws.

    Each counts by its weight in `weights: (n,)`, if there are any
    (`flowbench.statistics.weighting.standard_error_of`). The standard error is None for fewer than two rows,
    or if a value is not finite. Raises `DataError` for no rows.
    """
    if values.size == 0:
        raise DataError("cannot average over no test rows; score at least one")
    with np.errstate(invalid="ignore"):
        mean = mean_of(values, weights)
    if weights is not None:
        size = effective_size(weights)
        error = standard_error_of(values, weights) if math.isfinite(mean) else math.nan
        return Estimate(mean, error if math.isfinite(error) else None, values.size, size)
    if values.size < 2 or not math.isfinite(mean):
        return Estimate(mean, None, values.size)
    return Estimate(mean, float(np.std(values, ddof=1)) / math.sqrt(values.size), values.size)


def compare_paired(
    first: Floats, second: Floats, *, resample: bool = True, weights: Floats | None = None
) -> PairedDifference | None:
    """The mean of `first - second`, both `(n,)` and row-aligned, with its t and its bootstrap interval.

    It is None for fewer than two rows, or if a value is not finite. `resample` says whether there is a
    bootstrap. With `weights: (n,)`, means are weighted, and the t interval has the degrees of freedom of the
    effective number of rows. Raises `DataError` if the two do not hold the same number of rows.
    """
    if first.shape != second.shape:
        raise DataError(f"cannot pair {first.size} rows with {second.size}; score both on the same rows")
    if first.size < 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    from scipy.stats import t as student

    estimate = estimate_mean(first - second, weights)
    if estimate.standard_error is None:  # one row has all the weight
        return None
    mean, error = estimate.mean, estimate.standard_error
    degrees = (estimate.effective_rows or first.size) - 1
    reach = error * float(student.ppf(0.5 + CONFIDENCE / 2, degrees))
    if error:
        p_value = 2 * float(student.sf(abs(mean) / error, degrees))
    else:
        # A difference that is the same for all rows is certain, unless the rows are few.
        p_value = float(mean == 0 or first.size < LEAST_RESAMPLED)
    low, high = _bootstrap(first - second, weights) if resample else (math.nan, math.nan)
    return PairedDifference(
        mean, error, mean - reach, mean + reach, first.size, low, high, p_value, p_adjusted=p_value
    )


def _bootstrap(differences: Floats, weights: Floats | None) -> tuple[float, float]:
    """The bootstrap-t interval of the mean (Hall 1988).

    Each resample's distance from the mean is divided by the resample's own deviation. Rows are drawn with
    their `weights: (n,)`, if they have any. The ends are NaN for fewer rows than `LEAST_RESAMPLED`, effective
    ones too, or if a resample without variance decides one of them.
    """
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    size = differences.size if weights is None else effective_size(weights)
    if size < LEAST_RESAMPLED:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    relative = None if weights is None else weights / weights.max()
    mean, deviation = map(float, _mean_and_deviation(differences, relative))
    distances = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, BATCH):
        drawn = rng.integers(differences.size, size=(BATCH, differences.size))
        means, spreads = _mean_and_deviation(
            differences[drawn], None if relative is None else relative[drawn]
        )
        spreads[spreads < 1e-9 * deviation] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            distances[start : start + BATCH] = (means - mean) / spreads
    ends = (0.5 + CONFIDENCE / 2, 0.5 - CONFIDENCE / 2)
    # No interpolation: a resample without variance has an infinite distance.
    low, high = np.quantile(distances, ends, method="nearest")
    if not math.isfinite(low - high):
        return math.nan, math.nan
    return float(mean - low * deviation), float(mean - high * deviation)


def _mean_and_deviation(values: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """The mean along the last axis of `values`, and a number in proportion to its standard error."""
    if weights is None:
        return np.asarray(values.mean(-1)), np.asarray(values.std(-1, ddof=1))
    shares = weights / weights.sum(-1, keepdims=True)
    means = (shares * values).sum(-1)
    return means, np.sqrt(np.square(shares * (values - means[..., None])).sum(-1))


def adjust(p_values: Sequence[float]) -> list[float]:
    """The `p_values` in their order, each corrected for the number of tests (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = list(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of repeats; None for fewer than two, or if one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return float(np.std(values, ddof=1))
