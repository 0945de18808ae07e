"""Log-likelihoods that are reported, each with its error, by refined solves and draws of the model."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.stats import t as student
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.evaluation.options import EvaluationOptions
from flowbench.flows.base import Scores
from flowbench.flows.density_model import CHUNK, DensityModel
from flowbench.options import PartOptions
from flowbench.registry import DIVERGENCES

#: Draws of the model by which its errors are calibrated, whatever rows are scored.
REFERENCES = 200
#: Of a row's error, the share of a typical one that it has at least: two solves may agree by accident.
FLOOR = 1.0
#: How much more than it changed a row may be off: refinements are not equally good for all rows.
SAFETY = 1.5
#: Share of the refined rows that a bound for those which are not refined has to hold for.
COVERED = 0.993
#: So many rows tell that share; beside fewer, draws of the model have a say.
TELLING = 50
#: Refinements of a row that misses `max_error`, at most; each is a tenth of the tolerance.
MAX_REFINEMENTS = 6
#: Digits that a refinement has to bring. A tenth of the tolerance brings about one, twice the steps of Euler
#: log10(2).
LEAST_ORDER = 0.2
#: Errors below this, nats, are rounding, which no refinement can lessen.
ROUNDING = 1e-9
#: Tolerance at which a density is pictured or integrated.
COARSE = 1e-3
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


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods `log_prob: (n,)`, float64, nats, data units, and `error: (n,)` of each, nats.

    About 99 in 100 rows are off by less than their error. `flagged: (n,)` marks rows that miss a `max_error`
    even at the finest solve. `shift` is how far a refined solve moves the mean of the rows that it was tried
    on, nats. `nfe`, `shift` and `regime` are None for a model that solves no equation.
    """

    log_prob: Tensor
    error: Tensor
    flagged: Tensor
    nfe: int | None = None
    shift: float | None = None
    regime: Regime | None = None


@torch.no_grad()
def reported_likelihoods(
    model: DensityModel,
    x: Tensor,
    options: EvaluationOptions,
    *,
    on_rows: OnRows = lambda done, total: None,
) -> Likelihoods:
    """Score `x: (n, d)` in data units, and say how far each number may be off.

    `error_rows` rows, chosen by chance, are solved again at a tenth of the tolerance: a row's error is the
    change, and a share of what is typical of the model. The others have no such change; theirs is the
    solver's own sum of local errors, times the factor that covers all but the rarest of the rows that have
    both. Rounding, measured on draws, counts for more where a log-likelihood is a large number. Where the
    divergence is estimated, `trace_draws` solves with other probes give the mean, and its error; where it is
    exact, a row above `max_error` gives way to ever finer refinements, until it is below.

    With the solver `per-row` and an exact divergence a row's log-likelihood does not depend on the rows
    beside it, nor does the error of a refined one: what is typical is found out on draws of the model.
    Raises `IntegrationError` if a solve fails, which names the rows.
    """
    ladder = _Ladder(model, options, on_rows)
    first = ladder.solve(x, 0)
    arithmetic = ladder.arithmetic() + _last_digits(first.log_prob)
    if first.nfe is None:
        error = arithmetic
        if options.dtype == "float32":
            error += (ladder.solve(x, 1).log_prob - first.log_prob).abs()
        return Likelihoods(first.log_prob, error, _above(error, options.max_error))
    log_prob, trace = ladder.average(x, first.log_prob)
    refined = _chosen(len(x), options.error_rows, in_chunks=ladder.is_stochastic)
    finer = ladder.solve(x[refined], 1).log_prob
    error = torch.empty_like(log_prob)
    error[refined] = ladder.error(_part(first, refined), finer, 0)
    shift = (finer - first.log_prob[refined]).mean().item()
    if not bool(refined.all()):
        scale = _local(first)
        change = ladder.change(first.log_prob[refined], finer, 0)
        factor = _factor(change, scale[refined])
        if int((change > ROUNDING).sum()) < TELLING:
            factor = max(factor, ladder.factor_of_draws())
        error[~refined] = factor * scale[~refined] + ROUNDING
    error += trace + arithmetic
    if options.max_error is not None and not ladder.is_stochastic:
        _tighten(ladder, x, log_prob, error, options.max_error)
    flagged = _above(error, options.max_error)
    return Likelihoods(log_prob, error, flagged, first.nfe, shift, ladder.regime(0))


@torch.no_grad()
def drawn_likelihoods(
    model: DensityModel,
    n: int,
    options: EvaluationOptions,
    generator: torch.Generator,
    *,
    on_rows: OnRows = lambda done, total: None,
) -> tuple[Tensor, Likelihoods]:
    """Draw `n` rows `(n, d)`, data units, with their log-likelihoods and the error of each.

    The rows are not solved again: an error is the solver's own sum of local errors, times the factor that
    covers all but the rarest of some draws which are. Where nothing is solved, it is by how much the way
    back differs. Raises `IntegrationError` if a solve fails.
    """
    ladder = _Ladder(model, options, on_rows)
    exact = model.for_evaluation(options.integrator)
    parts = []
    for start in range(0, n, CHUNK):
        parts.append(exact.draw(min(CHUNK, n - start), generator))
        on_rows(min(start + CHUNK, n), n)
    x, scores = torch.cat([part[0] for part in parts]), Scores.join([part[1] for part in parts])
    error = ladder.arithmetic() + _last_digits(scores.log_prob)
    if scores.nfe is None:
        error += ladder.way_back()
    else:
        error += ladder.factor_of_draws() * _local(scores) + ROUNDING
    return x, Likelihoods(scores.log_prob, error, _above(error, options.max_error), scores.nfe)


def _tighten(ladder: "_Ladder", x: Tensor, log_prob: Tensor, error: Tensor, bound: float) -> None:
    """Solve rows whose `error: (n,)` is above `bound` ever finer, in place, until it is not."""
    for level in range(1, MAX_REFINEMENTS):
        above = error > bound
        if not bool(above.any()):
            return
        coarse, finer = ladder.solve(x[above], level), ladder.solve(x[above], level + 1).log_prob
        log_prob[above] = coarse.log_prob
        error[above] = ladder.error(coarse, finer, level) + ladder.arithmetic()


def _chosen(n: int, count: int, *, in_chunks: bool) -> Tensor:
    """Which `count` of n rows are refined, (n,), the same ones every time.

    `in_chunks` for rows whose probes are drawn chunk by chunk, and have to be the same in both solves: the
    first chunks that hold as many.
    """
    place = torch.arange(n)
    if in_chunks:
        return place < -(-count // CHUNK) * CHUNK
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)) < count


def _above(error: Tensor, bound: float | None) -> Tensor:
    return torch.zeros_like(error, dtype=torch.bool) if bound is None else ~(error <= bound)


def _last_digits(log_prob: Tensor) -> Tensor:
    """What a log-likelihood (n,), float64, may lose for its size alone."""
    eps = torch.finfo(torch.float64).eps
    return 4 * eps * log_prob.abs().nan_to_num(nan=0.0, posinf=0.0)


def _part(scores: Scores, rows: Tensor) -> Scores:
    return Scores(scores.log_prob[rows], scores.nfe, _local(scores)[rows])


def _local(scores: Scores) -> Tensor:
    """The solver's own estimate `(n,)`, in units that only a calibration knows; ones where it has none."""
    if scores.local_error is None:
        return torch.ones_like(scores.log_prob)
    return scores.local_error.clamp_min(torch.finfo(torch.float64).tiny)


def _factor(change: Tensor, local: Tensor) -> float:
    """What local errors (n,) have to be multiplied by, and `ROUNDING` added to, to cover changes (n,).

    Rows that change by rounding alone, as those do which the background holds, tell nothing of it.
    """
    tells = change > ROUNDING
    if not bool(tells.any()):
        return 0.0
    return torch.quantile((change - ROUNDING)[tells] / local[tells], COVERED).item()


class _Ladder:
    """A model under its solver, at level 0, and under ever finer ones."""

    def __init__(self, model: DensityModel, options: EvaluationOptions, on_rows: OnRows) -> None:
        self.options = options
        self.is_stochastic = not DIVERGENCES.get(options.divergence.name).exact
        self._model = model
        self._on_rows = on_rows
        self._models: dict[tuple[int, torch.dtype], DensityModel] = {}
        self._scores: dict[tuple[int, torch.dtype], Scores] = {}
        self._drawn: tuple[Tensor, Scores] | None = None

    def solve(self, x: Tensor, level: int, draw: int = 0) -> Scores:
        """Scores of the caller's rows `x: (n, d)`, with the probes of one `draw` if there are any."""
        model = self._at(level, self._dtype(level))
        parts = []
        for start in range(0, len(x), CHUNK):
            rows = x[start : start + CHUNK]
            # The same probes at every level, so that solves differ by their steps alone.
            with _naming_rows(start, len(rows)):
                parts.append(model.score(rows, torch.Generator().manual_seed(start + draw)))
            self._on_rows(start + len(rows), len(x))
        return Scores.join(parts)

    def average(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor | float]:
        """The mean over all draws of probes, (n,), and how far that may be off; `first: (n,)` is draw 0."""
        if not self.is_stochastic:
            return first.clone(), 0.0
        draws = self.options.trace_draws
        each = torch.stack([first, *(self.solve(x, 0, draw).log_prob for draw in range(1, draws))])
        reach = float(student.ppf(0.995, draws - 1)) / math.sqrt(draws)
        return each.mean(0), reach * each.std(0)

    def error(self, scores: Scores, finer: Tensor, level: int) -> Tensor:
        """How far `scores` of n rows at `level` may be off, (n,), from those one level `finer: (n,)`."""
        reference = self._reference(level)
        moved = (reference.log_prob - self._reference(level + 1).log_prob).abs()
        typical = moved.median() / _local(reference).median()
        change = self.change(scores.log_prob, finer, level)
        bound: Tensor = SAFETY * change + FLOOR * typical * _local(scores)
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
        errors = [(one - finest).abs().median().clamp_min(1e-300).item() for one in (coarse, fine)]
        if self.options.dtype == "float32":
            rounding = (self._reference(level).log_prob - coarse).abs().median().item()
        else:
            rounding = self._rounding
        return Regime(math.log10(errors[0] / errors[1]), errors[0], rounding)

    def factor_of_draws(self) -> float:
        """What a draw's local error has to be multiplied by to cover how far its log-likelihood is off."""
        x, drawn = self._references()
        # Draws carry the exact divergence, whatever rows are scored with.
        finest = self._model.for_evaluation(refine(self.options.integrator, 2)).score(x).log_prob
        rest = 10.0 ** (-2 * self._digits(0))
        return _factor((drawn.log_prob - finest).abs() / (1 - rest), _local(drawn))

    def way_back(self) -> float:
        """How far the log-likelihood that a draw comes with is from that of the row that was drawn."""
        x, drawn = self._references()
        scored = self._model.for_evaluation(self.options.integrator).score(x).log_prob
        return torch.quantile((drawn.log_prob - scored).abs(), COVERED).item()

    def arithmetic(self) -> float:
        """What rounding adds to a row's error: nothing where a refined solve in float64 tells of it."""
        if self.options.dtype == "float32":
            return 0.0
        rounding = self._rounding
        return rounding if math.isfinite(rounding) else ROUNDING

    @cached_property
    def _rounding(self) -> float:
        """How much the draws move in float32, scaled to the precision of float64.

        At a coarse tolerance where float32 cannot be solved at the options'; infinite if not there either.
        """
        for solve in (self._reference_in, self._coarse_reference_in):
            with suppress(IntegrationError):
                moved = (solve(torch.float32) - solve(torch.float64)).abs().max().item()
                if math.isfinite(moved):
                    return moved * FLOAT64_FINER
        return math.inf

    def _reference_in(self, dtype: torch.dtype) -> Tensor:
        return self._reference(0, dtype).log_prob

    def _coarse_reference_in(self, dtype: torch.dtype) -> Tensor:
        coarse = coarsen(self.options.integrator)
        model = self._model.for_evaluation(coarse, divergence=self.options.divergence, dtype=dtype)
        return model.score(self._references()[0], torch.Generator().manual_seed(1)).log_prob

    def _dtype(self, level: int) -> torch.dtype:
        """A refined solve is in float64, so that the change tells of rounding as well."""
        dtype: torch.dtype = getattr(torch, self.options.dtype) if level == 0 else torch.float64
        return dtype

    def _at(self, level: int, dtype: torch.dtype) -> DensityModel:
        if (level, dtype) not in self._models:
            self._models[level, dtype] = self._model.for_evaluation(
                refine(self.options.integrator, level), divergence=self.options.divergence, dtype=dtype
            )
        return self._models[level, dtype]

    def _references(self) -> tuple[Tensor, Scores]:
        """The draws, (m, d), with their scores."""
        if self._drawn is None:
            model = self._model.for_evaluation(self.options.integrator)
            self._drawn = model.draw(REFERENCES, torch.Generator().manual_seed(0))
        return self._drawn

    def _reference(self, level: int, dtype: torch.dtype | None = None) -> Scores:
        key = level, dtype or self._dtype(level)
        if key not in self._scores:
            # The same probes every time, where the divergence has any.
            self._scores[key] = self._at(*key).score(self._references()[0], torch.Generator().manual_seed(1))
        return self._scores[key]


@contextmanager
def _naming_rows(start: int, n: int) -> Iterator[None]:
    """Say of which rows a solve failed, and what to do about it."""
    try:
        yield
    except IntegrationError as error:
        raise IntegrationError(
            f"rows {start + 1} to {start + n} of those scored, as one batch: {error}; or look there for "
            "values far outside the table that the run was fitted on, and leave their rows out"
        ) from None


def refine(integrator: PartOptions, level: int = 1) -> PartOptions:
    """The same solver at a tenth of the tolerance, or with twice the steps on a fixed grid, `level` times."""
    values = integrator.model_dump()
    # A cap on evaluations is meant for the solver as it was given.
    values["max_nfe"] *= 2**level
    if values.get("steps"):
        return type(integrator)(**{**values, "steps": values["steps"] * 2**level})
    tolerances = {name: values[name] * 0.1**level for name in ("atol", "rtol")}
    return type(integrator)(**{**values, **tolerances})


def coarsen(integrator: PartOptions) -> PartOptions:
    """The same solver as loose as `COARSE`, unless it is looser: for pictures and integrals, in float32.

    A fixed grid stays as it is.
    """
    values = integrator.model_dump()
    tolerances = {name: max(values[name], COARSE) for name in ("atol", "rtol")}
    return type(integrator)(**{**values, **tolerances})
