"""Runge-Kutta pairs with steps for every row, so that no row depends on its batch."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode import dense_output, step_control
from flowbench.ode.integrator import InitialValueProblem, Integrator, IntegratorOptions, Solution, State
from flowbench.ode.tableau import DOPRI5, TSIT5, Tableau

#: A row fails if its steps get shorter than this share of the whole interval.
LEAST_STEP = 1e-30

TABLEAUX: dict[str, Tableau] = {"dopri5": DOPRI5, "tsit5": TSIT5}


class PerRowOptions(IntegratorOptions):
    """Method, tolerances, and the cap on calls of the derivative."""

    name: Literal["per-row"] = "per-row"
    method: Literal["dopri5", "tsit5"] = "dopri5"
    atol: float = Field(1e-6, gt=0)
    rtol: float = Field(1e-6, gt=0)
    max_nfe: int = Field(10_000, ge=2 + DOPRI5.cost)


class PerRowIntegrator(Integrator):
    """A 5(4) pair of Dormand and Prince (1980) or Tsitouras (2011), row by row; no gradients.

    Each row has its own time, step and error control. The local error of a row is measured as torchdiffeq
    measures a batch's: the largest, over the tensors of the state, of the root mean square of error / (atol +
    rtol |y|). Step control is that of Hairer, Norsett and Wanner 1993, II.4. Rows that have arrived leave the
    batch with their `args`. So do rows that fail: the solve goes on without them, and the `IntegrationError`
    at its end names them all. `f` gets one time per row, (n,), and must compute every row from that row
    alone. Then a row's solution does not depend on the rows beside it beyond floating-point rounding. Between
    its steps a row's solution is the pair's own dense output.
    """

    Options: ClassVar[type[IntegratorOptions]] = PerRowOptions
    row_steps: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False
    options: PerRowOptions

    def __init__(self, options: PerRowOptions) -> None:
        self.options = options

    def _solve(self, problem: InitialValueProblem) -> Solution:
        tensors = (*problem.state, *problem.args, *problem.parameters)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise ConfigurationError(
                "the per-row engine gives no gradients; call it under torch.no_grad(), "
                "or choose the engine `native` or `torchdiffeq`"
            )
        with torch.no_grad():
            return self._march(_System(problem, self.options))

    def _march(self, system: "_System") -> Solution:
        rows = _start(system)
        end, local_error = torch.empty_like(rows.y), torch.zeros_like(rows.y)
        rounds = accepted = rejected = 0
        failed = _Failed()
        while len(rows.index):
            if system.nfe + system.tableau.cost > self.options.max_nfe:
                _meet_cap(system, rows, failed)
                break
            rounds += 1
            remaining = system.span - rows.elapsed
            last = step_control.STRETCH * rows.step >= remaining
            step = torch.where(last, remaining, rows.step)
            y, slopes, off = _take_step(system, rows, step)
            error = system.norm(off, torch.maximum(rows.y.abs(), y.abs()))
            # A row with a non-finite state is rejected like one that is too inaccurate.
            error = torch.where(torch.isfinite(error), error, torch.inf)
            accept = error <= 1
            taken = rows.index[accept]
            local_error[taken] += off[accept].abs()
            done = accept & last
            if len(system.times):
                _interpolate(system, rows, step, slopes, accept, done)
            rows = rows.advance(step, y, slopes[-1], error, accept)
            # At the start no step is too small to change the elapsed time, so `LEAST_STEP` bounds it.
            least = rows.elapsed + LEAST_STEP * system.span
            # If the slope is NaN, so is the next step.
            stuck = ~done & ~(rows.elapsed + rows.step > least)
            if bool(done.any()):
                end[rows.index[done]] = rows.y[done]
                accepted = max(accepted, int(rows.accepted[done].max()))
                rejected = max(rejected, rounds - int(rows.accepted[done].min()))
            if bool(stuck.any()):
                _give_up(system, rows, stuck, error, failed)
            if bool((done | stuck).any()):
                rows = rows.keep(~(done | stuck))
        if failed.causes:
            raise IntegrationError(failed.message, cause=failed.first, rows=failed.causes)
        return Solution(
            system.split(end),
            system.nfe,
            accepted,
            rejected,
            system.split(local_error),
            system.split(system.at_times) if len(system.times) else None,
        )


class _System:
    """The rows' equation in elapsed time s >= 0: t = t0 + s or t0 - s; the state as one matrix (n, D)."""

    def __init__(self, problem: InitialValueProblem, options: PerRowOptions) -> None:
        self.problem = problem
        self.t0 = problem.t0
        self.t1 = problem.t1
        self.span = abs(self.t1 - self.t0)
        self.sign = 1.0 if self.t1 > self.t0 else -1.0
        self.options = options
        self.nfe = 0
        self.shapes = [part.shape[1:] for part in problem.state]
        self.start = torch.cat([part.reshape(len(part), -1) for part in problem.state], dim=1)
        widths = [shape.numel() for shape in self.shapes]
        self.ends = list(accumulate(widths))[:-1]
        # (n, D) @ (D, tensors) averages the columns of each tensor of the state.
        owners = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
        self.averages = (one_hot(owners) / torch.tensor(widths)).to(self.start)
        self.tableau = TABLEAUX[options.method]
        self.stages = [self.start.new_tensor(row) for row in self.tableau.stages]
        self.weighs = self.tableau.weighs(dense=bool(problem.times))
        self.error_weights = self.start.new_tensor(self.tableau.error or ())
        self.room = self.start.new_empty(len(self.error_weights) * self.start.numel())
        # Elapsed times (k,), and the states at them (k, n, D).
        self.times = self.start.new_tensor(problem.times, dtype=torch.float64).sub_(self.t0).mul_(self.sign)
        self.at_times = self.start.new_empty(len(self.times), *self.start.shape)

    def slopes(self, y: Tensor) -> Tensor:
        """Memory for the slopes (stages, m, D) of one step of rows `y` (m, D), reused by the next step."""
        size = len(self.error_weights) * y.numel()
        return self.room[:size].view(-1, *y.shape)

    def slope(
        self, elapsed: Tensor, y: Tensor, args: State, out: Tensor | None = None, *, weighed: bool = True
    ) -> Tensor:
        """dy/ds (m, D) at the elapsed times (m,) of m rows with their `args`; see `InitialValueProblem`."""
        self.nfe += 1
        t = (self.t0 + self.sign * elapsed).to(y.dtype)
        derivative = self.problem.derivative(t, self.split(y), args, weighed=weighed)
        parts = [part.reshape(len(part), -1) for part in derivative]
        return torch.cat(parts, dim=1, out=out).mul_(self.sign)

    def split(self, y: Tensor) -> State:
        """The matrix (..., n, D) as the tensors of the state, (..., n, *shape)."""
        parts = y.tensor_split(self.ends, dim=-1)
        return tuple(
            part.reshape(*y.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def norm(self, vector: Tensor, magnitude: Tensor) -> Tensor:
        """Each row's norm (n,) of `vector` in units of the tolerance at `magnitude`, both (n, D)."""
        ratio = vector / (self.options.atol + self.options.rtol * magnitude)
        largest: Tensor = (ratio.square() @ self.averages).amax(1)
        return largest.sqrt().double()

    def where(self, rows: "_Rows", position: int) -> str:
        """The beginning of an error message for the row at `position` in the remaining batch."""
        t = self.t0 + self.sign * float(rows.elapsed[position])
        return (
            f"the per-row solve (atol={self.options.atol:g}, rtol={self.options.rtol:g}) from t={self.t0:g} "
            f"to t={self.t1:g} stopped in row {int(rows.index[position]) + 1} of the batch at t={t:g} "
            f"after {self.nfe} evaluations: it"
        )


@dataclass
class _Failed:
    """The rows that failed, with the cause of each, by their index in the batch, and the first message."""

    causes: dict[int, str] = field(default_factory=dict)
    message: str = ""

    @property
    def first(self) -> str:
        return next(iter(self.causes.values()), "")

    def add(self, rows: Tensor, cause: str, message: str) -> None:
        """Record that `rows: (m,)` failed, by index; only the first `message` is kept."""
        self.causes |= dict.fromkeys(rows.tolist(), cause)
        self.message = self.message or message


@dataclass(frozen=True)
class _Rows:
    """The rows that have not arrived; every tensor's first axis is the row. Times are float64."""

    index: Tensor
    args: State
    y: Tensor
    slope: Tensor
    elapsed: Tensor
    step: Tensor
    last_error: Tensor
    accepted: Tensor

    def keep(self, mask: Tensor) -> Self:
        """The rows where `mask` holds."""
        at = mask.nonzero().squeeze(1)
        return type(self)(
            index=self.index[at],
            args=tuple(constant[at] for constant in self.args),
            y=self.y[at],
            slope=self.slope[at],
            elapsed=self.elapsed[at],
            step=self.step[at],
            last_error=self.last_error[at],
            accepted=self.accepted[at],
        )

    def advance(self, step: Tensor, y: Tensor, slope: Tensor, error: Tensor, accept: Tensor) -> Self:
        """Advance the rows of `accept`, and choose every row's next step from its `error`."""
        column = accept[:, None]
        return type(self)(
            index=self.index,
            args=self.args,
            y=torch.where(column, y, self.y),
            slope=torch.where(column, slope, self.slope),
            elapsed=torch.where(accept, self.elapsed + step, self.elapsed),
            step=step * step_control.growth(error, self.last_error, accept),
            last_error=torch.where(accept, error.clamp(min=step_control.LEAST_ERROR), self.last_error),
            accepted=self.accepted + accept,
        )


def _start(system: _System) -> _Rows:
    """All rows at the start, each with a first step of its own."""
    y, args = system.start, system.problem.args
    zero = y.new_zeros(len(y), dtype=torch.float64)
    slope = system.slope(zero, y, args)
    magnitude = y.abs()
    speed = system.norm(slope, magnitude)
    trial = step_control.trial_step(system.norm(y, magnitude), speed, system.span)
    bend = system.slope(trial, y + trial.to(y)[:, None] * slope, args) - slope
    return _Rows(
        index=torch.arange(len(y), device=y.device),
        args=args,
        y=y,
        slope=slope,
        elapsed=zero,
        step=step_control.starting_step(trial, speed, system.norm(bend, magnitude), system.span),
        last_error=torch.full_like(zero, step_control.LEAST_ERROR),
        accepted=torch.zeros_like(zero, dtype=torch.int64),
    )


def _take_step(system: _System, rows: _Rows, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The state (m, D) after `step` (m,), the slopes (stages, m, D) and the estimated local error (m, D).

    Both pairs take their last stage at the step's end. The slopes are valid until the next step.
    """
    h = step.to(rows.y)[:, None]
    slopes = system.slopes(rows.y)
    flat = slopes.flatten(1)
    slopes[0] = rows.slope
    y = rows.y
    stages = zip(system.tableau.nodes, system.stages, system.weighs[1:], strict=True)
    for number, (node, weights, weighed) in enumerate(stages, start=1):
        y = torch.addcmul(rows.y, h, (weights @ flat[:number]).view_as(y))
        system.slope(rows.elapsed + node * step, y, rows.args, slopes[number], weighed=weighed)
    return y, slopes, h * (system.error_weights @ flat).view_as(y)


def _interpolate(
    system: _System, rows: _Rows, step: Tensor, slopes: Tensor, accept: Tensor, done: Tensor
) -> None:
    """Store the states at those times that lie within the step (m,) of a row of `accept`.

    For a row of `done` these are all the times that are left.
    """
    reached = torch.where(done, system.span, rows.elapsed + step)
    within = (system.times > rows.elapsed[:, None]) & (system.times <= reached[:, None]) & accept[:, None]
    row, number = within.nonzero(as_tuple=True)
    theta = (system.times[number] - rows.elapsed[row]) / step[row]
    shares = dense_output.weights(system.tableau, theta).to(slopes) * step[row].to(slopes)[:, None]
    system.at_times[number, rows.index[row]] = rows.y[row] + torch.einsum(
        "ps,spd->pd", shares, slopes[:, row]
    )


def _meet_cap(system: _System, rows: _Rows, failed: _Failed) -> None:
    """Record that all remaining rows failed at the cap on evaluations."""
    cause = f"met its cap of {system.options.max_nfe} evaluations"
    failed.add(
        rows.index,
        f"it {cause}",
        f"{system.where(rows, 0)} {cause} with {len(rows.index)} rows unfinished; raise `max_nfe`, or loosen "
        "`atol` and `rtol`",
    )


def _give_up(system: _System, rows: _Rows, stuck: Tensor, error: Tensor, failed: _Failed) -> None:
    """Record that the rows of `stuck: (m,)` failed, whose next step would not advance them.

    Their `error: (m,)` in this step decides the cause.
    """
    finite = torch.isfinite(error)
    kinds = (
        (
            stuck & finite,
            "underflowed its step",
            ": the velocity changes faster than `atol` and `rtol` can follow; loosen them, or integrate in "
            "float64",
        ),
        (
            stuck & ~finite,
            "met a velocity that is not finite",
            "; check that row for outliers, and the model's parameters",
        ),
    )
    for which, cause, advice in kinds:
        if bool(which.any()):
            where = system.where(rows, int(which.nonzero()[0]))
            failed.add(rows.index[which], f"it {cause}", f"{where} {cause}{advice}")
