"""Calibration of a density: quantile transforms of held-out rows, with confidence bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, ks_2samp, kstest, norm

Floats = NDArray[np.float64]

#: Shares of the density that the highest-density regions hold whose coverage is reported.
LEVELS = (0.5, 0.9, 0.95, 0.99)
#: Two rows are equally likely if their log-densities, nats, agree to this many decimal places.
DIGITS = 9


@dataclass(frozen=True)
class Coverage:
    """The share of the rows in a region that should hold the share `level`, with its 95% interval."""

    level: float
    share: float
    low: float
    high: float


def density_ranks(log_prob: Floats, drawn_log_prob: Floats, generator: np.random.Generator) -> Floats:
    """The share of a model's draws that are likelier than each held-out row, `(n,)`, in [0, 1].

    `log_prob: (n,)` are the log-densities of the rows and `drawn_log_prob: (m,)` those of the draws, nats. A
    row lies in the highest-density region that holds a share p of the density exactly if its rank is at most
    p (Hyndman 1996). The ranks are therefore uniform if the model is right.

    If all columns are dequantised, draws can be exactly as likely as a row. A random number of these count as
    likelier. A draw without a likelihood (NaN) is less likely than any row. A row without one has rank 1.
    """
    drawn_log_prob = _lost_last(drawn_log_prob)
    ascending, values = np.sort(np.round(drawn_log_prob, DIGITS)), np.round(log_prob, DIGITS)
    low, high = (np.searchsorted(ascending, values, side=side) for side in ("left", "right"))
    likelier = len(ascending) - high + generator.integers(0, high - low, endpoint=True)
    # A row without a likelihood lies in no region but the whole space.
    return np.where(np.isnan(log_prob), 1.0, likelier / len(ascending))


def rank_p_value(log_prob: Floats, drawn_log_prob: Floats) -> float:
    """The p-value of Kolmogorov and Smirnov's test that rows and draws have the same log-densities.

    `log_prob: (n,)` and `drawn_log_prob: (m,)` are as in `density_ranks`.
    """
    return float(ks_2samp(_lost_last(log_prob), _lost_last(drawn_log_prob)).pvalue)


def _lost_last(log_prob: Floats) -> Floats:
    """Log-densities with -inf in the place of NaN, so that a failed one is the least likely."""
    return np.where(np.isnan(log_prob), -np.inf, log_prob)


def coverages(ranks: Floats, draws: int | None = None) -> list[Coverage]:
    """The share of rows with these `ranks: (n,)` that lies in each highest-density region.

    The intervals are those of Clopper and Pearson (1934). Where all rows are ranked among the same `draws`,
    they are for `effective_rows` rows, since the edge of a region is itself estimated from the draws.
    """
    n, found = len(ranks) if draws is None else effective_rows(len(ranks), draws), []
    for level in LEVELS:
        share = float((ranks <= level).mean())
        inside = share * n
        low = float(beta.ppf(0.025, inside, n - inside + 1)) if share > 0 else 0.0
        high = float(beta.ppf(0.975, inside + 1, n - inside)) if share < 1 else 1.0
        found.append(Coverage(level, share, low, high))
    return found


def column_quantiles(z: Floats) -> Floats:
    """The normal distribution function of base points `z: (n, d)`, `(n, d)`.

    Each column is uniform if the flow is right.
    """
    return np.asarray(norm.cdf(z))


def radial_quantiles(z: Floats) -> Floats:
    """The chi-squared distribution function of |z|^2 for base points `z: (n, d)`, `(n,)`.

    It is uniform if the flow is right.
    """
    return np.asarray(chi2.cdf((z**2).sum(1), z.shape[1]))


def uniformity(quantiles: Floats) -> float:
    """The p-value of the hypothesis that every column of `quantiles: (n, d)` is uniform.

    It is Kolmogorov and Smirnov's of the worst column, times the number of columns (Bonferroni).
    """
    columns = quantiles.reshape(len(quantiles), -1).T
    return min(1.0, len(columns) * min(float(kstest(column, "uniform").pvalue) for column in columns))


def least_uniform(quantiles: Floats) -> Floats:
    """The column `(n,)` of `quantiles: (n, d)` whose distribution is farthest from uniform."""
    off = [float(kstest(column, "uniform").statistic) for column in quantiles.T]
    return quantiles[:, off.index(max(off))]


def effective_rows(n: int, m: int) -> float:
    """The number of rows that say as much about a known distribution as `n` rows beside `m` draws of it.

    The variances of two samples add up, as 1/n + 1/m.
    """
    return n * m / (n + m)


def simultaneous_band(n: float, columns: int, confidence: float = 0.95) -> float:
    """Half the height of a band that holds the empirical distribution functions of `n` uniform rows.

    It holds all `columns` of them, everywhere, with probability `confidence`, by the inequality of
    Dvoretzky, Kiefer and Wolfowitz with the constant of Massart (1990).
    """
    return float(np.sqrt(np.log(2 * columns / (1 - confidence)) / (2 * n)))
