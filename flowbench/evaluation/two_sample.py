"""Are two sets of rows drawn from one distribution? Four statistics, each with its p-value."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import binom

Floats = NDArray[np.float64]

#: Relabelled data sets that a permutation's p-value is counted over.
PERMUTATIONS = 500
#: Directions of the sliced distance.
DIRECTIONS = 100
#: Widths of the kernels, in units of the median distance of the pooled rows.
WIDTHS = (0.25, 0.5, 1.0, 2.0)
FOLDS = 5


@dataclass(frozen=True)
class TwoSampleTest:
    """A statistic of two samples and the probability, were they alike, of one as large or larger."""

    statistic: float
    p_value: float


def c2st(x: Floats, y: Floats, rng: np.random.Generator, classifier: Any = None) -> TwoSampleTest:
    """The accuracy at which a classifier tells `x: (n, d)` from `y: (m, d)` (Lopez-Paz and Oquab 2017).

    Of rows that it has not seen, in five folds with as many rows of either side. 1/2 is chance, about which
    the number of right answers is binomial; half of the probability of the accuracy itself counts, since
    accuracies come in steps. The classifier is scikit-learn's gradient boosting unless another is given.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    n = min(len(x), len(y))
    rows = np.concatenate([rng.permutation(x)[:n], rng.permutation(y)[:n]])
    labels = np.repeat([0, 1], n)
    seed = int(rng.integers(2**31))
    if classifier is None:
        classifier = HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    right = int((cross_val_predict(classifier, rows, labels, cv=folds) == labels).sum())
    chance = binom(2 * n, 0.5)
    return TwoSampleTest(right / (2 * n), float(chance.sf(right) + chance.pmf(right) / 2))


def c2st_band(n: int) -> tuple[float, float]:
    """The accuracies between which 95 in 100 of `c2st` on twice `n` rows lie where both samples are alike."""
    low, high = binom(2 * n, 0.5).interval(0.95)
    return float(low) / (2 * n), float(high) / (2 * n)


def mmd(x: Floats, y: Floats, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> TwoSampleTest:
    """The squared maximum mean discrepancy of `x: (n, d)` and `y: (m, d)` (Gretton et al. 2012), unbiased.

    The kernel is a mean of Gaussians, whose widths are multiples of the pooled rows' median distance, so
    that relabelling leaves it as it is.
    """
    rows = np.concatenate([x, y])
    distances = cdist(rows, rows, "sqeuclidean")
    median = float(np.median(distances[np.triu_indices(len(distances), 1)])) or 1.0
    kernel = np.mean([np.exp(-distances / (2 * width**2 * median)) for width in WIDTHS], axis=0)
    return _kernel_test(kernel, len(x), rng, permutations)


def energy_distance(
    x: Floats, y: Floats, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> TwoSampleTest:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of `x: (n, d)` and `y: (m, d)` (Szekely and Rizzo 2013)."""
    rows = np.concatenate([x, y])
    return _kernel_test(-cdist(rows, rows), len(x), rng, permutations)


def _kernel_test(kernel: Floats, n: int, rng: np.random.Generator, permutations: int) -> TwoSampleTest:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), the first `n` rows of `kernel` being x, over distinct pairs."""
    size = len(kernel)
    m = size - n
    kernel = kernel - np.diag(kernel.diagonal())
    # Each column marks the rows that count as x: those that are, then those of each relabelling.
    marked = np.zeros((size, permutations + 1))
    marked[:n, 0] = 1
    for column in range(1, permutations + 1):
        marked[rng.permutation(size)[:n], column] = 1
    with_x = kernel @ marked
    within_x = (marked * with_x).sum(0)
    across = with_x.sum(0) - within_x
    within_y = kernel.sum() - within_x - 2 * across
    statistics = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    return _permutation_test(statistics)


def sliced_wasserstein(
    x: Floats,
    y: Floats,
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
    directions: int = DIRECTIONS,
) -> TwoSampleTest:
    """The mean over directions of the Wasserstein-1 distance of the projections (Rabin et al. 2012).

    In one dimension it is the area between the two distribution functions.
    """
    rows = np.concatenate([x, y])
    n, m, size = len(x), len(y), len(rows)
    angles = rng.standard_normal((x.shape[1], directions))
    projected = rows @ (angles / np.linalg.norm(angles, axis=0))
    weights = np.empty((permutations + 1, size))
    weights[0] = np.repeat([1 / n, -1 / m], [n, m])
    for row in range(1, permutations + 1):
        weights[row] = rng.permutation(weights[0])
    statistics = np.zeros(permutations + 1)
    for values in projected.T:
        order = np.argsort(values)
        between = np.abs(np.cumsum(weights[:, order], axis=1)[:, :-1])
        statistics += between @ np.diff(values[order])
    return _permutation_test(statistics / directions)


def _permutation_test(statistics: Floats) -> TwoSampleTest:
    """The first of the `statistics` is that of the samples, the others those of relabellings."""
    observed, others = statistics[0], statistics[1:]
    # The samples are themselves one of the ways to label them, so that no p-value is 0.
    as_large = (others >= observed - 1e-12 * abs(observed)).sum()
    return TwoSampleTest(float(observed), (1 + int(as_large)) / (1 + len(others)))
