"""Average ranks over several data sets, and how far apart they have to be to mean something."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AverageRanks:
    """The mean rank of each of m models, `ranks: (m,)`, over several data sets; 1 is the best.

    Two models whose ranks differ by less than `critical_difference` are not told apart (Nemenyi's test, in
    Demsar 2006). `p_value` is that of Friedman's test that all models are alike; None for two.
    """

    ranks: Floats
    critical_difference: float
    p_value: float | None


def average_ranks(losses: Floats, confidence: float) -> AverageRanks:
    """Ranks of `losses: (k, m)`, of m models on k data sets; one that is not finite is the worst of all."""
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    ranks = np.array([rankdata(row) for row in np.where(np.isfinite(losses), losses, np.inf)])
    datasets, models = ranks.shape
    quantile = float(studentized_range.ppf(confidence, models, np.inf)) / 2**0.5
    return AverageRanks(
        ranks=ranks.mean(0),
        critical_difference=quantile * (models * (models + 1) / (6 * datasets)) ** 0.5,
        p_value=float(friedmanchisquare(*ranks.T).pvalue) if models > 2 else None,
    )
