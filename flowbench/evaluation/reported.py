"""Log-likelihoods that are reported, each with an error that adds up its sources."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.failures import past_failures, spread
from flowbench.evaluation.rounding import ROUNDING, last_digits
from flowbench.evaluation.solver_error import Regime, covering_factor, local_error
from flowbench.evaluation.solver_levels import OnRows, SolverLevels
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows

#: Rounds rows `(n, d)`, data units, to values that their table can hold.
Restore = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Refined rows with a change beyond rounding that are enough to find the covering factor. If there are
#: fewer, the factor is at least that of draws of the model.
TELLING = 50
#: The most rows that are refined where a row's number is a mean: the error of the mean is far larger.
AVERAGED_ERROR_ROWS = 500
#: The most refinements of a row that misses `max_error`.
MAX_REFINEMENTS = 6


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods `log_prob: (n,)`, float64, nats, data units, and the error `error: (n,)` of each, nats.

    About 99 in 100 rows are off by less than their error. An error that is unknown is infinite.

    `flagged: (n,)` marks rows that miss a `max_error` even at the finest solve. `failed` holds the rows whose
    solve failed, by number, and the cause of each: their `log_prob` and `error` are NaN. `unrefined` holds
    the rows whose finer solve failed, and the cause of each: their error is unknown. `nfe` is the number of
    evaluations of the slowest row. `shift` is how far a refined solve moves the mean of the refined rows,
    nats. `nfe`, `shift` and `regime` are None for a model that solves no equation.

    `parts` are the terms, `(n,)` each, that `error` is the sum of, by name. "solver" is the error of the
    steps; with float32 it is "solver_and_arithmetic". "arithmetic" is rounding. "trace", "dequantisation" and
    "trace_and_dequantisation" are the error of a mean over few solves. It is empty for draws of the model.
    """

    log_prob: Tensor
    error: Tensor
    flagged: Tensor
    nfe: int | None = None
    shift: float | None = None
    regime: Regime | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    unrefined: Mapping[int, str] = field(default_factory=dict)


@torch.no_grad()
def reported_likelihoods(
    model: DensityModel,
    x: Tensor,
    options: EvaluationOptions,
    *,
    context: Tensor | None = None,
    on_rows: OnRows = lambda done, total: None,
    strict: bool = True,
) -> Likelihoods:
    """Score `x: (n, d)`, data units, given `context: (n, c)`, with each row's error, as `score_rows` does.

    If not `strict`, rows whose solve fails are named in the result and the others are scored.
    """
    return score_rows(ErrorBudget(model, options, on_rows, strict=strict), Rows(x, context))


@torch.no_grad()
def mean_log_prob(budget: ErrorBudget, rows: Rows) -> Tensor:
    """The log-likelihoods `(n,)` of `score_rows`, without the solves that only errors need.

    A row above `max_error` is not refined. Raises `IntegrationError` if a solve fails.
    """
    averaging = budget.averaging
    first = budget.levels.solve(averaging.place(rows), 0)
    return averaging.mean(rows, first, averaging.solves(rows, first))


@torch.no_grad()
def score_rows(budget: ErrorBudget, rows: Rows) -> Likelihoods:
    """Score n `rows`, data units, with the error of each row.

    The error adds up three terms: that of the solver, that of rounding, and that of the mean, if a row's
    number is the mean of several solves (`averaging`).

    `error_rows` rows, chosen at random, are solved again at a tenth of the tolerance. If numbers are means,
    they are at most `AVERAGED_ERROR_ROWS`. The solver's error of such a row is a multiple of its change. That
    of another row is the sum of the solver's local errors, times the factor that covers the changes of all
    but the rarest of the refined rows (`solver_error`). Rounding is measured on draws of the model, and
    larger for a log-likelihood that is a large number (`rounding`). A row above `max_error` is replaced by
    ever finer solves until it is below, if its number is no mean.

    With the solver `per-row` and an exact divergence, a row's log-likelihood does not depend on the other
    rows. Nor does the error of a refined row: what is typical is found on draws of the model.

    Raises `IntegrationError`, which names the rows, if a solve fails and the budget is strict. If it is not
    strict, rows that fail are left out and the others are scored again. Their numbers are the same as without
    the rows that fail.
    """
    if budget.levels.strict:
        return _score_rows(budget, rows)
    n = len(rows)
    kept, found, failed = past_failures(n, lambda places: _score_rows(budget, rows[places]))
    if found is None:
        lost = torch.full((n,), math.nan, dtype=torch.float64)
        return Likelihoods(lost, lost.clone(), torch.zeros(n, dtype=torch.bool), failed=failed)
    flagged = torch.zeros(n, dtype=torch.bool)
    flagged[kept] = found.flagged
    return replace(
        found,
        log_prob=spread(found.log_prob, kept, n),
        error=spread(found.error, kept, n),
        flagged=flagged,
        parts={name: spread(part, kept, n) for name, part in found.parts.items()},
        failed=failed,
        unrefined={int(kept[row]): cause for row, cause in found.unrefined.items()},
    )


def _score_rows(budget: ErrorBudget, rows: Rows) -> Likelihoods:
    """`score_rows`, which raises `IntegrationError` if a first solve fails, strict or not."""
    options, levels, averaging = budget.options, budget.levels, budget.averaging
    places = averaging.place(rows)
    first = levels.solve(places, 0)
    parts = {"arithmetic": budget.rounding.part(options.dtype) + last_digits(first.log_prob)}
    solves = averaging.solves(rows, first)
    log_prob = averaging.mean(rows, first, solves)
    if averaging.name:
        parts[averaging.name] = averaging.error(solves)
    if first.nfe is None:
        if options.dtype == "float32":
            parts["arithmetic"] = (
                parts["arithmetic"] + (levels.solve(places, 1).log_prob - first.log_prob).abs()
            )
        return _add_up(options.max_error, log_prob, parts)
    few = options.error_rows if averaging.draws == 1 else min(options.error_rows, AVERAGED_ERROR_ROWS)
    refined = _chosen(len(rows), few, levels.model.chunk if averaging.is_stochastic else 1)
    finer, causes = levels.attempt(places[refined], 1)
    solver = _solver_part(budget, first, refined, finer.log_prob)
    kept = torch.ones(len(finer.log_prob), dtype=torch.bool)
    kept[list(causes)] = False
    shift = (finer.log_prob - first.log_prob[refined])[kept].mean().item()
    if options.max_error is not None and averaging.draws == 1:
        lost = torch.zeros_like(refined)
        lost[refined.nonzero().squeeze(1)[list(causes)]] = True
        _tighten(budget, places, log_prob, solver, options.max_error - parts["arithmetic"], lost)
    # A refined solve is in float64, so that its change includes the rounding of float32.
    name = "solver" if options.dtype == "float64" else "solver_and_arithmetic"
    found = _add_up(options.max_error, log_prob, parts | {name: solver})
    numbers = refined.nonzero().squeeze(1).tolist()
    unrefined = {numbers[place]: cause for place, cause in causes.items()}
    regime = budget.solver.regime(0)
    return replace(found, nfe=first.nfe, shift=shift, regime=regime, unrefined=unrefined)


def _solver_part(budget: ErrorBudget, first: Scores, refined: Tensor, finer: Tensor) -> Tensor:
    """The solver's error `(n,)` of the rows with scores `first` at level 0.

    `refined: (n,)` marks the k rows that were solved one level `finer: (k,)`.
    """
    solver = torch.empty_like(first.log_prob)
    solver[refined] = budget.solver.bound(first.of(refined), finer, 0)
    if not bool(refined.all()):
        scale = local_error(first)
        change = budget.solver.change(first.log_prob[refined], finer, 0)
        # A row of zero density has no change. One whose finer solve failed has a change that is not known.
        scored = first.log_prob[refined].isfinite()
        change = change[scored]
        factor = covering_factor(change, scale[refined][scored])
        if int((change > ROUNDING).sum()) < TELLING:
            factor = max(factor, budget.solver.factor_of_draws)
        solver[~refined] = factor * scale[~refined] + ROUNDING
    return solver


def _tighten(
    budget: ErrorBudget, rows: Rows, log_prob: Tensor, error: Tensor, bound: Tensor, lost: Tensor
) -> None:
    """Solve rows whose `error: (n,)` is above `bound: (n,)` ever finer, in place, until it is not.

    `lost: (n,)` marks rows whose finer solve has failed before; they keep their number and their error.
    """
    levels: SolverLevels = budget.levels
    for level in range(1, MAX_REFINEMENTS):
        above = ((error > bound) & ~lost).nonzero().squeeze(1)
        if not len(above):
            return
        (coarse, failed), (finer, failed_finer) = (
            levels.attempt(rows[above], each) for each in (level, level + 1)
        )
        # A row whose finer solve fails keeps its number and its error.
        told = torch.ones_like(above, dtype=torch.bool)
        told[[*failed, *failed_finer]] = False
        lost[above[~told]] = True
        log_prob[above[told]] = coarse.log_prob[told]
        error[above[told]] = budget.solver.bound(coarse, finer.log_prob, level)[told]


def _chosen(n: int, count: int, chunk: int) -> Tensor:
    """Which `count` of n rows are refined, `(n,)`; the same ones every time.

    With `chunk` > 1 they are the rows of the first chunks. The probes of a row follow from its chunk, and
    have to be the same in both solves.
    """
    place = torch.arange(n)
    if chunk > 1:
        return place < -(-count // chunk) * chunk
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)) < count


@torch.no_grad()
def draw_rows(
    budget: ErrorBudget,
    n: int,
    generator: torch.Generator,
    restore: Restore | None = None,
    *,
    context: Tensor | None = None,
) -> tuple[Tensor, Likelihoods]:
    """Draw `n` rows `(n, d)`, data units, with the log-likelihood and the error of each.

    A conditional model draws one for each row of `context: (n, c)`, data units.

    The rows are not solved again. The solver's error is the sum of its local errors, times the factor that
    covers the changes of reference draws. If the model solves nothing, the error is the difference between
    the log-likelihood from the way there and that from the way back, on reference draws.

    Values of dequantised columns are moved to the middles of their cells. Such rows, and those with periodic
    columns, are scored as `score_rows` does. `restore` rounds rows to what their table can hold; they are
    scored as rounded.

    Raises `IntegrationError` if a solve fails.
    """
    options, levels = budget.options, budget.levels
    exact = levels.exact_model()
    if levels.model.encoder.has_places or levels.model.encoder.circle:
        x = levels.model.restore(exact.sample_places(n, generator, context=context), context)
        if restore is not None:
            x = torch.from_numpy(restore(x.numpy()))
        return x, _likelihoods_of_draws(budget, Rows(x, context))
    parts = []
    done = 0
    for size in _chunk_sizes(n, exact.chunk):
        given = None if context is None else context[done : done + size]
        parts.append(exact.draw_places(size, generator, context=given))
        done += size
        levels.on_rows(done, n)
    x, scores = torch.cat([part[0] for part in parts]), Scores.join([part[1] for part in parts])
    if restore is not None:
        x = torch.from_numpy(restore(x.numpy()))
        # A draw that is not finite would stop the solve of its batch. Its score is dropped below.
        scores = levels.solve_exactly(Rows(x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), context))
    error = budget.rounding.part("float64") + last_digits(scores.log_prob)
    if scores.nfe is None:
        # Rows that were rounded have been scored on the way back.
        error += 0.0 if restore else budget.rounding.round_trip
    else:
        error += budget.solver.factor_of_draws * local_error(scores) + ROUNDING
    # A draw that is not finite has no log-likelihood.
    lost = ~torch.isfinite(x).all(1)
    log_prob, error = scores.log_prob.masked_fill(lost, math.nan), error.masked_fill(lost, math.inf)
    return x, Likelihoods(log_prob, error, _above(error, options.max_error), scores.nfe)


def _likelihoods_of_draws(budget: ErrorBudget, rows: Rows) -> Likelihoods:
    """`score_rows` of n draws; a draw that is not finite gets NaN and an infinite error."""
    finite = torch.isfinite(rows.x).all(1)
    log_prob, error = (rows.x.new_full((len(rows),), value) for value in (math.nan, math.inf))
    nfe = None
    if bool(finite.any()):
        found = score_rows(budget, rows[finite])
        log_prob[finite], error[finite], nfe = found.log_prob, found.error, found.nfe
    return Likelihoods(log_prob, error, _above(error, budget.options.max_error), nfe)


def _add_up(bound: float | None, log_prob: Tensor, parts: Mapping[str, Tensor]) -> Likelihoods:
    """Likelihoods whose error is the sum of `parts`, flagged above `bound`."""
    error = torch.stack(list(parts.values())).sum(0)
    return Likelihoods(log_prob, error, _above(error, bound), parts=parts)


def _above(error: Tensor, bound: float | None) -> Tensor:
    """Which errors `(n,)` are above `bound`, NaN among them; none without a bound."""
    return torch.zeros_like(error, dtype=torch.bool) if bound is None else ~(error <= bound)


def _chunk_sizes(n: int, most: int) -> Iterator[int]:
    """`n` in parts of `most` and a rest."""
    for start in range(0, n, most):
        yield min(most, n - start)
