"""Four tests of the hypothesis that two sets of rows have one distribution."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import binom

Floats = NDArray[np.float64]

#: Random relabellings of a permutation test.
PERMUTATIONS = 500
#: Directions of the sliced distance.
DIRECTIONS = 100
#: Widths of the kernels, in units of the median distance of the pooled rows.
WIDTHS = (0.25, 0.5, 1.0, 2.0)
#: Parts that the rows of a classifier's test are split into.
PARTS = 5


@dataclass(frozen=True)
class TwoSampleTest:
    """A statistic of two samples, and its p-value under the hypothesis that they have one distribution.

    The p-value is the probability of a statistic at least as large; for `c2st` an equal one counts half.
    `band` holds 95% of the statistics under the hypothesis; None if it is not known in advance.
    """

    statistic: float
    p_value: float
    band: tuple[float, float] | None = None


def c2st(x: Floats, y: Floats, rng: np.random.Generator, classifier: Any = None) -> TwoSampleTest:
    """The accuracy of a classifier that separates `x: (n, d)` from `y: (m, d)` (Lopez-Paz and Oquab 2017).

    Nearly all rows of both are put into an order that a fair coin decides, and split into five parts. Each
    part but the first is predicted by a classifier that was fitted to all parts before it (Blum et al. 1999).
    If both have one distribution, each prediction is right with probability 1/2, whatever came before. The
    number of right ones is then binomial. Predictions of cross-validation depend on one another: a test that
    takes them for independent rejects 9% at a level of 5%.

    The p-value counts the accuracy itself half, since accuracies come in steps. `rng` draws the order.
    `classifier` is scikit-learn's gradient boosting by default. While it has seen one side only, predictions
    are random.
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
    """Throws of a fair coin, 0 and 1, of which neither side comes up more than `n` times.

    Their number is fixed in advance, so low that this is likely. They are thrown again until it holds. If
    throws ended when one side was used up, the last ones would be predictable.
    """
    count = 2 * n - math.ceil(2 * math.sqrt(2 * n))
    while True:
        throws = rng.integers(2, size=count)
        if count - n <= throws.sum() <= n:
            return throws


def mmd(x: Floats, y: Floats, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> TwoSampleTest:
    """The unbiased squared maximum mean discrepancy of `x: (n, d)` and `y: (m, d)` (Gretton et al. 2012).

    The kernel is a mean of Gaussians. Their widths are multiples of the median distance of the pooled rows,
    which relabelling does not change.
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
    """The permutation test of E k(x, x') + E k(y, y') - 2 E k(x, y), over pairs of distinct rows.

    `kernel: (n + m, n + m)` holds k of all pairs; its first `n` rows are those of x.
    """
    size = len(kernel)
    m = size - n
    kernel = kernel - np.diag(kernel.diagonal())
    # Each column marks the rows that count as x: the true ones first, then those of each relabelling.
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
    """The mean Wasserstein-1 distance of projections of `x: (n, d)` and `y: (m, d)` (Rabin et al. 2012).

    The projections are on random directions. In one dimension the distance is the area between the two
    distribution functions.
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
    """The test whose `statistics` are that of the samples, then those of relabellings."""
    observed, others = statistics[0], statistics[1:]
    # The true labels are one of the possible labellings, so that no p-value is 0.
    as_large = (others >= observed - 1e-12 * abs(observed)).sum()
    return TwoSampleTest(float(observed), (1 + int(as_large)) / (1 + len(others)))
