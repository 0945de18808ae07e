"""The integrators of torchdiffeq (Chen, Rubanova, Bettencourt and Duvenaud 2018), one step for all rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import (
    Derivative,
    InitialValueProblem,
    Integrator,
    IntegratorOptions,
    Solution,
    State,
    all_finite,
)
from flowbench.ode.stepped import SteppedOptions

Adaptive = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
FixedGrid = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams"]

Method = Literal[Adaptive, FixedGrid]

FIXED_GRID_METHODS: tuple[str, ...] = get_args(FixedGrid)

#: Adaptive methods whose interpolation is as accurate as their steps; for the others its order is lower.
INTERPOLATING = ("dopri5", "adaptive_heun")

# torchdiffeq's own default of 12 is unstable at all but tiny steps.
ADAMS_ORDER = 5


class TorchdiffeqOptions(SteppedOptions):
    """Method, tolerances, cap on evaluations, and how gradients are computed.

    `steps` is the number of equal steps of a fixed-grid method. `seminorm` leaves the parameters' gradients
    out of the step control of an adjoint solve (Kidger, Chen and Lyons 2021).
    """

    fixed_grid: ClassVar[tuple[str, ...]] = FIXED_GRID_METHODS
    name: Literal["torchdiffeq"] = "torchdiffeq"
    method: Method = "dopri5"
    gradient: Literal["backprop", "adjoint"] = "backprop"
    seminorm: bool = True


class TorchdiffeqIntegrator(Integrator):
    """torchdiffeq as an `Integrator`: one step size for the whole batch, differentiable.

    Adaptive solves end exactly on `t1` instead of stepping past it and interpolating, and `f` is never called
    for a time outside [t0, t1]. Gradients go through the solver's operations ("backprop") or through the
    continuous adjoint equation ("adjoint"). Within a step the solution is torchdiffeq's own interpolation: a
    quartic, or Hermite's cubic on a fixed grid. Adaptive methods that are not in `INTERPOLATING` end a step
    on each time instead.
    """

    Options: ClassVar[type[IntegratorOptions]] = TorchdiffeqOptions
    row_steps: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    options: TorchdiffeqOptions

    def __init__(self, options: TorchdiffeqOptions) -> None:
        self.options = options

    def _solve(self, problem: InitialValueProblem) -> Solution:
        if self.options.gradient == "backprop" or not torch.is_grad_enabled():
            return self._backprop(problem)
        if not problem.parameters:
            _refuse_hidden_parameters(problem)
        if not any(constant.grad_fn for constant in problem.args):
            return self._adjoint(problem)
        return _solve_apart(problem, self._adjoint)

    def _backprop(self, problem: InitialValueProblem) -> Solution:
        monitor, times = self._monitor(problem), _all_times(problem)
        path = odeint(
            monitor,
            problem.state,
            times,
            rtol=self.options.rtol,
            atol=self.options.atol,
            method=self.options.method,
            options=self._grid(problem, self._stops(times)) | self._interpolation(problem),
        )
        return monitor.finish(path)

    def _adjoint(self, problem: InitialValueProblem) -> Solution:
        monitor, times = self._monitor(problem), _all_times(problem)
        # The adjoint solve runs from each time to the one before, in torchdiffeq's own increasing time.
        stops = times if problem.t0 < problem.t1 else -times
        norm = {"norm": "seminorm"} if self.options.seminorm else {}
        constants = (constant for constant in problem.args if constant.requires_grad)
        # A tensor that is given twice would get its gradient twice.
        wanted = {id(tensor): tensor for tensor in (*problem.parameters, *constants)}
        path = odeint_adjoint(
            monitor,
            problem.state,
            times,
            rtol=self.options.rtol,
            atol=self.options.atol,
            method=self.options.method,
            options=self._grid(problem, self._stops(times)) | self._interpolation(problem),
            adjoint_options=self._grid(problem, stops[:-1]) | norm,
            adjoint_params=tuple(wanted.values()),
        )
        for part in path:
            if part.requires_grad:
                part.register_hook(monitor.begin_adjoint)
        return monitor.finish(path)

    def _monitor(self, problem: InitialValueProblem) -> "_Monitor":
        if self.options.adaptive:
            return _AdaptiveMonitor(problem, self.options)
        return _GridMonitor(problem, self.options) if problem.times else _Monitor(problem, self.options)

    def _grid(self, problem: InitialValueProblem, stops: Tensor) -> dict[str, object]:
        """torchdiffeq's options for solves of the problem, or of parts of it, that end on `stops` (k,)."""
        steps = self.options.steps
        if steps is None:
            return {"step_t": stops}
        span = abs(problem.t1 - problem.t0)

        def equal_steps(f: Derivative, state: Tensor, t: Tensor) -> Tensor:
            begin, end = t[0].item(), t[-1].item()
            count = max(1, round(steps * abs(end - begin) / span))
            return torch.linspace(begin, end, count + 1, dtype=t.dtype, device=t.device)

        grid: dict[str, object] = {"grid_constructor": equal_steps}
        return grid | {"max_order": ADAMS_ORDER} if self.options.method.endswith("adams") else grid

    def _stops(self, times: Tensor) -> Tensor:
        """Those of all `times` on which a step of an adaptive method has to end."""
        return times[-1:] if self.options.method in INTERPOLATING else times[1:]

    def _interpolation(self, problem: InitialValueProblem) -> dict[str, object]:
        """The interpolation option of a fixed grid; torchdiffeq's default there is linear."""
        return {"interp": "cubic"} if problem.times and not self.options.adaptive else {}


def _all_times(problem: InitialValueProblem) -> Tensor:
    times = (problem.t0, *problem.times, problem.t1)
    return torch.tensor(times, dtype=torch.float64, device=problem.state[0].device)


class _Monitor:
    """Counts and caps the calls of `f`; torchdiffeq calls it back at every step."""

    def __init__(self, problem: InitialValueProblem, options: TorchdiffeqOptions) -> None:
        self.problem = problem
        self.options = options
        self.t0 = problem.t0
        self.t1 = problem.t1
        self.nfe = 0
        self.steps = 0
        self.rejected = 0
        self.solve = "solve"

    def __call__(self, t: Tensor, state: State) -> State:
        # The starting-step rule may look beyond the end of the solve. And without `detach` torchdiffeq's
        # adjoint would compute a gradient for every time, though the ends are plain numbers.
        t = t.detach().clamp(min(self.t0, self.t1), max(self.t0, self.t1))
        if self.nfe >= self.options.max_nfe:
            raise IntegrationError(
                f"{self._where(t.item())} met its cap of {self.options.max_nfe} evaluations; "
                f"raise `max_nfe`, loosen `atol` and `rtol`, or, in training, lower the learning rate",
                cause=f"it met its cap of {self.options.max_nfe} evaluations",
            )
        self.nfe += 1
        return self.problem.derivative(t, state, self.problem.args)

    def finish(self, path: State) -> Solution:
        """The solution; `path` holds the states at t0, at the problem's times and at t1, (k, *shape) each."""
        end = tuple(part[-1] for part in path)
        self.check_finite(self.t1, end)
        within = tuple(part[1:-1] for part in path) if self.problem.times else None
        return Solution(end, self.nfe, self.steps - self.rejected, self.rejected, at_times=within)

    def begin_adjoint(self, gradient: Tensor) -> None:
        """Called when gradients arrive: each adjoint solve is counted and capped on its own."""
        self.nfe = 0
        self.solve = "adjoint solve"

    def callback_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Called by torchdiffeq before each step of the forward solve."""
        self.steps += 1
        # torchdiffeq computes its first step from f; that choice is not part of the solution's gradient.
        dt.detach_()
        self._check_step(t.item(), state, dt.item())

    def callback_step_adjoint(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Called by torchdiffeq before each step of the adjoint solve, in its own increasing time."""
        self._check_step(t.item() if self.t0 < self.t1 else -t.item(), state, dt.item())

    def check_finite(self, t: float, state: State) -> None:
        """Raise if the state is not finite."""
        if not all_finite(state):
            raise IntegrationError(
                f"{self._where(t)} left the finite numbers; "
                f"check the rows for outliers, take more steps, or, in training, lower the learning rate",
                cause="it left the finite numbers",
            )

    def _check_step(self, t: float, state: State, dt: float) -> None:
        self.check_finite(t, state)
        if t + dt == t or t - dt == t:
            # torchdiffeq takes a step of exactly zero when the last one's error was not a number.
            cause = "underflowed its step" if dt else "met a velocity that is not finite on its next step"
            advice = (
                f" ({dt:g}): the velocity changes faster than `atol` and `rtol` can "
                f"follow in {state[0].dtype}; loosen them, integrate in float64"
                if dt
                else "; check the rows for outliers"
            )
            raise IntegrationError(
                f"{self._where(t)} {cause}{advice}, or, in training, lower the learning rate",
                cause=f"it {cause}",
            )

    def _where(self, t: float) -> str:
        options = self.options
        return (
            f"the {self.solve} with {options.method} (atol={options.atol:g}, rtol={options.rtol:g}) between "
            f"t={self.t0:g} and t={self.t1:g} stopped at t={t:g} after {self.nfe} evaluations: it"
        )


class _AdaptiveMonitor(_Monitor):
    """A monitor that counts rejected steps.

    Fixed grids never reject, and torchdiffeq warns of a callback that is never used.
    """

    def callback_reject_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Called by torchdiffeq after each step that was too inaccurate."""
        self.rejected += 1


class _GridMonitor(_Monitor):
    """A monitor that reuses the last slope, for Hermite's cubic on a fixed grid.

    The cubic needs the slope at a step's end, which is also the first slope of the next step.
    """

    def __init__(self, problem: InitialValueProblem, options: TorchdiffeqOptions) -> None:
        super().__init__(problem, options)
        self.last: tuple[float, State, State] | None = None
        self.has_solved = False

    def __call__(self, t: Tensor, state: State) -> State:
        if self.has_solved:
            return super().__call__(t, state)
        # torchdiffeq calls twice with the same tensors, and changes none of them in place.
        if self.last is not None:
            time, place, slope = self.last
            same = zip(place, state, strict=True)
            if t.item() == time and all(one.data_ptr() == other.data_ptr() for one, other in same):
                return slope
        slope = super().__call__(t, state)
        self.last = t.item(), state, slope
        return slope

    def finish(self, path: State) -> Solution:
        """See `_Monitor`; an adjoint solve differentiates each slope, and so needs it computed anew."""
        self.last, self.has_solved = None, True
        return super().finish(path)


class _Apart(torch.autograd.Function):
    """The outputs of a solve as a function of its tensors, with an autograd graph of its own inside."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[], tuple[State, State]], *tensors: Tensor) -> State:
        with torch.enable_grad():
            ctx.leaves, ctx.outputs = solve()
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        places = [place for place, leaf in enumerate(ctx.leaves) if leaf.requires_grad]
        wanted = [ctx.leaves[place] for place in places]
        found = torch.autograd.grad(ctx.outputs, wanted, gradients, allow_unused=True, retain_graph=True)
        by_place = dict(zip(places, found, strict=True))
        return None, *(by_place.get(place) for place in range(len(ctx.leaves)))


def _solve_apart(problem: InitialValueProblem, solve: Callable[[InitialValueProblem], Solution]) -> Solution:
    """`solve` with `args` that are leaves of their own graph.

    The adjoint equation gives gradients to `args` beside those to the parameters. If `args` were computed
    from parameters, these would get that part of their gradient twice.
    """
    solved: list[Solution] = []

    def apart() -> tuple[State, State]:
        state, args = (
            tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors)
            for tensors in (problem.state, problem.args)
        )
        solved.append(solve(replace(problem, state=state, args=args)))
        outputs = (*solved[0].state, *(solved[0].at_times or ()))
        return (*state, *args, *problem.parameters), outputs

    tensors = (*problem.state, *problem.args, *problem.parameters)
    outputs: State = _Apart.apply(apart, *tensors)  # type: ignore[no-untyped-call]
    count = len(problem.state)
    return replace(solved[0], state=outputs[:count], at_times=outputs[count:] or None)


def _refuse_hidden_parameters(problem: InitialValueProblem) -> None:
    """Raise `ConfigurationError` if `f` depends on parameters that are not listed.

    The adjoint method would silently give them a gradient of zero.
    """
    state, args = (tuple(part.detach() for part in parts) for parts in (problem.state, problem.args))
    with torch.enable_grad():
        derivative = problem.derivative(state[0].new_tensor(problem.t0), state, args)
    if any(part.requires_grad for part in derivative):
        raise ConfigurationError(
            "gradient=adjoint gives gradients only to the state, to `args` and to the tensors in "
            "`parameters`, which is empty, and the derivative depends on others; pass them, or use "
            "gradient=backprop"
        )
