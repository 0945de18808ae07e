"""scikit-learn's Gaussian mixture for rows that count by weights, which it has no argument for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]


class WeightedMixture(GaussianMixture):
    """A `GaussianMixture` whose expectation maximisation takes `weights: (n,)` of the rows, with the mean 1.

    In the M step a row's responsibilities count in proportion to its weight, so a row of weight 2 counts as
    two equal rows. The steps of scikit-learn's class are taken as they are. Its k-means start is that of
    equal weights, which the first step leaves behind.
    """

    def weigh(self, weights: Floats) -> "WeightedMixture":
        """Take the weights `(n,)` of the n rows that are fitted next; returns the mixture."""
        self._row_weights = weights
        return self

    def _initialize(self, X: Floats, resp: Floats | None, **more: Any) -> None:
        weighted = None if resp is None else resp * self._row_weights[:, None]
        super()._initialize(X, weighted, **more)

    def _e_step(self, X: Floats, **more: Any) -> tuple[float, Floats]:
        log_prob, log_resp = self._estimate_log_prob_resp(X, **more)
        return float(np.mean(self._row_weights * log_prob)), log_resp

    def _m_step(self, X: Floats, log_resp: Floats, **more: Any) -> None:
        super()._m_step(X, log_resp + np.log(self._row_weights)[:, None], **more)
