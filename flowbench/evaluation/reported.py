"""Log-likelihoods that are reported, each with its error, by refined solves and draws of the model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.encoding.dequantiser import CONTINUOUS, Dequantiser
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.failures import past_failures, spread
from flowbench.evaluation.refinement import ROUNDING, Ladder, OnRows, Regime, covering_factor, local_error
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel, chunk_sizes

#: Rows `(n, d)`, data units, as those that their table can hold.
Restore = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: So many rows tell that share; beside fewer, draws of the model have a say.
TELLING = 50
#: Rows that are solved again where a row's number is a mean: what its draws leave open is far more than that.
AVERAGED_ERROR_ROWS = 500
#: Refinements of a row that misses `max_error`, at most; each is a tenth of the tolerance.
MAX_REFINEMENTS = 6


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods `log_prob: (n,)`, float64, nats, data units, and `error: (n,)` of each, nats.

    About 99 in 100 rows are off by less than their error. `flagged: (n,)` marks rows that miss a `max_error`
    even at the finest solve. `failed` holds the rows whose solve failed, by number, and why: these have NaN
    for both. `unrefined` holds those whose finer solve failed, of which no error is known: it is infinite.
    `shift` is how far a refined solve moves the mean of the rows that it was tried
    on, nats. `nfe`, `shift` and `regime` are None for a model that solves no equation. `parts`, (n,) each, by
    name, are what `error` is the sum of: `solver` (of float32 `solver_and_arithmetic`), `arithmetic`, and
    that of the draws which a row's number is the mean of, `trace` or `dequantisation` or, where it is both,
    `trace_and_dequantisation`; those of draws of the model are not told apart.
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
    dequantiser: Dequantiser = CONTINUOUS,
    on_rows: OnRows = lambda done, total: None,
    strict: bool = True,
) -> Likelihoods:
    """Score `x: (n, d)` in data units, and say how far each number may be off, as `score_rows` does.

    Unless it is to be `strict`, it goes on past rows whose solve fails.
    """
    return score_rows(Ladder(model, options, dequantiser, on_rows, strict=strict), x)


@torch.no_grad()
def drawn_likelihoods(
    model: DensityModel,
    n: int,
    options: EvaluationOptions,
    generator: torch.Generator,
    *,
    dequantiser: Dequantiser = CONTINUOUS,
    restore: Restore | None = None,
    on_rows: OnRows = lambda done, total: None,
) -> tuple[Tensor, Likelihoods]:
    """Draw `n` rows `(n, d)`, data units, with their log-likelihoods and errors, as `draw_rows` does."""
    return draw_rows(Ladder(model, options, dequantiser, on_rows), n, generator, restore)


@torch.no_grad()
def score_rows(ladder: Ladder, x: Tensor) -> Likelihoods:
    """Score `x: (n, d)` in data units, and say how far each number may be off.

    `error_rows` rows, chosen by chance, `AVERAGED_ERROR_ROWS` at most where a number is the mean of several
    solves, are solved again at a tenth of the tolerance: a row's error is the change, and a share of what is
    typical of the model. The others have no such change; theirs is the solver's own sum of local errors,
    times the factor that covers all but the rarest of the rows that have both. Rounding, measured on draws,
    counts for more where a log-likelihood is a large number. Where the divergence is estimated, `trace_draws`
    solves with other probes give the mean, and its error, and where columns are dequantised so do
    `dequantisation_draws` places in the row's cell. Where there is nothing to average, a row above
    `max_error` gives way to ever finer refinements, until it is below.

    With the solver `per-row` and an exact divergence a row's log-likelihood does not depend on the rows
    beside it, nor does the error of a refined one: what is typical is found out on draws of the model.

    Raises `IntegrationError` if a solve fails, which names the rows, where the ladder is strict. One that is
    not goes on: rows that fail are left out and the others scored again, at most twice as much work whatever
    their number, so that these get what they would have had without them.
    """
    if ladder.strict:
        return _score_rows(ladder, x)
    kept, found, failed = past_failures(len(x), lambda rows: _score_rows(ladder, x[rows]))
    if found is None:
        lost = x.new_full((len(x),), math.nan, dtype=torch.float64)
        return Likelihoods(lost, lost.clone(), torch.zeros(len(x), dtype=torch.bool), failed=failed)
    flagged = torch.zeros(len(x), dtype=torch.bool)
    flagged[kept] = found.flagged
    return replace(
        found,
        log_prob=spread(found.log_prob, kept, len(x)),
        error=spread(found.error, kept, len(x)),
        flagged=flagged,
        parts={name: spread(part, kept, len(x)) for name, part in found.parts.items()},
        failed=failed,
        unrefined={int(kept[row]): cause for row, cause in found.unrefined.items()},
    )


def _score_rows(ladder: Ladder, x: Tensor) -> Likelihoods:
    """`score_rows` where no first solve may fail."""
    options = ladder.options
    first = ladder.solve(x, 0)
    arithmetic = ladder.arithmetic(options.dtype) + _last_digits(first.log_prob)
    log_prob, spread = ladder.average(x, first.log_prob)
    parts = {"arithmetic": arithmetic}
    if ladder.averaged:
        parts[ladder.averaged] = torch.as_tensor(spread).expand_as(log_prob)
    if first.nfe is None:
        if options.dtype == "float32":
            parts["arithmetic"] = arithmetic + (ladder.solve(x, 1).log_prob - first.log_prob).abs()
        return _within(options.max_error, log_prob, parts)
    few = options.error_rows if ladder.draws == 1 else min(options.error_rows, AVERAGED_ERROR_ROWS)
    refined = _chosen(len(x), few, ladder.model.chunk if ladder.is_stochastic else 1)
    refinement, causes = ladder.attempt(x[refined], 1)
    finer = refinement.log_prob
    lost = torch.zeros_like(refined)
    lost[refined.nonzero().squeeze(1)[list(causes)]] = True
    solver = torch.empty_like(log_prob)
    solver[refined] = ladder.error(first.of(refined), finer, 0)
    shift = (finer - first.log_prob[refined])[~lost[refined]].mean().item()
    if not bool(refined.all()):
        scale = local_error(first)
        change = ladder.change(first.log_prob[refined], finer, 0)
        factor = covering_factor(change, scale[refined])
        if int((change > ROUNDING).sum()) < TELLING:
            factor = max(factor, ladder.factor_of_draws())
        solver[~refined] = factor * scale[~refined] + ROUNDING
    if options.max_error is not None and ladder.draws == 1:
        _tighten(ladder, x, log_prob, solver, options.max_error - arithmetic)
    # A refined solve is in float64, so that the change tells of float32's rounding as well.
    name = "solver" if options.dtype == "float64" else "solver_and_arithmetic"
    if not ladder.strict:
        solver = solver.masked_fill(solver.isnan() & log_prob.isfinite(), math.inf)
    found = _within(options.max_error, log_prob, parts | {name: solver})
    numbers = refined.nonzero().squeeze(1).tolist()
    unrefined = {numbers[place]: cause for place, cause in causes.items()}
    return replace(found, nfe=first.nfe, shift=shift, regime=ladder.regime(0), unrefined=unrefined)


@torch.no_grad()
def draw_rows(
    ladder: Ladder, n: int, generator: torch.Generator, restore: Restore | None = None
) -> tuple[Tensor, Likelihoods]:
    """Draw `n` rows `(n, d)`, data units, with their log-likelihoods and the error of each.

    The rows are not solved again: an error is the solver's own sum of local errors, times the factor that
    covers all but the rarest of some draws which are. Where nothing is solved, it is by how much the way
    back differs. Dequantised columns get the values of their cells back, and such rows are scored like any.
    `restore` rounds rows to what their table can hold, and they are scored as they are then.
    Raises `IntegrationError` if a solve fails.
    """
    options = ladder.options
    exact = ladder.model.for_evaluation(options.integrator)
    if ladder.dequantiser:
        drawn = ladder.dequantiser.restore(exact.draw(n, generator)[0].numpy())
        x = torch.from_numpy(drawn if restore is None else restore(drawn))
        return x, _likelihoods_of_draws(ladder, x)
    parts = []
    done = 0
    for size in chunk_sizes(n, exact.chunk):
        parts.append(exact.draw(size, generator))
        done += size
        ladder.on_rows(done, n)
    x, scores = torch.cat([part[0] for part in parts]), Scores.join([part[1] for part in parts])
    if restore is not None:
        x = torch.from_numpy(restore(x.numpy()))
        # A draw that is no number, as a flow may make, is none of a solve's rows.
        scores = ladder.solve(x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), 0)
    error = ladder.arithmetic("float64") + _last_digits(scores.log_prob)
    if scores.nfe is None:
        # Of rows that were rounded nothing is known from the way there.
        error += 0.0 if restore else ladder.way_back()
    else:
        error += ladder.factor_of_draws() * local_error(scores) + ROUNDING
    # Of a draw that is no number, as a flow may make, nothing is known.
    lost = ~torch.isfinite(x).all(1)
    log_prob, error = scores.log_prob.masked_fill(lost, math.nan), error.masked_fill(lost, math.inf)
    return x, Likelihoods(log_prob, error, _above(error, options.max_error), scores.nfe)


def _likelihoods_of_draws(ladder: Ladder, x: Tensor) -> Likelihoods:
    """Those of rows `x: (n, d)`; of one that is no number, as a flow may draw, nothing is known."""
    finite = torch.isfinite(x).all(1)
    log_prob, error = x.new_full((len(x),), math.nan), x.new_full((len(x),), math.inf)
    nfe = None
    if bool(finite.any()):
        found = score_rows(ladder, x[finite])
        log_prob[finite], error[finite], nfe = found.log_prob, found.error, found.nfe
    return Likelihoods(log_prob, error, _above(error, ladder.options.max_error), nfe)


def _tighten(ladder: Ladder, x: Tensor, log_prob: Tensor, error: Tensor, bound: Tensor) -> None:
    """Solve rows whose `error: (n,)` is above `bound: (n,)` ever finer, in place, until it is not."""
    lost = torch.zeros_like(error, dtype=torch.bool)
    for level in range(1, MAX_REFINEMENTS):
        above = ((error > bound) & ~lost).nonzero().squeeze(1)
        if not len(above):
            return
        (coarse, failed), (finer, failed_finer) = (
            ladder.attempt(x[above], each) for each in (level, level + 1)
        )
        # A row whose finer solve fails keeps what it has.
        told = torch.ones_like(above, dtype=torch.bool)
        told[[*failed, *failed_finer]] = False
        lost[above[~told]] = True
        log_prob[above[told]] = coarse.log_prob[told]
        error[above[told]] = ladder.error(coarse, finer.log_prob, level)[told]


def _chosen(n: int, count: int, chunk: int) -> Tensor:
    """Which `count` of n rows are refined, (n,), the same ones every time.

    Of rows whose probes are drawn by the `chunk`, and have to be the same in both solves, the first chunks
    that hold as many.
    """
    place = torch.arange(n)
    if chunk > 1:
        return place < -(-count // chunk) * chunk
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)) < count


def _within(bound: float | None, log_prob: Tensor, parts: Mapping[str, Tensor]) -> Likelihoods:
    error = torch.stack(list(parts.values())).sum(0)
    return Likelihoods(log_prob, error, _above(error, bound), parts=parts)


def _above(error: Tensor, bound: float | None) -> Tensor:
    return torch.zeros_like(error, dtype=torch.bool) if bound is None else ~(error <= bound)


def _last_digits(log_prob: Tensor) -> Tensor:
    """What a log-likelihood (n,), float64, may lose for its size alone."""
    eps = torch.finfo(torch.float64).eps
    return 4 * eps * log_prob.abs().nan_to_num(nan=0.0, posinf=0.0)
