"""What the parts of a solve promise one another: a velocity, an integrator, a solution."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError, IntegrationError

State = tuple[Tensor, ...]
Derivative = Callable[..., State]
#: `(t, state)` to the derivative of the state's first tensor alone.
PathDerivative = Callable[..., Tensor]


class Velocity(Protocol):
    """A time-dependent vector field v(t, x) on rows; t = 0 is the base, t = 1 is the data.

    `t` is a scalar tensor () or one time per row (n,); `x` is (n, d); `context` (n, c) holds the givens of
    each row, where there are any. A row of the answer depends on that row of each alone.
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
class Equation:
    """dy/dt = f(t, y), and the part of f for the first tensor, where the others have no part in any."""

    f: Derivative
    path: PathDerivative | None = None

    def __call__(self, t: Tensor, state: State, *, weighed: bool = True) -> State:
        """One derivative for each tensor of `state`.

        Where a `path` is known and the method does not weigh them, those of all but the first, on which later
        stages build, are zeros.
        """
        if weighed or self.path is None:
            return self.f(t, state)
        return self.path(t, state), *map(torch.zeros_like, state[1:])


@dataclass(frozen=True)
class Solution:
    """The end of a solve and what it cost.

    `state` has the shapes of the initial state. `nfe` counts the calls of the derivative, or of the path's
    alone, in the forward solve. `accepted` and `rejected` count steps; an engine that steps each row by
    itself gives the largest count of any row. `local_error` has the shapes of `state` and holds the sums,
    over the steps, of the absolute local errors that the engine estimated; None where it keeps none.
    """

    state: State
    nfe: int
    accepted: int
    rejected: int
    local_error: State | None = None


class Integrator(ABC):
    """Solves dy/dt = f(t, y) for many rows at once; the options are frozen."""

    Options: ClassVar[type[options.PartOptions]]
    options: options.PartOptions

    def integrate(
        self,
        f: Derivative,
        state: State,
        t0: float,
        t1: float,
        *,
        args: tuple[Tensor, ...] = (),
        path: PathDerivative | None = None,
        parameters: Iterable[Tensor] = (),
    ) -> Solution:
        """Carry `state` from time `t0` to `t1`, which may be the earlier one.

        `f(t, state)` returns one derivative for each tensor of `state`; the first axis of each is the
        row, and all share dtype and device. Where the others are integrals along the path of the first
        tensor, on which no derivative depends, `path(t, state)` may give the first's derivative alone: an
        engine may ask for it at a stage whose integrands have no weight in its method. `parameters` are the
        tensors that `f` and `path` depend on and that need gradients; continuous adjoints give gradients to
        these and to `state` only.

        Raises `ConfigurationError` for tensors or times that do not fit together, and
        `IntegrationError` when the evaluation cap is met, the step underflows, or the state or its
        derivative is not finite; it names all the rows that failed, where each has steps of its own.
        """
        _check(state, t0, t1)
        if t0 == t1 or len(state[0]) == 0:
            return Solution(state, nfe=0, accepted=0, rejected=0)
        if args:
            inner, inner_path = f, path

            def f(t: Tensor, state: State) -> State:
                return inner(t, state, *args)

            path = None if inner_path is None else lambda t, state: inner_path(t, state, *args)
        return self._solve(Equation(f, path), state, t0, t1, tuple(p for p in parameters if p.requires_grad))

    @abstractmethod
    def _solve(
        self, f: Equation, state: State, t0: float, t1: float, parameters: tuple[Tensor, ...]
    ) -> Solution:
        """`integrate` for checked arguments: at least one row, and t0 != t1."""


def all_finite(state: State) -> bool:
    """Whether every number of every tensor is finite."""
    return all(bool(torch.isfinite(part).all()) for part in state)


def _check(state: State, t0: float, t1: float) -> None:
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
    if not all_finite(state):
        cause = "it began at numbers that are not finite"
        finite = torch.stack([torch.isfinite(part).reshape(len(part), -1).all(1) for part in state]).all(0)
        raise IntegrationError(
            f"the state at t={t0:g} is not finite before the first step; check the rows and the parameters",
            cause=cause,
            rows=dict.fromkeys((~finite).nonzero().squeeze(1).tolist(), cause),
        )
