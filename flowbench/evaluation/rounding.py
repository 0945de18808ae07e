"""How far a log-likelihood may be off because numbers have finitely many digits."""

import math
from contextlib import suppress
from functools import cached_property

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.evaluation.reference_draws import COVERED, ReferenceDraws

#: A difference of two solves up to this, nats, is taken for rounding, which no refinement can lessen.
ROUNDING = 1e-9
#: The unit roundoff of float64 as a share of that of float32.
FLOAT64_FINER = 2.0**-29


class RoundingError:
    """The error of a model's arithmetic, measured on draws of the model."""

    def __init__(self, references: ReferenceDraws) -> None:
        self.references = references

    def part(self, dtype: str) -> float:
        """What rounding adds to the error of every row that is scored in `dtype`, nats.

        For float32 it is 0: a refined solve is in float64, so that the change counts as the solver's error.
        """
        if dtype == "float32":
            return 0.0
        return self.in_float64 if math.isfinite(self.in_float64) else ROUNDING

    @cached_property
    def in_float64(self) -> float:
        """The largest change of a draw from float64 to float32, scaled to the precision of float64, nats.

        It is measured at a coarse tolerance if float32 cannot be solved at that of the options. It is
        infinite if float32 fails there as well, or if there are no draws.
        """
        if not len(self.references):
            return math.inf
        for solve in (self._scored, self._scored_coarsely):
            with suppress(IntegrationError):
                moved = (solve(torch.float32) - solve(torch.float64)).abs().max().item()
                if math.isfinite(moved):
                    return moved * FLOAT64_FINER
        return math.inf

    @cached_property
    def round_trip(self) -> float:
        """The difference between the log-likelihood that a draw comes with and that of the row, nats.

        It is the error of draws of a model that solves nothing; infinite if there are no draws.
        """
        if not len(self.references):
            return math.inf
        scored = self.references.levels.exact_model().score(self.references.x).log_prob
        return torch.quantile((self.references.as_drawn.log_prob - scored).abs(), COVERED).item()

    def _scored(self, dtype: torch.dtype) -> Tensor:
        return self.references.scores_at(0, dtype).log_prob

    def _scored_coarsely(self, dtype: torch.dtype) -> Tensor:
        levels = self.references.levels
        return levels.score_draws(levels.coarse_model(dtype), self.references.x).log_prob


def last_digits(log_prob: Tensor) -> Tensor:
    """The rounding error `(n,)`, nats, of `log_prob: (n,)`, float64, that follows from its size alone."""
    eps = torch.finfo(torch.float64).eps
    return 4 * eps * log_prob.abs().nan_to_num(nan=0.0, posinf=0.0)
