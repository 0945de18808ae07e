"""How far a log-likelihood may be off because its equation is solved in steps."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowbench.evaluation.reference_draws import ReferenceDraws, covering_quantile, median
from flowbench.evaluation.rounding import ROUNDING, RoundingError
from flowbench.evaluation.solver_levels import LOOSER
from flowbench.models.density import Scores

#: The least error of a row, as a multiple of what is typical for it: two solves may agree by accident.
FLOOR = 1.0
#: The error of a row, as a multiple of its change: one refinement is not equally good for all rows.
SAFETY = 1.5
#: Digits of the error that one refinement has to remove at least. A tenth of the tolerance removes about
#: one, twice the steps of Euler's method log10(2) = 0.3.
LEAST_ORDER = 0.2
#: Digits that one refinement is believed to remove at most.
MOST_ORDER = 4.0


@dataclass(frozen=True)
class Regime:
    """How a solver behaves under refinement, measured on draws of the model.

    `order` is the number of digits that one refinement removes from the median error. `error` is the median
    error at the tolerance itself, nats. Both are measured in float64. `rounding` is what the arithmetic adds
    to a row's error, nats.
    """

    order: float
    error: float
    rounding: float

    @property
    def is_convergent(self) -> bool:
        """Whether the error follows the tolerance, so that differences of solves measure it."""
        return self.order >= LEAST_ORDER or self.error < ROUNDING


class SolverError:
    """The error of a model's solves, estimated from solves at two levels and calibrated on draws.

    The change of a row from one level to the next finer one estimates the row's error, as in Richardson
    extrapolation. A row without a finer solve has the sum of the solver's local errors instead. Its unit is
    unknown, so that it is multiplied by the factor that covers the changes of other rows.

    A draw whose solve fails at the level itself is left out, as rows that fail are not reported. One whose
    finer solve fails has an unknown error, which counts as infinite.
    """

    def __init__(self, references: ReferenceDraws, rounding: RoundingError) -> None:
        self.references = references
        self.rounding = rounding

    def bound(self, scores: Scores, finer: Tensor, level: int) -> Tensor:
        """The error `(n,)`, nats, of `scores` at a level, from the log-likelihoods one level `finer: (n,)`.

        It is a multiple of the row's change, and at least what is typical of the model's draws for a row
        with such local errors. It is infinite where the change is not known.
        """
        change = self.change(scores.log_prob, finer, level)
        bound: Tensor = SAFETY * change + FLOOR * self._typical(level) * local_error(scores)
        return bound.nan_to_num(nan=math.inf, posinf=math.inf)

    def _typical(self, level: int) -> float:
        """The median change of the draws from a level to one finer, over their median local error."""
        own, finer = self.references.scores_at(level), self.references.scores_at(level + 1)
        moved, scored = _differences(own.log_prob, finer.log_prob)
        return median(moved) / local_error(own)[scored].median().item() if len(moved) else math.inf

    def change(self, log_prob: Tensor, finer: Tensor, level: int) -> Tensor:
        """The change `(n,)`, nats, from `log_prob: (n,)` at a level to the limit of ever finer solves.

        The limit is extrapolated from the solve one level `finer: (n,)` and the order of convergence.
        """
        # The error that the finer solve still has, as a share of that of the coarser one.
        rest = 10.0 ** -self._order(level)
        change: Tensor = (log_prob - finer).abs() / (1 - rest)
        return change

    def regime(self, level: int) -> Regime:
        """The convergence from `level` to one finer, both compared with a solve that is finer still."""
        coarse, fine, finest = (
            self.references.scores_at(level + k, torch.float64).log_prob for k in range(3)
        )
        scored = coarse.isfinite()
        errors = [max(median((one - finest).abs()[scored]), 1e-300) for one in (coarse, fine)]
        if self.references.levels.options.dtype == "float32":
            rounding = median((self.references.scores_at(level).log_prob - coarse).abs()[scored])
        else:
            rounding = self.rounding.in_float64
        ratio = errors[0] / errors[1]
        # Of errors that are not known nothing shows that they shrink.
        return Regime(math.log10(ratio) if ratio > 0 else -math.inf, errors[0], rounding)

    @cached_property
    def factor_of_draws(self) -> float:
        """The covering factor of the scores that draws come with, which have the exact divergence."""
        drawn = self.references.as_drawn
        levels = self.references.levels
        finest = levels.score_draws(levels.exact_model(2), self.references.rows).log_prob
        rest = 10.0 ** (-2 * self._order(0))
        return covering_factor((drawn.log_prob - finest).abs() / (1 - rest), local_error(drawn))

    @cached_property
    def looser_factor(self) -> float:
        """The covering factor of solves at the level `LOOSER`; 0 for a model that solves nothing."""
        loose = self.references.scores_at(LOOSER, torch.float64)
        if loose.nfe is None:
            return 0.0
        reference = self.references.scores_at(0, torch.float64)
        moved, scored = _differences(loose.log_prob, reference.log_prob)
        return covering_factor(moved, local_error(loose)[scored])

    def _order(self, level: int) -> float:
        """The digits that one refinement removes, within the limits of what is believed."""
        return min(max(self.regime(level).order, LEAST_ORDER), MOST_ORDER)


def local_error(scores: Scores) -> Tensor:
    """The sum of a solver's local errors `(n,)`, positive, in units that only a calibration knows.

    It is 1 for a solver that estimates none.
    """
    if scores.local_error is None:
        return torch.ones_like(scores.log_prob)
    return scores.local_error.clamp_min(torch.finfo(scores.local_error.dtype).tiny)


def covering_factor(change: Tensor, local: Tensor) -> float:
    """The factor f for which f * local + `ROUNDING` is at least the change of all but the rarest rows.

    `change: (n,)`, nats, and `local: (n,)` are the changes and local errors of the rows. A row that changes
    by rounding alone, as one that the background holds does, says nothing about the factor. A change that is
    NaN is unknown and counts as infinite. The factor of no rows is infinite.
    """
    if not len(change):
        return math.inf
    tells = ~(change <= ROUNDING)
    if not bool(tells.any()):
        # A larger factor would have shown in the row with the largest local error.
        return ROUNDING / local.max().item()
    return covering_quantile((change - ROUNDING)[tells] / local[tells])


def _differences(own: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
    """|own - finer|, `(k,)`, of those rows `(m,)` whose own log-likelihood is finite, and which these are."""
    scored = own.isfinite()
    return (own - finer).abs()[scored], scored
