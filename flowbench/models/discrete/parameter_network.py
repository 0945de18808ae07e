"""Parameters of a discrete flow's layers that depend on a context."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from flowbench.models.seeded_layers import seeded_linear

#: Width of each of the two hidden layers.
WIDTH = 64


class ParameterNetwork(nn.Module):
    """A hypernetwork (Ha et al. 2017): a perceptron whose outputs are added to the parameters of a flow.

    The flow has `layers` layers, and the perceptron maps a context to offsets of the parameters of each.
    `shapes` are the shapes of the parameters of one layer. The network's output is zero at the start, so the
    untrained conditional flow does not depend on the context.
    """

    def __init__(
        self,
        context_features: int,
        layers: int,
        shapes: Sequence[tuple[int, ...]],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.shapes = tuple(shapes)
        self.sizes = [layers * prod(shape) for shape in shapes]
        self.first = seeded_linear(context_features, WIDTH, generator)
        self.second = seeded_linear(WIDTH, WIDTH, generator)
        self.last = seeded_linear(WIDTH, sum(self.sizes), generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, context: Tensor) -> list[Tensor]:
        """The increments (layers, n, *shape) of each parameter for `context: (n, c)`."""
        changes = self.last(silu(self.second(silu(self.first(context)))))
        return [
            part.view(len(context), self.layers, *shape).transpose(0, 1)
            for part, shape in zip(torch.split(changes, self.sizes, 1), self.shapes, strict=True)
        ]


def dot(x: Tensor, weights: Tensor) -> Tensor:
    """The inner products (n,) of rows `x: (n, d)` with `weights`, (d,) for all rows or (n, d)."""
    return x @ weights if weights.ndim == 1 else (x * weights).sum(1)


def times(x: Tensor, matrix: Tensor) -> Tensor:
    """The products x M (n, e) of rows `x: (n, d)` with `matrix`, (d, e) for all rows or (n, d, e)."""
    return x @ matrix if matrix.ndim == 2 else (x.unsqueeze(1) @ matrix).squeeze(1)
