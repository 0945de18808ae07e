"""Log-likelihoods that are means over several solves, and the error of so few of them."""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from scipy.stats import t as student
from torch import Tensor

from flowbench.evaluation.reference_draws import ReferenceDraws, covering_quantile
from flowbench.evaluation.solver_error import SolverError, local_error
from flowbench.evaluation.solver_levels import LOOSER
from flowbench.models.density import Scores
from flowbench.models.rows import Rows
from flowbench.registry import DIVERGENCES

#: The error of a mean is its confidence interval's half width, at this confidence.
CONFIDENCE = 0.99
#: Draws of the model, and places in the cell of each, that measure what fewer places miss.
CELLS, PLACES = 64, 16


class Averaging:
    """The mean of a row's log-likelihood over random solves, if there is anything to average.

    An estimated divergence is averaged over its probes. A row with dequantised columns is averaged over
    places in its cell, and one with atoms over stand-ins for these. Places come in pairs on either side of
    the cell's middle (Hammersley and Morton 1956).
    """

    def __init__(self, references: ReferenceDraws, solver: SolverError) -> None:
        self.levels = references.levels
        self.references = references
        self.solver = solver
        self.model = references.levels.model

    @property
    def is_stochastic(self) -> bool:
        """Whether the divergence is estimated with random probes."""
        return not DIVERGENCES.get(self.levels.options.divergence.name).exact

    @property
    def draws(self) -> int:
        """The number of solves that a row's log-likelihood is the mean of."""
        options = self.levels.options
        draws = options.trace_draws if self.is_stochastic else 1
        if not self.model.encoder.has_places:
            return draws
        return max(draws + draws % 2, options.dequantisation_draws)

    @property
    def name(self) -> str:
        """What the solves differ by: "trace" (probes), "dequantisation" (places), both, or nothing."""
        drawn = {"trace": self.is_stochastic, "dequantisation": self.model.encoder.has_places}
        return "_and_".join(name for name, is_drawn in drawn.items() if is_drawn)

    def place(self, rows: Rows, draw: int = 0) -> Rows:
        """The `rows`, data units, at the places in their cells that belong to one `draw`."""
        return self._place(rows, draw, self.draws)

    def solves(self, rows: Rows, first: Scores) -> list[Scores]:
        """The scores of the `rows` in every draw, without stand-ins; `first` are those of draw 0 at level 0.

        If only places differ, the solves of all draws are looser, and the first is solved at both levels
        (multilevel Monte Carlo, Giles 2008). If probes differ, all draws are solved at level 0.
        """
        if self.draws == 1:
            return [first]
        if self.is_stochastic:
            others = (self._solve(rows, 0, draw) for draw in range(1, self.draws))
            return [self._without_stand_ins(first, self.place(rows)), *others]
        return [self._solve(rows, LOOSER, draw) for draw in range(self.draws)]

    def _solve(self, rows: Rows, level: int, draw: int) -> Scores:
        places = self.place(rows, draw)
        return self._without_stand_ins(self.levels.solve(places, level, draw), places)

    def _without_stand_ins(self, scores: Scores, places: Rows) -> Scores:
        return self.model.without_stand_ins(scores, places.x, places.context)

    def mean(self, rows: Rows, first: Scores, solves: Sequence[Scores]) -> Tensor:
        """The mean log-likelihood `(n,)`, nats, of `rows` over the `solves` that `solves` returned."""
        if self.draws == 1:
            return first.log_prob.clone()
        each = _log_probs(solves)
        if self.is_stochastic:
            return each.mean(0)
        mean = self._without_stand_ins(first, self.place(rows)).log_prob + (each.mean(0) - each[0])
        # A density that is zero somewhere in the cell has no difference: -inf minus -inf.
        return torch.where(mean.isnan(), each.mean(0), mean)

    def error(self, solves: Sequence[Scores]) -> Tensor:
        """The error `(n,)`, nats, of the mean over so few `solves`; infinite where it is unknown.

        The error of a mean over places has three terms: the scatter of the places, what so few places miss
        where a density has an edge, and the errors of the looser solves.
        """
        each = _log_probs(solves)
        if self.draws == 1:
            return torch.zeros_like(each[0])
        error = half_width(each, paired=self.model.encoder.has_places)
        if not self.is_stochastic:
            loose = torch.stack([local_error(scores) for scores in solves])
            error = error + self._missed + self.solver.looser_factor * (loose.mean(0) + loose[0])
        return error.nan_to_num(nan=math.inf, posinf=math.inf)

    @cached_property
    def _missed(self) -> float:
        """By how much the scatter of so few places understates their error, in cells of the model's draws.

        A cell whose solves fail at these places is left out, as rows that fail are not reported.
        """
        drawn = self.references.rows[:CELLS]
        rows = drawn.at(self.model.restore(drawn.x, drawn.context))
        rows = rows[torch.isfinite(rows.x).all(1)]
        few, many = (
            torch.stack([self._score_loosely(self._place(rows, draw, draws)) for draw in range(draws)])
            for draws in (self.draws, PLACES)
        )
        scored = ~few.isnan().any(0)
        if not bool(scored.any()):
            return math.inf
        few, many = few[:, scored], many[:, scored]
        off = (few.mean(0) - many.mean(0)).abs() - half_width(few, paired=True)
        # Where the density is zero at some of the few places and at some of the many, both means are -inf.
        both_zero = few.mean(0).isneginf() & many.mean(0).isneginf()
        return max(covering_quantile(off.masked_fill(both_zero, 0.0)), 0.0)

    def _score_loosely(self, rows: Rows) -> Tensor:
        scores = self.levels.score_draws(self.levels.model_at(LOOSER, torch.float64), rows)
        return self._without_stand_ins(scores, rows).log_prob

    def _place(self, rows: Rows, draw: int, draws: int) -> Rows:
        return rows.at(self.model.encoder.spread(rows.x, draw, draws))


def half_width(each: Tensor, *, paired: bool) -> Tensor:
    """Half the width `(n,)` of Student's confidence interval of the mean of k draws `each: (k, n)`.

    `paired` draws 2i and 2i + 1 depend on each other, so that the means of pairs are taken for independent.
    """
    if paired:
        each = (each[::2] + each[1::2]) / 2
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2, len(each) - 1))
    return quantile / math.sqrt(len(each)) * each.std(0)


def _log_probs(solves: Sequence[Scores]) -> Tensor:
    """The log-likelihoods `(k, n)` of k solves."""
    return torch.stack([scores.log_prob for scores in solves])
