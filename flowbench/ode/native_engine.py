"""Explicit Runge-Kutta methods with steps that all rows share, written for cheap backpropagation."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flowbench.errors import IntegrationError
from flowbench.ode import dense_output, step_control, tableau
from flowbench.ode.integrator import (
    Derivatives,
    InitialValueProblem,
    Integrator,
    IntegratorOptions,
    Solution,
    State,
)
from flowbench.ode.stepped import SteppedOptions

Adaptive = Literal["dopri5", "tsit5"]
FixedGrid = Literal["rk4", "heun", "midpoint", "euler"]

Method = Literal[Adaptive, FixedGrid]

FIXED_GRID_METHODS: tuple[str, ...] = get_args(FixedGrid)

# The first step as a multiple of that of Hairer, Norsett and Wanner, whose error is about a hundredth of the
# tolerance. Measured: benchmarks/DEFAULTS.md#first-step-of-the-native-engine.
BOLDNESS = 10.0

TABLEAUX: dict[Method, tableau.Tableau] = {
    "dopri5": tableau.DOPRI5,
    "tsit5": tableau.TSIT5,
    "rk4": tableau.RK4,
    "heun": tableau.HEUN,
    "midpoint": tableau.MIDPOINT,
    "euler": tableau.EULER,
}


class NativeOptions(SteppedOptions):
    """Method, tolerances, cap on evaluations, and gradient checkpointing.

    `steps` is the number of equal steps of a fixed-grid method. With `checkpoint` a step stores only its
    start, and is computed again in the backward pass.
    """

    fixed_grid: ClassVar[tuple[str, ...]] = FIXED_GRID_METHODS
    name: Literal["native"] = "native"
    method: Method = "dopri5"
    checkpoint: bool = False


class NativeIntegrator(Integrator):
    """Differentiable Runge-Kutta solvers: Dormand-Prince (1980), Tsitouras (2011), classical fixed steps.

    Gradients are computed by backpropagation through the accepted steps. Step sizes and error estimates are
    not differentiated. The norm of an error estimate is found in two stages. For each tensor of the state it
    is the root mean square of estimate / (atol + rtol |y|). Of these the largest is taken. Step control is
    that of Hairer, Norsett and Wanner 1993, II.4, but for a first step that is ten times as long. `f` is
    never called for a time outside [t0, t1], and the last step ends on t1. Within an adaptive step, the
    solution is interpolated by the method's own dense output. Methods with fixed steps use Hermite's cubic.
    """

    Options: ClassVar[type[IntegratorOptions]] = NativeOptions
    row_steps: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    options: NativeOptions

    def __init__(self, options: NativeOptions) -> None:
        self.options = options

    def _solve(self, problem: InitialValueProblem) -> Solution:
        march = _March(problem, self.options)
        steps = self.options.steps
        return march.adapt() if steps is None else march.through_grid(steps)


class _Step(NamedTuple):
    """The end of a step, the slope there, and the estimated error of the step, (N,) each.

    `within` holds the solution at the times in the step, (m, N); None if no times were asked for. On a fixed
    grid the slope at the end is computed only for these. The error has no graph, and is empty on a fixed
    grid.
    """

    end: Tensor
    slope: Tensor
    error: Tensor
    within: Tensor | None


class _March:
    """One solve; the tensors of the state are concatenated into one vector y (N,)."""

    def __init__(self, problem: InitialValueProblem, options: NativeOptions) -> None:
        self.problem = problem
        self.t0 = problem.t0
        self.t1 = problem.t1
        self.span = abs(self.t1 - self.t0)
        self.direction = 1.0 if self.t1 > self.t0 else -1.0
        self.options = options
        self.tableau = TABLEAUX[options.method]
        self.weighs = self.tableau.weighs(dense=bool(problem.times))
        self.shapes = [part.shape for part in problem.state]
        self.sizes = [part.numel() for part in problem.state]
        self.start = self.pack(problem.state)
        self.columns = list(_columns(self.tableau, self.start))
        self.saves_memory = options.checkpoint and torch.is_grad_enabled()
        self.pending = problem.times
        self.within: list[Tensor] = []
        self.nfe = 0
        self.accepted = 0
        self.rejected = 0

    def pack(self, state: State) -> Tensor:
        """The tensors of `state` as one vector (N,)."""
        if len(state) == 1:
            return state[0].reshape(-1)
        return torch.cat([part.reshape(-1) for part in state])

    def unpack(self, y: Tensor) -> State:
        """The inverse of `pack`."""
        # Called for every slope: `torch.split` does the same with more work in Python.
        parts = y.split_with_sizes(self.sizes)
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def fractions(self, t: float, after: float) -> tuple[float, ...]:
        """The pending times in the step from `t` to `after`, as fractions of it."""
        due = takewhile(lambda time: self.direction * (after - time) >= 0, self.pending)
        return tuple((time - t) / (after - t) for time in due)

    def accept(self, step: _Step) -> None:
        """Count an accepted step, and keep the solution at the times in it."""
        self.accepted += 1
        if step.within is not None:
            self.within.append(step.within)
            self.pending = self.pending[len(step.within) :]

    def slope(self, t: float, y: Tensor) -> Tensor:
        """dy/dt (N,)."""
        return self._slope(Derivatives(self.problem.f), self._times([t])[0], y)

    def _slope(self, at: Derivatives, time: Tensor, y: Tensor, *, weighed: bool = True) -> Tensor:
        """dy/dt (N,) by the derivatives `at` the `time`; for `weighed` see `InitialValueProblem`."""
        return self.pack(at.ask(time, self.unpack(y), self.problem.args, weighed=weighed))

    def _times(self, times: Sequence[float]) -> Tensor:
        low, high = min(self.t0, self.t1), max(self.t0, self.t1)
        # Rounding may put a sum of times beyond an end.
        inside = [min(max(t, low), high) for t in times]
        return torch.tensor(inside, dtype=self.start.dtype, device=self.start.device)

    def through_grid(self, steps: int) -> Solution:
        """The solution by equal steps."""
        t, y, slope = self.t0, self.start, None
        for number in range(1, steps + 1):
            after = self.t0 + (self.t1 - self.t0) * number / steps
            fractions = self.fractions(t, after)
            self._spend(self.tableau.cost - (slope is not None) + bool(fractions), t)
            step = self._take_step(t, after, y, slope, fractions)
            self._check_finite(after, step.end)
            self.accept(step)
            # If the slope at the end was computed for the interpolation, the next step starts with it.
            t, y, slope = after, step.end, step.slope if fractions else None
        return self._solution(y)

    def adapt(self) -> Solution:
        """The solution by steps that keep the error of each within the tolerance."""
        t, y = self.t0, self.start
        self._spend(2, t)
        slope = self.slope(t, y)
        length = self._starting_step(y.detach(), slope.detach())
        last_error = torch.full_like(length, step_control.LEAST_ERROR)
        while t != self.t1:
            self._spend(self.tableau.cost, t)
            remaining = abs(self.t1 - t)
            last = step_control.STRETCH * length.item() >= remaining
            size = remaining if last else length.item()
            after = self.t1 if last else t + self.direction * size
            step = self._take_step(t, after, y, slope, self.fractions(t, after))
            error = self._norm(step.error, torch.maximum(y.detach().abs(), step.end.detach().abs()))
            # A step with a non-finite state is rejected like one that is too inaccurate.
            error = torch.where(torch.isfinite(error), error, torch.inf)
            accept = error <= 1
            length = step_control.growth(error, last_error, accept) * size
            if accept:
                self._check_finite(after, step.end)
                t, y, slope = after, step.end, step.slope
                last_error = error.clamp(min=step_control.LEAST_ERROR)
                self.accept(step)
            else:
                self.rejected += 1
            self._check_step(t, self.direction * length.item(), bool(torch.isfinite(error)))
        return self._solution(y)

    def _take_step(
        self, t: float, after: float, y: Tensor, slope: Tensor | None, fractions: tuple[float, ...]
    ) -> _Step:
        if not self.saves_memory:
            return self._step(t, after, y, slope, fractions)
        # Derivatives are deterministic, so the state of the random generators need not be put back.
        step: _Step = checkpoint(
            self._step, t, after, y, slope, fractions, use_reentrant=False, preserve_rng_state=False
        )
        return step

    def _step(
        self, t: float, after: float, y: Tensor, slope: Tensor | None, fractions: tuple[float, ...]
    ) -> _Step:
        """The step from `t` to `after`, and the solution at `fractions` of it.

        `slope` is that at the start, if it is known.
        """
        h = after - t
        nodes = (0.0, *self.tableau.nodes) if slope is None else self.tableau.nodes
        times = self._times([after if node == 1 else t + node * h for node in nodes])
        stages = zip(
            self.problem.at(times), times.unbind(), self.weighs[len(self.weighs) - len(nodes) :], strict=True
        )
        if slope is None:
            now, time, counts = next(stages)
            slope = self._slope(now, time, y, weighed=counts)
        slopes = [slope]
        # Row i accumulates the input of the i-th later stage. Adding a slope to all remaining rows takes one
        # operation, forward and backward. A sum for each stage would take one operation for each of its
        # terms.
        sums = torch.addr(y, self.columns[0], slopes[0], alpha=h)
        for column, (now, time, counts) in zip(self.columns[1:], stages, strict=True):
            at, sums = sums.split_with_sizes([1, len(sums) - 1])
            # At the end of the solve the slope only enters the error and dense output, so it needs no
            # gradient.
            followed = len(column) > 0 or after != self.t1 or bool(fractions)
            with torch.set_grad_enabled(followed and torch.is_grad_enabled()):
                slopes.append(self._slope(now, time, at.squeeze(0), weighed=counts))
            if len(column):
                sums = torch.addr(sums, column, slopes[-1], alpha=h)
        end = (at if self.tableau.first_same_as_last else sums).squeeze(0)
        weights = self.tableau.error
        with torch.no_grad():
            error = h * (y.new_tensor(weights) @ torch.stack(slopes)) if weights else y.new_empty(0)
        within = None
        if fractions:
            if dense_output.needs_end_slope(self.tableau):
                slopes.append(self.slope(after, end))
            shares = dense_output.weights(self.tableau, torch.tensor(fractions, dtype=torch.float64))
            within = y + h * (shares.to(y) @ torch.stack(slopes))
        return _Step(end, slopes[-1], error, within)

    def _starting_step(self, y: Tensor, slope: Tensor) -> Tensor:
        with torch.no_grad():
            magnitude = y.abs()
            speed = self._norm(slope, magnitude)
            trial = step_control.trial_step(self._norm(y, magnitude), speed, self.span)
            ahead = self.direction * trial.item()
            bend = self._norm(self.slope(self.t0 + ahead, y + ahead * slope) - slope, magnitude)
            step = BOLDNESS * step_control.starting_step(trial, speed, bend, self.span)
            # If it is rejected, that costs no more than a second step would.
            return torch.where(step >= self.span / 2, self.span, step)

    def _norm(self, vector: Tensor, magnitude: Tensor) -> Tensor:
        """The norm () of `vector` in units of the tolerance at `magnitude`, on the CPU in float64."""
        ratio = vector / (self.options.atol + self.options.rtol * magnitude)
        squares = torch.stack([part.square().mean() for part in torch.split(ratio, self.sizes)])
        return squares.amax().sqrt().to("cpu", torch.float64)

    def _solution(self, y: Tensor) -> Solution:
        at_times = None
        if self.within:
            parts = torch.split(torch.cat(self.within), self.sizes, dim=1)
            at_times = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True))
        return Solution(self.unpack(y), self.nfe, self.accepted, self.rejected, at_times=at_times)

    def _spend(self, evaluations: int, t: float) -> None:
        """Count evaluations before they are made; those that checkpointing repeats are not counted."""
        if self.nfe + evaluations > self.options.max_nfe:
            raise IntegrationError(
                f"{self._where(t)} met its cap of {self.options.max_nfe} evaluations; "
                f"raise `max_nfe`, loosen `atol` and `rtol`, or, in training, lower the learning rate",
                cause=f"it met its cap of {self.options.max_nfe} evaluations",
            )
        self.nfe += evaluations

    def _check_finite(self, t: float, y: Tensor) -> None:
        if not bool(torch.isfinite(y.detach()).all()):
            raise IntegrationError(
                f"{self._where(t)} left the finite numbers; "
                f"check the rows for outliers, take more steps, or, in training, lower the learning rate",
                cause="it left the finite numbers",
            )

    def _check_step(self, t: float, step: float, finite: bool) -> None:
        if t + step != t:
            return
        cause = "underflowed its step" if finite else "met a velocity that is not finite on its next step"
        advice = (
            f" ({step:g}): the velocity changes faster than `atol` and `rtol` can "
            f"follow in {self.start.dtype}; loosen them, integrate in float64"
            if finite
            else "; check the rows for outliers"
        )
        raise IntegrationError(
            f"{self._where(t)} {cause}{advice}, or, in training, lower the learning rate", cause=f"it {cause}"
        )

    def _where(self, t: float) -> str:
        options = self.options
        return (
            f"the solve with {options.method} (atol={options.atol:g}, rtol={options.rtol:g}) between "
            f"t={self.t0:g} and t={self.t1:g} stopped at t={t:g} after {self.nfe} evaluations: it"
        )


def _columns(method: tableau.Tableau, like: Tensor) -> Iterator[Tensor]:
    """For each slope, its weights in the sums that still need it: (s,), (s - 1,), ..."""
    rows = method.stages if method.first_same_as_last else (*method.stages, method.solution)
    for slope in range(len(method.solution)):
        yield like.new_tensor([row[slope] for row in rows[slope:]]).detach()
