"""How far a log-likelihood may be off because numbers have finitely many digits."""

import math
from contextlib import suppress
from functools import cached_property

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.evaluation.reference_draws import ReferenceDraws, covering_quantile

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
        It is infinite if it could not be measured.
        """
        return 0.0 if dtype == "float32" else self.in_float64

    @cached_property
    def in_float64(self) -> float:
        """The largest change of a draw from float64 to float32, scaled to the precision of float64, nats.

        It is measured at a coarse tolerance if float32 cannot be solved at that of the options. It is
        infinite if float32 fails there as well, or if there are no draws.
        """
        for solve in (self._scored, self._scored_coarsely):
            with suppress(IntegrationError):
                single, double = solve(torch.float32), solve(torch.float64)
                # A draw that fails in float64 is like a row that fails, of which nothing is reported.
                moved = (single - double)[double.isfinite()].abs()
                if len(moved) and bool(moved.isfinite().all()):
                    return moved.max().item() * FLOAT64_FINER
        return math.inf

    @cached_property
    def round_trip(self) -> float:
        """The difference between the log-likelihood that a draw comes with and that of the row, nats.

        It is the error of draws of a model that solves nothing; infinite if there are no draws.
        """
        levels = self.references.levels
        scored = levels.score_draws(levels.exact_model(), self.references.rows).log_prob
        return covering_quantile((self.references.as_drawn.log_prob - scored).abs())

    def _scored(self, dtype: torch.dtype) -> Tensor:
        return self.references.scores_at(0, dtype).log_prob

    def _scored_coarsely(self, dtype: torch.dtype) -> Tensor:
        levels = self.references.levels
        return levels.score_draws(levels.coarse_model(dtype), self.references.rows).log_prob


def last_digits(log_prob: Tensor) -> Tensor:
    """The rounding error `(n,)`, nats, of `log_prob: (n,)`, float64, that follows from its size alone.

    It is infinite or NaN where `log_prob` is.
    """
    eps = torch.finfo(torch.float64).eps
    return 4 * eps * log_prob.abs()
