"""Is a density right about how often it is right? Quantile transforms of held-out rows, with bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, ks_2samp, kstest, norm

Floats = NDArray[np.float64]

#: Highest-density regions whose coverage is told, by the share of the density that they hold.
LEVELS = (0.5, 0.9, 0.95, 0.99)
#: Digits behind the point, nats, by which two rows are equally likely.
DIGITS = 9


@dataclass(frozen=True)
class Coverage:
    """Of a region that should hold `level` of the rows, the share that it holds, with a 95% interval."""

    level: float
    share: float
    low: float
    high: float


def density_ranks(log_prob: Floats, drawn_log_prob: Floats, generator: np.random.Generator) -> Floats:
    """The share of a model's draws that are likelier than each held-out row, `(n,)`, in [0, 1].

    `log_prob: (n,)` of the rows, `drawn_log_prob: (m,)` of the draws. A row lies in the highest-density
    region that holds a share p of the density exactly if this is at most p (Hyndman 1996), so that it is
    uniform where the model is right. Of draws as likely as the row, as there are where all columns are
    dequantised, some by chance count as likelier. A draw that has no likelihood is the least likely of all.
    """
    drawn_log_prob = _lost_last(drawn_log_prob)
    ascending, values = np.sort(np.round(drawn_log_prob, DIGITS)), np.round(log_prob, DIGITS)
    low, high = (np.searchsorted(ascending, values, side=side) for side in ("left", "right"))
    likelier = len(ascending) - high + generator.integers(0, high - low, endpoint=True)
    # A row without a likelihood lies in no region.
    return np.where(np.isnan(log_prob), 1.0, likelier / len(ascending))


def rank_p_value(log_prob: Floats, drawn_log_prob: Floats) -> float:
    """That the ranks of rows among draws are as far from uniform by chance (Kolmogorov and Smirnov)."""
    return float(ks_2samp(_lost_last(log_prob), _lost_last(drawn_log_prob)).pvalue)


def _lost_last(log_prob: Floats) -> Floats:
    return np.where(np.isnan(log_prob), -np.inf, log_prob)


def coverages(ranks: Floats, draws: int) -> list[Coverage]:
    """How many of the rows with these `ranks: (n,)` among `draws` lie in each highest-density region.

    The intervals are those of Clopper and Pearson (1934), for as many rows as tell as much as these do: where
    a region ends is known from the draws only.
    """
    n, found = effective_rows(len(ranks), draws), []
    for level in LEVELS:
        share = float((ranks <= level).mean())
        inside = share * n
        low = float(beta.ppf(0.025, inside, n - inside + 1)) if share > 0 else 0.0
        high = float(beta.ppf(0.975, inside + 1, n - inside)) if share < 1 else 1.0
        found.append(Coverage(level, share, low, high))
    return found


def column_quantiles(z: Floats) -> Floats:
    """Phi of base points `z: (n, d)`: uniform in each column where the flow is right."""
    return np.asarray(norm.cdf(z))


def radial_quantiles(z: Floats) -> Floats:
    """The chi-squared distribution function of |z|^2 for base points `z: (n, d)`: uniform where right."""
    return np.asarray(chi2.cdf((z**2).sum(1), z.shape[1]))


def uniformity(quantiles: Floats) -> float:
    """The p-value of Kolmogorov and Smirnov of uniform columns in `quantiles: (n, d)`, by Bonferroni."""
    columns = quantiles.reshape(len(quantiles), -1).T
    return min(1.0, len(columns) * min(float(kstest(column, "uniform").pvalue) for column in columns))


def least_uniform(quantiles: Floats) -> Floats:
    """The column `(n,)` of `quantiles: (n, d)` whose distribution is farthest from uniform."""
    off = [float(kstest(column, "uniform").statistic) for column in quantiles.T]
    return quantiles[:, off.index(max(off))]


def effective_rows(n: int, m: int) -> float:
    """As many independent rows as tell as much about a known distribution as `n` against `m` draws of it."""
    return n * m / (n + m)


def simultaneous_band(n: float, columns: int, confidence: float = 0.95) -> float:
    """How far the empirical distribution functions of `n` uniform rows may be off, anywhere, in any column.

    Of Dvoretzky, Kiefer, Wolfowitz and Massart (1990): half the height of the band around the diagonal.
    """
    return float(np.sqrt(np.log(2 * columns / (1 - confidence)) / (2 * n)))
