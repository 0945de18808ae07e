"""An integrator that counts evaluations, those of backward passes too."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from flowbench.ode.integrator import InitialValueProblem, Integrator, IntegratorOptions, Solution


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
        path = problem.path and self._counted(problem.path)
        return self.inner._solve(replace(problem, f=self._counted(problem.f), path=path))

    def _counted(self, derivative: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.calls += 1
            return derivative(*arguments)

        return counted
