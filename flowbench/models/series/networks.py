"""Small networks that models of series are made of, with initial weights from a generator."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from flowbench.models.seeded_layers import seeded_linear


class Perceptron(nn.Module):
    """A multilayer perceptron: `layers` hidden layers of `width` units, with `activation` after each.

    The activation works in place.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        generator: torch.Generator,
        *,
        layers: int = 1,
        activation: Callable[[Tensor], Tensor] = torch.tanh_,
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers, outputs]
        self.layers = nn.ModuleList(seeded_linear(a, b, generator) for a, b in pairwise(sizes))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        # Rows come last within: for narrow layers the products of the backward pass then take half the time.
        columns = x.reshape(-1, x.shape[-1]).t().contiguous()
        *hidden, last = self.layers
        for layer in hidden:
            # In place, for what a layer gives is needed by none else.
            columns = self.activation(_columns(layer, columns))
        return _columns(last, columns).t().reshape(*x.shape[:-1], -1)


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer on columns: `(inputs, m)` to `(outputs, m)`."""
    weight, bias = layer.weight, layer.bias
    return torch.addmm(bias[:, None], weight, x)  # type: ignore[index, arg-type]


def seeded_gru(inputs: int, units: int, generator: torch.Generator) -> nn.GRU:
    """`nn.GRU`, batch first, with its default initialisation, U(-1/sqrt(units), 1/sqrt(units))."""
    # On no device at first, so that no weights are drawn from the global random state.
    gru = nn.GRU(inputs, units, batch_first=True, device="meta").to_empty(device="cpu")
    for parameter in gru.parameters():
        nn.init.uniform_(parameter, -(units**-0.5), units**-0.5, generator=generator)
    return gru
