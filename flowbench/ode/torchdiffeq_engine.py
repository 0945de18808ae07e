"""The integrators of torchdiffeq (Chen, Rubanova, Bettencourt and Duvenaud 2018), one step for all rows."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from flowbench import options
from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import Derivative, Equation, Integrator, Solution, State, all_finite
from flowbench.ode.stepped import SteppedOptions

Adaptive = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
FixedGrid = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams"]

Method = Literal[Adaptive, FixedGrid]

FIXED_GRID_METHODS: tuple[str, ...] = get_args(FixedGrid)

# torchdiffeq's own default of 12 is unstable at all but tiny steps.
ADAMS_ORDER = 5


class TorchdiffeqOptions(SteppedOptions):
    """Method, accuracy, cap on evaluations, and how gradients are taken.

    `steps` is the number of equal steps of a fixed-grid method. `seminorm` leaves the parameters'
    gradients out of the step control of an adjoint solve (Kidger, Chen and Lyons 2021).
    """

    fixed_grid: ClassVar[tuple[str, ...]] = FIXED_GRID_METHODS
    name: Literal["torchdiffeq"] = "torchdiffeq"
    method: Method = "dopri5"
    gradient: Literal["backprop", "adjoint"] = "backprop"
    seminorm: bool = True


class TorchdiffeqIntegrator(Integrator):
    """torchdiffeq behind `Integrator`: one step size for the whole batch, differentiable.

    Adaptive solves end exactly on `t1` instead of stepping past it and interpolating, and `f` is never
    asked for a time outside [t0, t1]. Gradients go through the solver's operations ("backprop") or
    through the continuous adjoint equation ("adjoint").
    """

    Options: ClassVar[type[options.PartOptions]] = TorchdiffeqOptions
    options: TorchdiffeqOptions

    def __init__(self, options: TorchdiffeqOptions) -> None:
        self.options = options

    def _solve(
        self, f: Equation, state: State, t0: float, t1: float, parameters: tuple[Tensor, ...]
    ) -> Solution:
        options = self.options
        adjoint = options.gradient == "adjoint" and torch.is_grad_enabled()
        if adjoint and not parameters:
            _refuse_hidden_parameters(f, state, t0)
        monitored = (_AdaptiveMonitor if options.adaptive else _Monitor)(f, options, t0, t1)
        times = torch.tensor([t0, t1], dtype=torch.float64, device=state[0].device)
        arguments = {"rtol": options.rtol, "atol": options.atol, "method": options.method}
        if adjoint:
            # The adjoint runs in torchdiffeq's own, always increasing time.
            begin = times[:1] if t0 < t1 else -times[:1]
            norm = {"norm": "seminorm"} if options.seminorm else {}
            path = odeint_adjoint(
                monitored,
                state,
                times,
                options=self._grid(times[1:]),
                adjoint_options=self._grid(begin) | norm,
                adjoint_params=parameters,
                **arguments,
            )
        else:
            path = odeint(monitored, state, times, options=self._grid(times[1:]), **arguments)
        end = tuple(part[-1] for part in path)
        monitored.check_finite(t1, end)
        return monitored.finish(end)

    def _grid(self, end: Tensor) -> dict[str, object]:
        """torchdiffeq's options for a solve that ends at `end` (1,)."""
        steps = self.options.steps
        if steps is None:
            return {"step_t": end}

        def equal_steps(f: Derivative, state: Tensor, t: Tensor) -> Tensor:
            return torch.linspace(t[0].item(), t[-1].item(), steps + 1, dtype=t.dtype, device=t.device)

        grid: dict[str, object] = {"grid_constructor": equal_steps}
        return grid | {"max_order": ADAMS_ORDER} if self.options.method.endswith("adams") else grid


class _Monitor:
    """`f` with its calls counted and capped; torchdiffeq calls back at every step."""

    def __init__(self, f: Derivative, options: TorchdiffeqOptions, t0: float, t1: float) -> None:
        self.f = f
        self.options = options
        self.t0 = t0
        self.t1 = t1
        self.nfe = 0
        self.steps = 0
        self.rejected = 0
        self.solve = "solve"

    def __call__(self, t: Tensor, state: State) -> State:
        # The starting-step rule looks ahead without knowing where the solve ends; and torchdiffeq's adjoint
        # would work out a gradient for every time, though the ends are plain numbers.
        t = t.detach().clamp(min(self.t0, self.t1), max(self.t0, self.t1))
        if self.nfe >= self.options.max_nfe:
            raise IntegrationError(
                f"{self._where(t.item())} met its cap of {self.options.max_nfe} evaluations; "
                f"raise `max_nfe`, loosen `atol` and `rtol`, or, in training, lower the learning rate",
                cause=f"it met its cap of {self.options.max_nfe} evaluations",
            )
        self.nfe += 1
        return self.f(t, state)

    def finish(self, state: State) -> Solution:
        """The solution; later calls belong to the adjoint solve, which is counted and capped by itself."""
        solution = Solution(state, self.nfe, self.steps - self.rejected, self.rejected)
        self.nfe = 0
        self.solve = "adjoint solve"
        return solution

    def callback_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Called by torchdiffeq before each step of the forward solve."""
        self.steps += 1
        # torchdiffeq chooses its first step from f; that choice is no part of the answer's gradient.
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
    """Fixed grids never reject, and torchdiffeq warns of a callback that is never used."""

    def callback_reject_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Called by torchdiffeq after each step that was too inaccurate."""
        self.rejected += 1


def _refuse_hidden_parameters(f: Derivative, state: State, t0: float) -> None:
    """The adjoint of a parameter that is not listed would be silently zero."""
    with torch.enable_grad():
        derivative = f(state[0].new_tensor(t0), tuple(part.detach() for part in state))
    if any(part.requires_grad for part in derivative):
        raise ConfigurationError(
            "gradient=adjoint gives gradients only to the tensors in `parameters`, which is empty, "
            "and the derivative depends on some; pass them, or use gradient=backprop"
        )
