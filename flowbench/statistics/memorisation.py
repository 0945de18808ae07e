"""A test for draws that repeat train rows, by the distances to the nearest train rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest train row: of draws, `drawn: (m,)`, and of held-out rows, `held_out: (n,)`.

    `closer` is the probability that a draw is closer to its nearest train row than a held-out row is to its
    own; ties count half. It is 1/2 for a model that is right and larger for one that repeats train rows.
    `p_value` is that of the hypothesis that draws are no closer (Mann and Whitney 1947; Meehan et al. 2020).
    """

    drawn: Floats
    held_out: Floats
    closer: float
    p_value: float


def memorisation(drawn: Floats, held_out: Floats, train: Floats) -> Memorisation:
    """Compare draws `(m, d)` with held-out rows `(n, d)` by their distances to the `train` rows `(k, d)`."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(train)
    ours, theirs = (nearest.kneighbors(rows)[0][:, 0] for rows in (drawn, held_out))
    test = mannwhitneyu(ours, theirs, alternative="less")
    closer = 1 - float(test.statistic) / (len(ours) * len(theirs))
    return Memorisation(ours, theirs, closer, float(test.pvalue))
