"""How good weights are on held-out examples, such as rows."""

import math
import time
from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.objectives.objective import ModelT
from flowbench.statistics.paired import estimate_mean
from flowbench.statistics.weighting import mean_of
from flowbench.training.criterion import Criterion
from flowbench.training.examples import ExamplesT
from flowbench.training.state import Tensors


@dataclass(frozen=True)
class Judgement:
    """What held-out examples, such as rows, say of weights.

    `log_prob: (n,)`, float64, are their log-likelihoods under the model, nats; all NaN where a solve failed.
    `each_nll: (n,)` is what the criterion makes of them, nats; all infinite where one of them is not finite.
    `fault` says why, and is empty otherwise. `nfe` is what the solve took, None without one, and `seconds`
    the wall time of the judgement. `weights: (n,)` say how much each counts in the mean; None if all count
    alike.
    """

    log_prob: Tensor
    each_nll: Tensor
    nfe: int | None
    fault: str
    seconds: float
    weights: Tensor | None = None

    @property
    def nll(self) -> float:
        """The mean of their NLL, nats; infinite where the model broke down."""
        return mean_of(self.each_nll.numpy(), self._weights)

    @property
    def is_solved(self) -> bool:
        """Whether every example has a log-likelihood under the model."""
        return not torch.isnan(self.log_prob).any().item()

    def is_level_with(self, best: "Judgement") -> bool:
        """Whether the mean NLL is no worse than the `best`, of the same examples, by two standard errors."""
        if len(self.each_nll) < 2:
            return False
        with np.errstate(invalid="ignore"):
            worse = estimate_mean((self.each_nll - best.each_nll).numpy(), self._weights)
        return worse.standard_error is not None and worse.mean < 2 * worse.standard_error

    @property
    def _weights(self) -> NDArray[np.float64] | None:
        return None if self.weights is None else self.weights.double().cpu().numpy()


#: Before the first validation.
NOT_JUDGED = Judgement(torch.empty(0), torch.empty(0), None, "nothing is known", 0.0)


class Judge(Generic[ModelT, ExamplesT]):
    """Judges weights on a copy of the `model`, so that the weights that learn stay as they are.

    At most `chunk` examples are scored at a time.
    """

    def __init__(self, model: ModelT, criterion: Criterion[ModelT, ExamplesT], chunk: int) -> None:
        self.model = model.for_validation()
        self.criterion = criterion
        self._chunk = chunk

    def __call__(self, weights: Tensors, examples: ExamplesT) -> Judgement:
        """What the `examples` say of the `weights`; a failed solve is part of the answer."""
        began = time.monotonic()
        log_prob, nfe, fault = self._score(weights, examples)
        each_nll = torch.full((len(examples),), math.inf, dtype=torch.float64)
        counts = self.criterion.weights(examples)
        if not torch.isnan(log_prob).any():
            found = self.criterion.nll(examples, log_prob)
            if torch.isfinite(found).all():
                return Judgement(log_prob, found, nfe, fault, time.monotonic() - began, counts)
        fault = fault or "some have no finite log-likelihood"
        return Judgement(log_prob, each_nll, nfe, fault, time.monotonic() - began, counts)

    @torch.no_grad()
    def _score(self, weights: Tensors, examples: ExamplesT) -> tuple[Tensor, int | None, str]:
        """The log-densities (n,) of the examples, the evaluations that they took, and why there are none."""
        self.model.load_state_dict(weights)
        # The same probes every time, so that a stochastic divergence adds no noise to comparisons.
        generator = torch.Generator(self.model.like.device).manual_seed(0)
        try:
            parts = examples.split(self._chunk)
            scores = [self.criterion.score(self.model, part, generator) for part in parts]
        except IntegrationError as error:
            return torch.full((len(examples),), math.nan, dtype=torch.float64), None, str(error)
        return torch.cat([part.log_prob for part in scores]).double(), scores[0].nfe, ""
