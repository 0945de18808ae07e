"""Gaussian mixtures with full covariances, as scikit-learn fits them by expectation maximisation."""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]

#: Hears where a search stands, in words.
Tell = Callable[[str], None]

#: Added to variances where rows are few, in units in which columns have about unit variance.
MOST_ADDED = 1e-4


def silent(text: str) -> None:
    """Tell nobody."""


def fit_components(
    rows: Floats, count: int, *, threads: int, seed: int = 0, starts: int = 1, added: float | None = None
) -> "GaussianMixture":
    """The best of some `starts` with `count` components on `rows: (n, d)`; `seed` draws where they start.

    `added` is added to every variance, so that no component is a spike; by default `added_variance(n)`.
    It takes so many `threads`: the same number gives the same bytes.
    """
    from sklearn.mixture import GaussianMixture

    added = added_variance(len(rows)) if added is None else added
    return _fit(GaussianMixture(count, random_state=seed, n_init=starts, reg_covar=added), rows, threads)


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
) -> "GaussianMixture":
    """The mixture of `rows: (n, d)` by Schwarz's criterion (1978), tried with ever more of the `counts`.

    Until the criterion has risen twice in a row, or the next fit would end after about `seconds`; the first
    is always made, and `tell` hears of each. The rest as in `fit_components`.
    """
    began, fits, scores = time.monotonic(), [], []
    for count in counts:
        started = time.monotonic()
        fits.append(fit_components(rows, count, threads=threads, seed=seed, starts=starts, added=added))
        scores.append(fits[-1].bic(rows))
        now = time.monotonic()
        left = f", {max(seconds - (now - began), 0):.0f} s left" if math.isfinite(seconds) else ""
        tell(f"Gaussian mixture, components {count}, BIC {scores[-1]:.7g} (best {min(scores):.7g}){left}")
        rises = len(scores) > 2 and scores[-1] > scores[-2] > scores[-3]
        if rises or now - began + 1.5 * (now - started) > seconds:
            break
    return fits[scores.index(min(scores))]


def refine_components(
    mixture: "GaussianMixture", rows: Floats, steps: int, *, threads: int
) -> "GaussianMixture":
    """`mixture` after at most so many further `steps` of expectation maximisation on `rows: (n, d)`."""
    from sklearn.mixture import GaussianMixture

    refined = GaussianMixture(
        mixture.n_components,
        weights_init=mixture.weights_,
        means_init=mixture.means_,
        precisions_init=mixture.precisions_,
        max_iter=steps,
        reg_covar=added_variance(len(rows)),
    )
    return _fit(refined, rows, threads)


def _fit(mixture: "GaussianMixture", rows: Floats, threads: int) -> "GaussianMixture":
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # scikit-learn would take every core that there is, and add in another order every time.
    with warnings.catch_warnings(), threadpool_limits(threads):
        # Of many components some always creep on; what is found after the last step is a mixture too.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(rows)


def added_variance(rows: int) -> float:
    """What is added to variances: of the distance, squared, that ten neighbours of that many rows span."""
    return min(MOST_ADDED, (10 / rows) ** 2)


def parameters_of_component(features: int) -> int:
    """The numbers that make one component: weight, mean and covariance."""
    return 1 + features + features * (features + 1) // 2


def most_components(rows: int, features: int) -> int:
    """As many as leave each parameter of a component two of the `rows` at least."""
    return max(1, rows // (2 * parameters_of_component(features)))
