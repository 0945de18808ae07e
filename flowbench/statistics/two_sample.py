"""Are two sets of rows drawn from one distribution? Four statistics, each with its p-value."""

import math
from dataclasses import dataclass
from itertools import pairwise
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
#: Parts of the rows of a classifier's test.
PARTS = 5


@dataclass(frozen=True)
class TwoSampleTest:
    """A statistic of two samples and the probability, were they alike, of one as large or larger.

    Of `c2st`, an equal one counts half. `band` holds 95 in 100 such statistics, where it is known beforehand.
    """

    statistic: float
    p_value: float
    band: tuple[float, float] | None = None


def c2st(x: Floats, y: Floats, rng: np.random.Generator, classifier: Any = None) -> TwoSampleTest:
    """The accuracy at which a classifier tells `x: (n, d)` from `y: (m, d)` (Lopez-Paz and Oquab 2017).

    The rows of both, but a few and in an order that a fair coin decides, fall into five parts; each part
    but the first is told by a classifier that has seen all parts before it (Blum et al. 1999). Of rows that
    are alike every answer is then right with probability 1/2 whatever came before, and the number of right
    ones binomial; answers of crossed folds depend on one another, and a test that takes them for
    independent rejects 9 in 100 at a level of 5. Half of the probability of the accuracy itself counts,
    since accuracies come in steps. The classifier is scikit-learn's gradient boosting unless another is
    given, and guesses while it has seen one side only.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    labels = _coins(min(len(x), len(y)), rng)
    rows = np.empty((len(labels), x.shape[1]))
    for side, those in enumerate((x, y)):
        rows[labels == side] = rng.permutation(those)[: (labels == side).sum()]
    if classifier is None:
        classifier = HistGradientBoostingClassifier(max_iter=50, random_state=int(rng.integers(2**31)))
    ends = np.linspace(0, len(rows), PARTS + 1).astype(int)
    right = 0
    for start, end in pairwise(ends[1:]):
        seen = labels[:start]
        if 0 < seen.sum() < start:
            told = classifier.fit(rows[:start], seen).predict(rows[start:end])
        else:
            told = rng.integers(2, size=end - start)
        right += int((told == labels[start:end]).sum())
    count = len(rows) - int(ends[1])
    chance = binom(count, 0.5)
    accuracy, p_value = right / count, float(chance.sf(right) + chance.pmf(right) / 2)
    low, high = chance.interval(0.95)
    return TwoSampleTest(accuracy, p_value, (float(low) / count, float(high) / count))


def _coins(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Throws of a fair coin, so many that neither side is likely to come up more than `n` times; it does not.

    How many is not left to the coin: where one side was used up early, the other would be the better guess.
    """
    count = 2 * n - math.ceil(2 * math.sqrt(2 * n))
    while True:
        throws = rng.integers(2, size=count)
        if count - n <= throws.sum() <= n:
            return throws


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
