"""Draws of a model by which the errors of its log-likelihoods are calibrated."""

import math
from functools import cached_property

import torch
from torch import Tensor

from flowbench.evaluation.solver_levels import SolverLevels
from flowbench.models.density import Scores
from flowbench.models.rows import Rows

#: How many rows are drawn, whatever rows are scored.
REFERENCES = 200
#: Share of draws, or of other rows with a known change, that an error found on them has to cover.
COVERED = 0.993


class ReferenceDraws:
    """Rows drawn from a model, and their scores at each level of its solver.

    The rows are the same for every use of one model, so that what they tell does not depend on the rows that
    are scored.
    """

    def __init__(self, levels: SolverLevels) -> None:
        self.levels = levels
        self._scores: dict[tuple[int, torch.dtype], Scores] = {}

    @cached_property
    def _drawn(self) -> tuple[Rows, Scores]:
        model = self.levels.exact_model()
        rows, scores = self.levels.draw(model, REFERENCES, torch.Generator().manual_seed(0))
        finite = torch.isfinite(rows.x).all(1) & torch.isfinite(scores.log_prob)
        return rows[finite], scores.of(finite)

    @property
    def rows(self) -> Rows:
        """The m draws, data units, but for those that are not finite or have no finite density."""
        return self._drawn[0]

    @property
    def as_drawn(self) -> Scores:
        """The scores `(m,)` that the draws come with, from the way there, with the exact divergence."""
        return self._drawn[1]

    def __len__(self) -> int:
        return len(self.rows)

    def scores_at(self, level: int, dtype: torch.dtype | None = None) -> Scores:
        """Scores `(m,)` of the draws at a level, in `dtype` or in that of the level."""
        key = level, dtype or self.levels.dtype_at(level)
        if key not in self._scores:
            self._scores[key] = self.levels.score_draws(self.levels.model_at(*key), self.rows)
        return self._scores[key]


def covering_quantile(errors: Tensor) -> float:
    """The value that all but the rarest of `errors: (n,)` are below, by the share `COVERED`.

    An error that is NaN is unknown and counts as infinite. So does the quantile of no errors at all.
    """
    if not len(errors):
        return math.inf
    quantile = torch.quantile(errors.nan_to_num(nan=math.inf, posinf=math.inf), COVERED).item()
    # Between a finite error and an infinite one, or two infinite ones, interpolation makes NaN.
    return math.inf if math.isnan(quantile) else quantile


def median(errors: Tensor) -> float:
    """The median of `errors: (n,)`; NaN among them counts as infinite, and so does the median of none."""
    return errors.nan_to_num(nan=math.inf, posinf=math.inf).median().item() if len(errors) else math.inf
