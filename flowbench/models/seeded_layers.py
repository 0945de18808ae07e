"""Layers whose initial weights come from a generator, never from the global random state."""

import torch
from torch import nn
from torch.nn.utils import skip_init


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """`nn.Linear` with its default initialisation, U(-1/sqrt(inputs), 1/sqrt(inputs)), from `generator`."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
