"""The interfaces of an ODE solve: a velocity, an initial value problem, an integrator and a solution."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol, Self

import torch
from pydantic import Field
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.options import PartOptions

State = tuple[Tensor, ...]
#: Maps `(t, state, *args)` to the derivative of each tensor of the state.
Derivative = Callable[..., State]
#: Maps `(t, state, *args)` to the derivative of the state's first tensor alone.
PathDerivative = Callable[..., Tensor]


class Derivatives(NamedTuple):
    """The derivative `f` of a state and, where it is cheaper, that of its first tensor alone, `path`."""

    f: Derivative
    path: PathDerivative | None = None

    def ask(self, t: Tensor, state: State, args: State, *, weighed: bool = True) -> State:
        """See `InitialValueProblem.derivative`."""
        if weighed or self.path is None:
            return self.f(t, state, *args)
        return self.path(t, state, *args), *map(torch.zeros_like, state[1:])


#: Maps k times () in the state's dtype to the derivatives at each of them.
Moments = Callable[[Tensor], Sequence[Derivatives]]


class Velocity(Protocol):
    """A time-dependent vector field v(t, x) on rows; t = 0 is the base, t = 1 is the data.

    `t` is a scalar tensor () or one time per row (n,); `x` is (n, d). `context` is (n, c) for a conditional
    field, and None otherwise. Each row of the result depends on the same row of the arguments alone.
    """

    features: int
    has_closed_form_divergence: bool

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        ...

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian dv/dx times each of the `tangents` (k, n, d), (k, n, d)."""
        ...

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its exact divergence (n,), where there is a closed form."""
        ...


@dataclass(frozen=True)
class InitialValueProblem:
    """An initial value problem dy/dt = f(t, y, *args), whose values `Integrator.integrate` has checked.

    It starts with `state` at `t0` and ends at `t1`, which differs from `t0`. There is at least one row.
    `times` lie strictly between `t0` and `t1`, in the order in which the solve passes them. `args` are
    tensors with an entry for each row, which do not change with time. `parameters` are the other tensors that
    `f` depends on and that need gradients. For `path` and `moments` see `Integrator.integrate`.
    """

    f: Derivative
    state: State
    t0: float
    t1: float
    times: tuple[float, ...] = ()
    args: State = ()
    path: PathDerivative | None = None
    parameters: State = ()
    moments: Moments | None = None

    def at(self, times: Tensor) -> Sequence[Derivatives]:
        """The derivatives at each of the `times: (k,)`; work that depends on time alone is shared."""
        if self.moments is None:
            return [Derivatives(self.f, self.path)] * len(times)
        return self.moments(times)

    def derivative(self, t: Tensor, state: State, args: State, *, weighed: bool = True) -> State:
        """The derivative of each tensor of `state`; `state` and `args` may hold some of the rows only.

        `weighed` says whether the slope of this stage counts in the solution. If not, and there is a `path`,
        the derivatives of the integrals are not computed and are zeros.
        """
        return Derivatives(self.f, self.path).ask(t, state, args, weighed=weighed)


@dataclass(frozen=True)
class Solution:
    """The state at the end of a solve, and its cost.

    `state` has the shapes of the initial state. `nfe` counts the calls of the derivative, or of the path's
    alone, in the forward solve. `accepted` and `rejected` count steps; an engine with steps for each row
    gives the largest count of any row. `local_error` has the shapes of `state` and holds the sums, over the
    steps, of the absolute local errors that the engine estimated; None if it keeps none. `at_times` holds the
    state at each of the k times that were asked for, (k, *shape) for each tensor of the state; None if none
    were.
    """

    state: State
    nfe: int
    accepted: int
    rejected: int
    local_error: State | None = None
    at_times: State | None = None


class IntegratorOptions(PartOptions):
    """Options of every integrator: absolute and relative tolerance, and the cap on evaluations."""

    atol: float = Field(1e-5, gt=0)
    rtol: float = Field(1e-5, gt=0)
    max_nfe: int = Field(10_000, ge=1)

    @property
    def adaptive(self) -> bool:
        """Whether the solver adapts its steps to their errors; otherwise the tolerances have no effect."""
        return True

    def refined(self, level: int = 1) -> Self:
        """The same solver at a tenth of the tolerances, `level` times; the cap doubles each time."""
        return self._with(
            atol=self.atol * 0.1**level, rtol=self.rtol * 0.1**level, max_nfe=self.max_nfe * 2**level
        )

    def coarsened(self, tolerance: float) -> Self:
        """The same solver with tolerances of at least `tolerance`."""
        return self._with(atol=max(self.atol, tolerance), rtol=max(self.rtol, tolerance))

    def _with(self, **values: float) -> Self:
        return type(self)(**{**self.model_dump(), **values})


class Integrator(ABC):
    """Solves dy/dt = f(t, y, *args) for many rows at once; the options are frozen.

    `row_steps` says whether the engine chooses steps for each row. Then the solution of a row does not depend
    on the rows beside it, and an `IntegrationError` names all the rows that failed.
    """

    Options: ClassVar[type[IntegratorOptions]]
    row_steps: ClassVar[bool]
    #: Whether gradients flow through a solve to the state, to `args` and to `parameters`. An engine without
    #: gradients refuses tensors that require them, unless it is called under `torch.no_grad()`.
    differentiable: ClassVar[bool]
    options: IntegratorOptions

    def integrate(
        self,
        f: Derivative,
        state: State,
        t0: float,
        t1: float,
        *,
        times: Sequence[float] | Tensor | None = None,
        args: State = (),
        path: PathDerivative | None = None,
        moments: Moments | None = None,
        parameters: Iterable[Tensor] = (),
    ) -> Solution:
        """Carry `state` from time `t0` to `t1`, which may be the earlier one.

        `f(t, state, *args)` returns one derivative for each tensor of `state`. The first axis of each tensor
        of `state` and `args` is the row. The tensors of `state` share dtype and device. `args` are constants
        of the rows: an engine may call `f` for some of the rows, with their `args`.

        `times` are k times between `t0` and `t1`, strictly monotone from `t0` towards `t1`, at which the
        state is wanted too. It is interpolated within the same steps.

        The state may be rows followed by integrals along their paths, on which no derivative depends. Then
        `path(t, state, *args)` may give the derivative of the first tensor alone. An engine may call it at a
        stage whose integrands have no weight in its method.

        `moments(times: (k,))` may give `f` and `path` for each of these times alone. An engine that knows the
        times of several stages may ask for them at once, and then calls each at its own time only.

        `parameters` are the other tensors that `f` and `path` depend on and that need gradients. Continuous
        adjoints give gradients to these, to `state` and to `args` only.

        Raises `ConfigurationError` for tensors or times that do not fit together. Raises `IntegrationError`
        when the evaluation cap is met, the step underflows, or the state or its derivative is not finite.
        """
        _check(state, args, t0, t1)
        asked = None if times is None else _checked_times(times, t0, t1)
        if t0 == t1 or len(state[0]) == 0:
            return _with_times(Solution(state, nfe=0, accepted=0, rejected=0), state, asked, t0, t1)
        problem = InitialValueProblem(
            f=f,
            state=state,
            t0=t0,
            t1=t1,
            times=tuple(time for time in asked or () if time not in (t0, t1)),
            args=args,
            path=path,
            moments=moments,
            parameters=tuple(p for p in parameters if p.requires_grad),
        )
        return _with_times(self._solve(problem), state, asked, t0, t1)

    @abstractmethod
    def _solve(self, problem: InitialValueProblem) -> Solution:
        """`integrate` for at least one row and t0 != t1; `at_times` are those at `problem.times` alone."""


def all_finite(state: State) -> bool:
    """Whether every number of every tensor is finite."""
    return all(bool(torch.isfinite(part).all()) for part in state)


def _with_times(
    solution: Solution, start: State, asked: tuple[float, ...] | None, t0: float, t1: float
) -> Solution:
    """The solution with the states at all the times that were `asked` for, including `t0` and `t1`."""
    if asked is None:
        return solution
    if len(start[0]) == 0:
        return replace(solution, at_times=tuple(part.expand(len(asked), *part.shape) for part in start))
    # The one time of a solve from t0 to t0 is its start.
    begins = int(bool(asked) and asked[0] == t0)
    ends = int(bool(asked) and asked[-1] == t1 != t0)
    between = solution.at_times or tuple(part[None][:0] for part in start)
    at_times = tuple(
        torch.cat([first[None][:begins], middle, last[None][:ends]])
        for first, middle, last in zip(start, between, solution.state, strict=True)
    )
    return replace(solution, at_times=at_times)


def _checked_times(times: Sequence[float] | Tensor, t0: float, t1: float) -> tuple[float, ...]:
    if isinstance(times, Tensor):
        if times.ndim != 1:
            raise ConfigurationError(f"`times` must have one axis; got shape {tuple(times.shape)}")
        times = times.tolist()
    asked = tuple(float(time) for time in times)
    for number, time in enumerate(asked, start=1):
        if not min(t0, t1) <= time <= max(t0, t1):
            raise ConfigurationError(
                f"`times` must be finite and lie between t0={t0:g} and t1={t1:g}; number {number} is {time!r}"
            )
    for number, (before, time) in enumerate(pairwise(asked), start=2):
        if time == before or (time > before) != (t1 > t0):
            raise ConfigurationError(
                f"`times` must go strictly from t0={t0:g} towards t1={t1:g}; number {number} is {time!r}, "
                f"after {before!r}"
            )
    return asked


def _check(state: State, args: State, t0: float, t1: float) -> None:
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ConfigurationError(f"integration times must be finite; got t0={t0}, t1={t1}")
    if not state:
        raise ConfigurationError("the state to integrate is empty; give at least one tensor")
    first = state[0]
    for number, part in enumerate(state, start=1):
        if part.ndim == 0 or len(part) != len(first):
            raise ConfigurationError(
                f"tensor {number} of the state has shape {tuple(part.shape)}; "
                f"its first axis must be the row, {len(first) if first.ndim else 'n'} of them"
            )
        if not part.is_floating_point() or part.dtype != first.dtype or part.device != first.device:
            raise ConfigurationError(
                f"tensor {number} of the state is {part.dtype} on {part.device} and tensor 1 is "
                f"{first.dtype} on {first.device}; give all of them the same floating dtype and device"
            )
    for number, constant in enumerate(args, start=1):
        if constant.ndim == 0 or len(constant) != len(first):
            raise ConfigurationError(
                f"tensor {number} of `args` has shape {tuple(constant.shape)}; "
                f"its first axis must be the row, {len(first)} of them as in the state"
            )
    if not all_finite(state):
        cause = "it began at numbers that are not finite"
        finite = torch.stack([torch.isfinite(part).reshape(len(part), -1).all(1) for part in state]).all(0)
        raise IntegrationError(
            f"the state at t={t0:g} is not finite before the first step; check the rows and the parameters",
            cause=cause,
            rows=dict.fromkeys((~finite).nonzero().squeeze(1).tolist(), cause),
        )
