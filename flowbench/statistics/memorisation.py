"""Does a model repeat its train rows? Distances of its draws to them against those of held-out rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Memorisation:
    """Nearest train rows of draws, `(m,)`, and of held-out rows, `(n,)`, as distances.

    `closer` is the probability that a draw is closer to its nearest train row than a held-out row to its
    own, ties counting half: 1/2 for a model that is right, above for one that repeats what it has seen.
    `p_value` is that of a draw being no closer (Mann and Whitney 1947; Meehan et al. 2020).
    """

    drawn: Floats
    held_out: Floats
    closer: float
    p_value: float


def memorisation(drawn: Floats, held_out: Floats, train: Floats) -> Memorisation:
    """Compare draws `(m, d)` and held-out rows `(n, d)`, both by their nearest of the `train` rows (k, d)."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(train)
    ours, theirs = (nearest.kneighbors(rows)[0][:, 0] for rows in (drawn, held_out))
    test = mannwhitneyu(ours, theirs, alternative="less")
    closer = 1 - float(test.statistic) / (len(ours) * len(theirs))
    return Memorisation(ours, theirs, closer, float(test.pvalue))
