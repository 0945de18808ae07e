"""The figure by which held-out rows judge a fit."""

from torch import Tensor

from flowbench.models.background import Background
from flowbench.models.rows import Rows


class Criterion:
    """The negative log-likelihood (NLL) of held-out rows under the model that a flow is a part of.

    The model mixes the flow with a `background`, if it has one. `log_det`, nats, is the mean log|det| of the
    transforms on the validation rows: with it the mean NLL of these rows is in data units. Without either,
    the NLL is the flow's own, in model space.
    """

    def __init__(self, background: Background | None = None, log_det: float = 0.0) -> None:
        self._background = background
        self._log_det = log_det

    def nll(self, rows: Rows, log_prob: Tensor) -> Tensor:
        """The NLL `(n,)`, nats, of rows whose log-densities under the flow are `log_prob: (n,)`; on the CPU.

        The background takes part at the shares that suit these rows, and keeps the shares that it has.
        """
        log_prob = log_prob.cpu()
        if self._background is not None:
            rows = rows.each(Tensor.cpu)
            x, context = rows.x, rows.context
            shares = self._background.best_shares(log_prob, x, context)
            log_prob = self._background.mix(log_prob, x, shares, context=context)
        return -log_prob - self._log_det

    def settle(self, rows: Rows, log_prob: Tensor) -> None:
        """Give the background the shares that suit these rows, once the weights are chosen."""
        if self._background is not None:
            rows = rows.each(Tensor.cpu)
            self._background.weigh(log_prob.cpu(), rows.x, rows.context)
