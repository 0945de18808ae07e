"""Autonomous differential equations that carry states through the gaps of series."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.models.series.networks import Perceptron
from flowbench.ode.integrator import Integrator, IntegratorOptions
from flowbench.registry import INTEGRATORS


class Evolution(nn.Module):
    """dh/dt = f(h) with a perceptron f, solved by `integrator`."""

    def __init__(
        self,
        units: int,
        width: int,
        layers: int,
        integrator: options.PartOptions,
        generator: torch.Generator,
        activation: Callable[[Tensor], Tensor] = torch.tanh_,
    ) -> None:
        super().__init__()
        self.field = Perceptron(units, width, units, generator, layers=layers, activation=activation)
        self.integrator = integrator
        #: Evaluations of f in the solves since it was set to 0.
        self.nfe = 0

    def forward(self, state: Tensor, gaps: Tensor) -> Tensor:
        """The states `(n, units)` after `gaps: (n,)`, each row by its own; one solve for all rows."""

        def slope(t: Tensor, state: tuple[Tensor, ...], gaps: Tensor) -> tuple[Tensor, ...]:
            return (gaps[:, None] * self.field(state[0]),)

        found = self._solver.integrate(
            slope, (state,), 0.0, 1.0, args=(gaps,), parameters=self.field.parameters()
        )
        self.nfe += found.nfe
        return found.state[0]

    def along(self, state: Tensor, times: Tensor) -> Tensor:
        """The states `(k, n, units)` at increasing `times: (k,)`, from `state: (n, units)` at time 0.

        A solve goes from 0 to 1, the next from there to 2, then to 4, 8 and so on, and likewise before 0. So
        the steps to a time do not depend on which other times there are.
        """
        before = self._away(state, times[times < 0].flip(0), -1.0)
        return torch.cat([*reversed(before), *self._away(state, times[times >= 0], 1.0)])

    def _away(self, state: Tensor, times: Tensor, end: float) -> list[Tensor]:
        """The states at `times: (k,)`, which lead away from 0; the first solve is to `end`, 1 or -1."""
        parts, start = [], 0.0
        while len(times):
            here = times[times.abs() <= abs(end)]
            found = self._solver.integrate(
                lambda t, state: (self.field(state[0]),),
                (state,),
                start,
                end,
                times=here if len(here) else None,
                parameters=self.field.parameters(),
            )
            self.nfe += found.nfe
            (state,) = found.state
            if found.at_times is not None:
                parts.append(found.at_times[0] if end > 0 else found.at_times[0].flip(0))
            times, start, end = times[len(here) :], end, 2 * end
        return parts

    def settle(self, integrator: options.PartOptions) -> None:
        """Solve with the options of `integrator` from now on, unless the steps are fixed.

        The steps of an adaptive solver depend on all rows of a batch. Those of a fixed one belong to the
        model, as the layers of a network do.
        """
        if isinstance(self.integrator, IntegratorOptions) and self.integrator.adaptive:
            self.integrator = integrator

    @property
    def _solver(self) -> Integrator:
        solver: Integrator = INTEGRATORS.get(self.integrator.name)(self.integrator)
        return solver
