"""Statistics of rows that count by weights. Only the ratios of the weights matter."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def effective_size(weights: Floats) -> float:
    """The number of equally weighted rows whose mean is as certain: (sum w)^2 / sum w^2 (Kish 1965).

    It lies between 1 and n for `weights: (n,)`.
    """
    shares = _shares(weights)
    return float(1 / np.square(shares).sum())


def mean_of(values: Floats, weights: Floats | None) -> float:
    """The mean of `values: (n,)` by their `weights: (n,)`, equal ones if None."""
    return float(np.mean(values) if weights is None else _shares(weights) @ values)


def standard_error_of(values: Floats, weights: Floats) -> float:
    """The standard error of the mean of `values: (n,)` by their `weights: (n,)`.

    It is sqrt(sum w^2 (x - mean)^2) / sum w, times sqrt(m / (m - 1)) for an effective size m. So equal
    weights give the standard error of a plain mean. The weights count as part of the draw of a row, and not
    as numbers of rows that were seen.
    """
    shares, size = _shares(weights), effective_size(weights)
    spread = np.square(shares * (values - shares @ values)).sum()
    return float(np.sqrt(spread * size / (size - 1))) if size > 1 else float("nan")


def quantile_of(values: Floats, level: float, weights: Floats) -> float:
    """The least of `values: (n,)` with at least the share `level` of the `weights: (n,)` at or below it."""
    return float(np.quantile(values, level, weights=_shares(weights), method="inverted_cdf"))


def thin(weights: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
    """The indices of rows that are kept, each with a probability in proportion to its weight, in order.

    This is rejection sampling (von Neumann 1951). Kept rows are independent draws from the distribution that
    the weighted rows stand for, and none is kept twice. So tests for independent draws hold for them. The
    rows of the largest weight are always kept.
    """
    return np.flatnonzero(generator.random(len(weights)) < weights / weights.max())


def _shares(weights: Floats) -> Floats:
    """The `weights: (n,)` with the sum 1."""
    # By the largest first, since the sum of large weights overflows.
    relative = np.asarray(weights, dtype=np.float64) / np.max(weights)
    return np.asarray(relative / relative.sum())
