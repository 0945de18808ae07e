"""Gaussian mixtures with full covariances, as scikit-learn fits them by expectation maximisation."""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowbench.statistics.weighting import effective_size, mean_of

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]

#: Called with a sentence about the progress of a search.
Tell = Callable[[str], None]

#: The most that is added to variances, for columns of about unit variance.
MOST_ADDED = 1e-4


def silent(text: str) -> None:
    """A `Tell` that drops the sentence."""


def fit_components(
    rows: Floats,
    count: int,
    *,
    threads: int,
    seed: int = 0,
    starts: int = 1,
    added: float | None = None,
    weights: Floats | None = None,
) -> "GaussianMixture":
    """Fit a Gaussian mixture with `count` components to `rows: (n, d)`.

    Of as many fits as `starts` says, the one with the highest likelihood is returned. Their starting points
    are drawn with `seed`. `added` is added to every variance, so that no component collapses onto a point; by
    default it is `added_variance(n)`. The same seed and number of `threads` give the same bytes. With
    `weights: (n,)` a row of weight 2 counts as two rows; n is then the effective number of rows.

    Raises `ValueError` if rows are not finite or a covariance has no Cholesky factor.
    """
    added = added_variance(rows_that_count(rows, weights)) if added is None else added
    return _fit(rows, weights, threads, count, random_state=seed, n_init=starts, reg_covar=added)


def search_components(
    rows: Floats,
    counts: Iterable[int],
    *,
    threads: int,
    seconds: float = math.inf,
    seed: int = 0,
    starts: int = 1,
    added: float | None = None,
    tell: Tell = silent,
    weights: Floats | None = None,
) -> "GaussianMixture":
    """The mixture of `rows: (n, d)` with the lowest Bayesian information criterion (Schwarz 1978).

    The `counts` of components are tried in turn. The search ends when the criterion has risen twice in a row,
    or when the next fit would end after about `seconds`. The first count is always tried. `tell` gets a
    sentence about each fit. The other parameters are those of `fit_components`. With `weights`, the criterion
    is that of the effective number of rows and of their weighted mean log-likelihood.
    """
    began, fits, scores = time.monotonic(), [], []
    n = rows_that_count(rows, weights)
    for count in counts:
        started = time.monotonic()
        fits.append(
            fit_components(
                rows, count, threads=threads, seed=seed, starts=starts, added=added, weights=weights
            )
        )
        fitted = mean_of(fits[-1].score_samples(rows), weights)
        free = count * parameters_of_component(rows.shape[1]) - 1
        scores.append(free * math.log(n) - 2 * n * fitted)
        now = time.monotonic()
        left = f", {max(seconds - (now - began), 0):.0f} s left" if math.isfinite(seconds) else ""
        tell(f"Gaussian mixture, components {count}, BIC {scores[-1]:.7g} (best {min(scores):.7g}){left}")
        rises = len(scores) > 2 and scores[-1] > scores[-2] > scores[-3]
        if rises or now - began + 1.5 * (now - started) > seconds:
            break
    return fits[scores.index(min(scores))]


def refine_components(
    mixture: "GaussianMixture",
    rows: Floats,
    steps: int,
    *,
    threads: int,
    weights: Floats | None = None,
) -> "GaussianMixture":
    """`mixture` after at most `steps` further steps of expectation maximisation on `rows: (n, d)`."""
    return _fit(
        rows,
        weights,
        threads,
        mixture.n_components,
        weights_init=mixture.weights_,
        means_init=mixture.means_,
        precisions_init=mixture.precisions_,
        max_iter=steps,
        reg_covar=added_variance(rows_that_count(rows, weights)),
    )


def _fit(
    rows: Floats, weights: Floats | None, threads: int, count: int, **parameters: Any
) -> "GaussianMixture":
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    if weights is None:
        mixture = GaussianMixture(count, **parameters)
    else:
        from flowbench.statistics.weighted_mixtures import WeightedMixture

        mixture = WeightedMixture(count, **parameters).weigh(weights / weights.mean())
    # By default scikit-learn uses every core, and the order of its sums depends on their number.
    with warnings.catch_warnings(), threadpool_limits(threads):
        # Many components hardly ever converge fully. The mixture after the last step is good enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(rows)


def rows_that_count(rows: Floats, weights: Floats | None) -> float:
    """The number of `rows: (n, d)`; with `weights: (n,)` the effective one."""
    return len(rows) if weights is None else effective_size(weights)


def added_variance(rows: float) -> float:
    """The variance that is added for a number of `rows`: that of a scale of 10 / rows, at most `MOST_ADDED`.

    In one column of unit scale, ten neighbouring rows span about that distance.
    """
    return min(MOST_ADDED, (10 / rows) ** 2)


def parameters_of_component(features: int) -> int:
    """The number of parameters of one component: its weight, mean and covariance."""
    return 1 + features + features * (features + 1) // 2


def most_components(rows: float, features: int) -> int:
    """The most components for which each of their parameters has at least two of the `rows`; at least 1."""
    return max(1, int(rows) // (2 * parameters_of_component(features)))
