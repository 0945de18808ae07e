"""How good weights are on held-out rows."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.training.criterion import Criterion
from flowbench.training.state import Tensors


@dataclass(frozen=True)
class Judgement:
    """What held-out rows say of weights.

    `log_prob: (n,)`, float64, are their log-densities under the flow, nats; all NaN where a solve failed.
    `row_nll: (n,)` is what the criterion makes of them, nats; all infinite where one of them is not finite.
    `fault` says why, and is empty otherwise. `nfe` is what the solve took, None without one, and `seconds`
    the wall time of the judgement.
    """

    log_prob: Tensor
    row_nll: Tensor
    nfe: int | None
    fault: str
    seconds: float

    @property
    def nll(self) -> float:
        """The mean of the rows' NLL, nats; infinite where the model broke down."""
        return self.row_nll.mean().item()

    @property
    def is_solved(self) -> bool:
        """Whether every row has a log-density under the flow."""
        return not torch.isnan(self.log_prob).any().item()

    def is_level_with(self, best: "Judgement") -> bool:
        """Whether the mean NLL is no worse than the `best` on the same rows, within two standard errors."""
        if len(self.row_nll) < 2:
            return False
        worse = self.row_nll - best.row_nll
        return bool(worse.mean() < 2 * worse.std() / len(worse) ** 0.5)


#: Before the first validation.
NOT_JUDGED = Judgement(torch.empty(0), torch.empty(0), None, "nothing is known", 0.0)


class Judge:
    """Judges weights on a copy of the `flow`, so that the weights that learn stay as they are.

    At most `chunk` rows are scored at a time.
    """

    def __init__(self, flow: Density, criterion: Criterion, chunk: int) -> None:
        self.flow = flow.for_validation()
        self.criterion = criterion
        self._chunk = chunk

    def __call__(self, weights: Tensors, rows: Rows) -> Judgement:
        """What the `rows` say of the `weights`. A failed solve is part of the answer and raises nothing."""
        began = time.monotonic()
        log_prob, nfe, fault = self._score(weights, rows)
        row_nll = torch.full((len(rows),), math.inf, dtype=torch.float64)
        if not torch.isnan(log_prob).any():
            found = self.criterion.nll(rows, log_prob)
            if torch.isfinite(found).all():
                return Judgement(log_prob, found, nfe, fault, time.monotonic() - began)
        fault = fault or "some rows have no finite log-likelihood"
        return Judgement(log_prob, row_nll, nfe, fault, time.monotonic() - began)

    @torch.no_grad()
    def _score(self, weights: Tensors, rows: Rows) -> tuple[Tensor, int | None, str]:
        """The log-densities (n,) of the rows, the evaluations that they took, and why there are none."""
        self.flow.load_state_dict(weights)
        # The same probes every time, so that a stochastic divergence adds no noise to comparisons.
        generator = torch.Generator(rows.x.device).manual_seed(0)
        try:
            scores = [
                self.flow.score(part.x, generator, context=part.context) for part in rows.split(self._chunk)
            ]
        except IntegrationError as error:
            return torch.full((len(rows),), math.nan, dtype=torch.float64), None, str(error)
        return torch.cat([part.log_prob for part in scores]).double(), scores[0].nfe, ""
