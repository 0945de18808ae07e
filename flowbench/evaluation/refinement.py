"""A model under solvers of several tolerances, which tell how far its log-likelihoods may be off."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from scipy.stats import t as student
from torch import Tensor

from flowbench.encoding.dequantiser import Dequantiser
from flowbench.errors import IntegrationError
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.failures import failing_rows, past_failures, spread_scores
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel, chunk_sizes
from flowbench.registry import DIVERGENCES

#: Draws of the model by which its errors are calibrated, whatever rows are scored.
REFERENCES = 200
#: Of a row's error, the share of a typical one that it has at least: two solves may agree by accident.
FLOOR = 1.0
#: How much more than it changed a row may be off: refinements are not equally good for all rows.
SAFETY = 1.5
#: Share of the refined rows that a bound for those which are not refined has to hold for.
COVERED = 0.993
#: Digits that a refinement has to bring. A tenth of the tolerance brings about one, twice the steps of Euler
#: log10(2).
LEAST_ORDER = 0.2
#: Errors below this, nats, are rounding, which no refinement can lessen.
ROUNDING = 1e-9
#: Tolerance at which a density is pictured or integrated.
COARSE = 1e-3
#: Tolerance at which places in a cell are compared, and the level of such solves.
LOOSE, LOOSER = 1e-4, -1
#: Cells of the model's draws, and places in each, that tell how far fewer places may be off.
CELLS, PLACES = 64, 16
#: Draws that are given up together where one of them fails.
FEW_DRAWS = 8
#: How much finer float64 is than float32.
FLOAT64_FINER = 2.0**-29

#: Hears how many rows are done, of how many.
OnRows = Callable[[int, int], None]


@dataclass(frozen=True)
class Regime:
    """How a solver behaves under refinement, over draws of the model.

    `order` is the number of digits that the median error gains from one refinement, and `error` that error
    at the tolerance itself, nats, both in float64. `rounding` is what the arithmetic adds to it.
    """

    order: float
    error: float
    rounding: float

    @property
    def is_convergent(self) -> bool:
        """Whether the solve follows its tolerance, so that differences of solves tell its error."""
        return self.order >= LEAST_ORDER or self.error < ROUNDING


def local_error(scores: Scores) -> Tensor:
    """The solver's own estimate `(n,)`, in units that only a calibration knows; ones where it has none."""
    if scores.local_error is None:
        return torch.ones_like(scores.log_prob)
    return scores.local_error.clamp_min(torch.finfo(torch.float64).tiny)


def covering_factor(change: Tensor, local: Tensor) -> float:
    """What local errors (n,) have to be multiplied by, and `ROUNDING` added to, to cover changes (n,).

    Rows that change by rounding alone, as those do which the background holds, tell nothing of it. NaN where
    no change is known.
    """
    tells = change > ROUNDING
    if len(change) and bool(change.isnan().all()):
        return math.nan
    if not bool(tells.any()):
        return 0.0
    return torch.quantile((change - ROUNDING)[tells] / local[tells], COVERED).item()


def _reach(each: Tensor, *, paired: bool) -> Tensor:
    """How far the mean of draws `(k, n)`, or of pairs of them, may be off in 1 of 100 cases: `(n,)`."""
    if paired:
        # Places come in pairs, whose means differ by less than they do.
        each = (each[::2] + each[1::2]) / 2
    return float(student.ppf(0.995, len(each) - 1)) / math.sqrt(len(each)) * each.std(0)


class Ladder:
    """A model under its solver, at level 0, under ever finer ones, and under a `LOOSER` one.

    A `strict` one stops at the first batch whose solve fails. Another goes on: then `solve` names all the
    rows that fail, `attempt` does without them, and the model's own draws that fail count for nothing.
    """

    def __init__(
        self,
        model: DensityModel,
        options: EvaluationOptions,
        dequantiser: Dequantiser,
        on_rows: OnRows = lambda done, total: None,
        *,
        strict: bool = True,
    ) -> None:
        self.options = options
        self.strict = strict
        self.dequantiser = dequantiser
        self.is_stochastic = not DIVERGENCES.get(options.divergence.name).exact
        self.model = model
        self.on_rows = on_rows
        self._models: dict[tuple[int, torch.dtype], DensityModel] = {}
        self._scores: dict[tuple[int, torch.dtype], Scores] = {}
        self._drawn: tuple[Tensor, Scores] | None = None

    @property
    def draws(self) -> int:
        """How many solves a row's log-likelihood is the mean of."""
        draws = self.options.trace_draws if self.is_stochastic else 1
        if not self.dequantiser:
            return draws
        return max(draws + draws % 2, self.options.dequantisation_draws)

    @property
    def averaged(self) -> str:
        """What those solves differ by: the probes of a trace, places in cells, or nothing."""
        drawn = {"trace": self.is_stochastic, "dequantisation": bool(self.dequantiser)}
        return "_and_".join(name for name, is_drawn in drawn.items() if is_drawn)

    def solve(self, x: Tensor, level: int, draw: int = 0) -> Scores:
        """Scores of the caller's rows `x: (n, d)`, with the probes and places in cells of one `draw`.

        Raises `IntegrationError` if a solve fails, whose `rows` are places in `x`; if strict, at once.
        """
        model = self._at(level, self._dtype(level))
        parts, failed = [], dict[int, str]()
        for start in range(0, len(x), model.chunk):
            rows = x[start : start + model.chunk]
            rows = torch.from_numpy(self.dequantiser.spread(rows.numpy(), draw, self.draws))
            # The same probes at every level, so that solves differ by their steps alone.
            solve = partial(_seeded, model, start + draw)
            try:
                parts.append(solve(rows))
            except IntegrationError as error:
                if self.strict:
                    raise _naming_rows(error, start, len(rows)) from None
                causes = failing_rows(solve, rows, error)
                failed |= {start + place: cause for place, cause in causes.items()}
            self.on_rows(start + len(rows), len(x))
        if failed:
            raise IntegrationError(f"the solves of {len(failed)} of {len(x)} rows failed", rows=failed)
        return Scores.join(parts)

    def attempt(self, x: Tensor, level: int) -> tuple[Scores, dict[int, str]]:
        """`solve`, with NaN for rows that fail, and why each did, unless the ladder is strict."""
        if self.strict:
            return self.solve(x, level), {}
        kept, scores, failed = past_failures(len(x), lambda rows: self.solve(x[rows], level))
        return spread_scores(scores, kept, len(x)), failed

    def average(self, x: Tensor, first: Tensor, *, with_error: bool = True) -> tuple[Tensor, Tensor | float]:
        """The mean over all draws, (n,), and how far that may be off; `first: (n,)` is draw 0.

        `with_error` says whether the second is wanted, which takes solves of the model's draws.

        Where only places in cells are drawn, by how much they differ is found out in looser solves
        (multilevel Monte Carlo, Giles 2008), whose errors count. So does by how much so few places are off
        in cells of the model's draws, some of which may hold an edge of the density.
        """
        draws = self.draws
        if draws == 1:
            return first.clone(), 0.0
        if self.is_stochastic:
            each = torch.stack([first, *(self.solve(x, 0, draw).log_prob for draw in range(1, draws))])
            return each.mean(0), _reach(each, paired=bool(self.dequantiser))
        places = [self.solve(x, LOOSER, draw) for draw in range(draws)]
        each = torch.stack([scores.log_prob for scores in places])
        loose = torch.stack([local_error(scores) for scores in places])
        mean = first + (each.mean(0) - each[0])
        # A density that is zero somewhere in a cell leaves no difference.
        mean = torch.where(mean.isnan(), each.mean(0), mean)
        if not with_error:
            return mean, 0.0
        error = _reach(each, paired=True) + self._missed + self._looseness * (loose.mean(0) + loose[0])
        return mean, error.nan_to_num(nan=math.inf)

    @cached_property
    def _looseness(self) -> float:
        """What a looser solve's local error has to be multiplied by to cover what it is off."""
        loose, reference = self._reference(LOOSER, torch.float64), self._reference(0, torch.float64)
        if loose.nfe is None:
            return 0.0
        return covering_factor((loose.log_prob - reference.log_prob).abs(), local_error(loose))

    @cached_property
    def _missed(self) -> float:
        """By how much more than they tell a row's places are off, in cells of the model's draws."""
        x = torch.from_numpy(self.dequantiser.restore(self._references()[0][:CELLS].numpy()))
        x = x[torch.isfinite(x).all(1)]
        if not len(x):
            return 0.0
        few, many = (
            torch.stack([self._placed(x, draw, draws) for draw in range(draws)])
            for draws in (self.draws, PLACES)
        )
        off = (few.mean(0) - many.mean(0)).abs() - _reach(few, paired=True)
        return max(torch.quantile(off.nan_to_num(nan=0.0), COVERED).item(), 0.0)

    def _placed(self, x: Tensor, draw: int, draws: int) -> Tensor:
        rows = torch.from_numpy(self.dequantiser.spread(x.numpy(), draw, draws))
        return self._score_draws(self._at(LOOSER, torch.float64), rows).log_prob

    def error(self, scores: Scores, finer: Tensor, level: int) -> Tensor:
        """How far `scores` of n rows at `level` may be off, (n,), from those one level `finer: (n,)`."""
        reference = self._reference(level)
        moved = (reference.log_prob - self._reference(level + 1).log_prob).abs()
        typical = moved.nanmedian() / local_error(reference).nanmedian()
        change = self.change(scores.log_prob, finer, level)
        bound: Tensor = SAFETY * change + FLOOR * typical * local_error(scores)
        return bound

    def change(self, log_prob: Tensor, finer: Tensor, level: int) -> Tensor:
        """How far the solves one level `finer` moved n rows, (n,), and would have with no error left."""
        # What the finer solve still lacks, as a share of what it brought.
        rest = 10.0 ** -self._digits(level)
        change: Tensor = (log_prob - finer).abs() / (1 - rest)
        return change

    def _digits(self, level: int) -> float:
        """The digits that one refinement brings, within reason."""
        return min(max(self.regime(level).order, LEAST_ORDER), 4.0)

    def regime(self, level: int) -> Regime:
        """The median errors at `level` and one finer, both against a solve that is finer still."""
        coarse, fine, finest = (self._reference(level + k, torch.float64).log_prob for k in range(3))
        errors = [(one - finest).abs().nanmedian().clamp_min(1e-300).item() for one in (coarse, fine)]
        if self.options.dtype == "float32":
            rounding = (self._reference(level).log_prob - coarse).abs().nanmedian().item()
        else:
            rounding = self._rounding
        return Regime(math.log10(errors[0] / errors[1]), errors[0], rounding)

    def factor_of_draws(self) -> float:
        """What a draw's local error has to be multiplied by to cover how far its log-likelihood is off."""
        x, drawn = self._references()
        # Draws carry the exact divergence, whatever rows are scored with.
        finest = self._score_draws(self.model.for_evaluation(self.options.integrator.refined(2)), x).log_prob
        rest = 10.0 ** (-2 * self._digits(0))
        return covering_factor((drawn.log_prob - finest).abs() / (1 - rest), local_error(drawn))

    def way_back(self) -> float:
        """How far the log-likelihood that a draw comes with is from that of the row that was drawn."""
        x, drawn = self._references()
        if not len(x):
            return math.inf
        scored = self.model.for_evaluation(self.options.integrator).score(x).log_prob
        return torch.quantile((drawn.log_prob - scored).abs(), COVERED).item()

    def arithmetic(self, dtype: str) -> float:
        """What rounding adds to a row's error in `dtype`: of float32 a refined solve in float64 tells."""
        if dtype == "float32":
            return 0.0
        rounding = self._rounding
        return rounding if math.isfinite(rounding) else ROUNDING

    @cached_property
    def _rounding(self) -> float:
        """How much the draws move in float32, scaled to the precision of float64.

        At a coarse tolerance where float32 cannot be solved at the options'; infinite if not there either, or
        where there are no draws.
        """
        if not len(self._references()[0]):
            return math.inf
        for solve in (self._reference_in, self._coarse_reference_in):
            with suppress(IntegrationError):
                moved = (solve(torch.float32) - solve(torch.float64)).abs().max().item()
                if math.isfinite(moved):
                    return moved * FLOAT64_FINER
        return math.inf

    def _reference_in(self, dtype: torch.dtype) -> Tensor:
        return self._reference(0, dtype).log_prob

    def _coarse_reference_in(self, dtype: torch.dtype) -> Tensor:
        coarse = self.options.integrator.coarsened(COARSE)
        model = self.model.for_evaluation(coarse, divergence=self.options.divergence, dtype=dtype)
        return self._score_draws(model, self._references()[0]).log_prob

    def _dtype(self, level: int) -> torch.dtype:
        """A refined solve is in float64, so that the change tells of rounding as well."""
        dtype: torch.dtype = getattr(torch, self.options.dtype) if level == 0 else torch.float64
        return dtype

    def _at(self, level: int, dtype: torch.dtype) -> DensityModel:
        if (level, dtype) not in self._models:
            given = self.options.integrator
            integrator = given.coarsened(LOOSE) if level == LOOSER else given.refined(level)
            self._models[level, dtype] = self.model.for_evaluation(
                integrator, divergence=self.options.divergence, dtype=dtype
            )
        return self._models[level, dtype]

    def _references(self) -> tuple[Tensor, Scores]:
        """The draws, (m, d), with their scores, but for those of which a flow makes no numbers."""
        if self._drawn is None:
            model = self.model.for_evaluation(self.options.integrator)
            x, scores = self._draw(model, REFERENCES, torch.Generator().manual_seed(0))
            finite = torch.isfinite(x).all(1) & torch.isfinite(scores.log_prob)
            self._drawn = x[finite], scores.of(finite)
        return self._drawn

    def _reference(self, level: int, dtype: torch.dtype | None = None) -> Scores:
        key = level, dtype or self._dtype(level)
        if key not in self._scores:
            self._scores[key] = self._score_draws(self._at(*key), self._references()[0])
        return self._scores[key]

    def _draw(self, model: DensityModel, n: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        """`n` draws with their scores, or fewer where some fail and the ladder is not strict."""
        try:
            return model.draw(n, generator)
        except IntegrationError:
            if self.strict:
                raise
        nothing = torch.zeros(0, len(model.columns), dtype=torch.float64)
        parts = [(nothing, Scores(nothing[:, 0]))]
        for size in chunk_sizes(n, FEW_DRAWS):
            with suppress(IntegrationError):
                parts.append(model.draw(size, generator))
        return torch.cat([x for x, _ in parts]), Scores.join([scores for _, scores in parts])

    def _score_draws(self, model: DensityModel, x: Tensor) -> Scores:
        """Scores of draws `x: (n, d)`; NaN for those that fail, where the ladder is not strict."""
        # The same probes every time, where the divergence has any.
        solve = partial(_seeded, model, 1)
        if self.strict:
            return solve(x)

        def named(rows: Tensor) -> Scores:
            try:
                return solve(x[rows])
            except IntegrationError as error:
                raise IntegrationError(str(error), rows=failing_rows(solve, x[rows], error)) from None

        kept, scores, _ = past_failures(len(x), named)
        return spread_scores(scores, kept, len(x))


def _seeded(model: DensityModel, seed: int, x: Tensor) -> Scores:
    return model.score(x, torch.Generator().manual_seed(seed))


def _naming_rows(error: IntegrationError, start: int, n: int) -> IntegrationError:
    """The same error, which also says of which rows a solve failed, and what to do about it."""
    return IntegrationError(
        f"rows {start + 1} to {start + n} of those scored, as one batch: {error}; or look there for "
        "values far outside the table that the run was fitted on, and leave their rows out",
        cause=error.cause,
        rows={start + place: cause for place, cause in error.rows.items()},
    )
