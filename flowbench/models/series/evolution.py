"""Autonomous differential equations that carry states through the gaps of series."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.models.series.networks import Perceptron
from flowbench.ode.integrator import Integrator
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
        activation: Callable[[Tensor], Tensor] = torch.tanh,
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

        A solve ends at a whole number, so that its steps do not depend on which times there are in between.
        """
        parts = []
        for side in (times[times < 0].flip(0), times[times >= 0]):
            if not len(side):
                continue
            end = float(side[-1].ceil() if side[-1] >= 0 else side[-1].floor()) or 1.0
            found = self._solver.integrate(
                lambda t, state: (self.field(state[0]),),
                (state,),
                0.0,
                end,
                times=side,
                parameters=self.field.parameters(),
            )
            self.nfe += found.nfe
            (states,) = found.at_times or ()
            parts.append(states if end >= 0 else states.flip(0))
        return torch.cat(parts)

    @property
    def _solver(self) -> Integrator:
        solver: Integrator = INTEGRATORS.get(self.integrator.name)(self.integrator)
        return solver
