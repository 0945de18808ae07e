"""The figure by which held-out examples judge a fit."""

from abc import ABC, abstractmethod
from typing import Generic

import torch
from torch import Tensor

from flowbench.models.background import Background
from flowbench.models.density import Density, Scores
from flowbench.models.rows import Rows
from flowbench.objectives.objective import BatchT, ModelT


class Criterion(ABC, Generic[ModelT, BatchT]):
    """A negative log-likelihood (NLL) of held-out examples, such as rows, under a model."""

    @abstractmethod
    def score(self, model: ModelT, examples: BatchT, generator: torch.Generator) -> Scores:
        """The log-likelihood of each example under the model that learns."""

    @abstractmethod
    def nll(self, examples: BatchT, log_prob: Tensor) -> Tensor:
        """The figure `(n,)`, nats, of n examples whose log-likelihoods are `log_prob: (n,)`; on the CPU."""

    def weights(self, examples: BatchT) -> Tensor | None:
        """How much each of n examples counts in a mean, `(n,)`; None if all count alike, as by default."""
        return None

    def settle(self, examples: BatchT, log_prob: Tensor) -> None:
        """Settle what the figure leaves open, once the weights are chosen; by default nothing is."""


class RowCriterion(Criterion[Density, Rows]):
    """The NLL of held-out rows under the model that a flow is a part of.

    The model mixes the flow with a `background`, if it has one. `log_det`, nats, is the mean log|det| of the
    transforms on the validation rows: with it the mean NLL of these rows is in data units. Without either,
    the NLL is the flow's own, in model space.
    """

    def __init__(self, background: Background | None = None, log_det: float = 0.0) -> None:
        self._background = background
        self._log_det = log_det

    def score(self, model: Density, examples: Rows, generator: torch.Generator) -> Scores:
        """The log-densities of the rows under the flow."""
        return model.score(examples.x, generator, context=examples.context)

    def nll(self, examples: Rows, log_prob: Tensor) -> Tensor:
        """The NLL `(n,)`, nats, of rows whose log-densities under the flow are `log_prob: (n,)`; on the CPU.

        The background takes part at the shares that suit these rows, and keeps the shares that it has.
        """
        log_prob = log_prob.cpu()
        if self._background is not None:
            rows = examples.each(Tensor.cpu)
            shares = self._background.best_shares(log_prob, rows.x, rows.context, rows.weights)
            log_prob = self._background.mix(log_prob, rows.x, shares, context=rows.context)
        return -log_prob - self._log_det

    def weights(self, examples: Rows) -> Tensor | None:
        """The weights of the rows, if they have any."""
        return examples.weights

    def settle(self, examples: Rows, log_prob: Tensor) -> None:
        """Give the background the shares that suit these rows, once the weights are chosen."""
        if self._background is not None:
            rows = examples.each(Tensor.cpu)
            self._background.weigh(log_prob.cpu(), rows.x, rows.context, rows.weights)
