"""Average ranks of models over several data sets, and the difference that is significant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AverageRanks:
    """The mean rank of each of m models, `ranks: (m,)`, over several data sets; 1 is the best.

    The difference of two ranks is significant if it is at least `critical_difference` (Nemenyi's test, in
    Demsar 2006). `p_value` is that of Friedman's test that all models are equal; None for two models.
    """

    ranks: Floats
    critical_difference: float
    p_value: float | None


def average_ranks(losses: Floats, confidence: float) -> AverageRanks:
    """The average ranks of m models with `losses: (k, m)` on k data sets.

    A loss that is not finite is worse than any other. `confidence` is that of the critical difference.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    ranks = np.array([rankdata(row) for row in np.where(np.isfinite(losses), losses, np.inf)])
    datasets, models = ranks.shape
    quantile = float(studentized_range.ppf(confidence, models, np.inf)) / 2**0.5
    return AverageRanks(
        ranks=ranks.mean(0),
        critical_difference=quantile * (models * (models + 1) / (6 * datasets)) ** 0.5,
        p_value=float(friedmanchisquare(*ranks.T).pvalue) if models > 2 else None,
    )
