"""An integrator that counts evaluations, those of backward passes too."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from flowbench.ode.integrator import (
    Derivatives,
    InitialValueProblem,
    Integrator,
    IntegratorOptions,
    Solution,
)


class CountingIntegrator(Integrator):
    """Solves as `inner` does, and adds to `calls` whenever the derivative is evaluated.

    An adjoint solve counts, and so does a step that a checkpoint computes again.
    """

    Options: ClassVar[type[IntegratorOptions]] = IntegratorOptions
    row_steps: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    def __init__(self, inner: Integrator) -> None:
        self.inner, self.options, self.calls = inner, inner.options, 0

    def _solve(self, problem: InitialValueProblem) -> Solution:
        counted = self._all_counted(Derivatives(problem.f, problem.path))
        moments = problem.moments

        def counted_moments(times: Tensor) -> list[Derivatives]:
            return [] if moments is None else [self._all_counted(each) for each in moments(times)]

        return self.inner._solve(
            replace(problem, f=counted.f, path=counted.path, moments=moments and counted_moments)
        )

    def _all_counted(self, each: Derivatives) -> Derivatives:
        return Derivatives(self._counted(each.f), each.path and self._counted(each.path))

    def _counted(self, derivative: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.calls += 1
            return derivative(*arguments)

        return counted
