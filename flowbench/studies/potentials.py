"""The four test energies of Rezende and Mohamed (2015, table 1), as densities on a square."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

#: Half the side of the square. Energies 2 to 4 do not grow along the first axis, so exp(-U) has no integral
#: on the plane.
HALF = 4.0
#: The width of the square's edge: beyond it the energy grows by the square of the distance over twice this
#: width squared.
EDGE = 0.1


def _wave(x: Tensor) -> Tensor:
    return torch.sin(torch.pi * x / 2)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    radius = torch.sqrt(x.square() + y.square() + 1e-12)
    sides = torch.stack([-0.5 * ((x - 2) / 0.6).square(), -0.5 * ((x + 2) / 0.6).square()])
    return 0.5 * ((radius - 2) / 0.4).square() - sides.logsumexp(0)


def _strip(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * ((y - _wave(x)) / 0.4).square()


def _two(x: Tensor, y: Tensor, apart: Tensor, width: float) -> Tensor:
    first = -0.5 * ((y - _wave(x)) / width).square()
    second = -0.5 * ((y - _wave(x) + apart) / 0.35).square()
    return -torch.logaddexp(first, second)


def _split(x: Tensor, y: Tensor) -> Tensor:
    return _two(x, y, 3 * torch.exp(-0.5 * ((x - 1) / 0.6).square()), 0.35)


def _step(x: Tensor, y: Tensor) -> Tensor:
    return _two(x, y, 3 * torch.sigmoid((x - 1) / 0.3), 0.4)


@dataclass(frozen=True)
class Potential:
    """The density exp(-U(x)) / Z, cut off softly beyond the square [-4, 4]^2."""

    name: str
    energy: Callable[[Tensor, Tensor], Tensor]

    def unnormalised(self, x: Tensor) -> Tensor:
        """-U at `x: (n, 2)`, less the energy of the edge: `(n,)`, nats."""
        beyond = softplus((x.abs() - HALF) / (0.1 * EDGE)) * 0.1 * EDGE
        return -self.energy(x[:, 0], x[:, 1]) - 0.5 * (beyond / EDGE).square().sum(1)

    @cached_property
    def log_normaliser(self) -> float:
        """log Z by the midpoint rule."""
        step = 0.01
        axis = torch.arange(-HALF - 1 + step / 2, HALF + 1, step, dtype=torch.float64)
        rows = (torch.stack([x.expand(len(axis)), axis], 1) for x in axis)
        total = torch.stack([self.unnormalised(each).logsumexp(0) for each in rows]).logsumexp(0)
        return float(total) + 2 * float(torch.log(torch.tensor(step, dtype=torch.float64)))

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density `(n,)`, nats, at `x: (n, 2)`."""
        return self.unnormalised(x) - self.log_normaliser


POTENTIALS = {
    each.name: each
    for each in (
        Potential("ring", _ring),
        Potential("wave", _strip),
        Potential("split wave", _split),
        Potential("stepped wave", _step),
    )
}
