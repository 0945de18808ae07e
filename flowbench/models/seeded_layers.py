"""Layers whose initial weights come from a generator, never from the global random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import skip_init


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """`nn.Linear` with its default initialisation, U(-1/sqrt(inputs), 1/sqrt(inputs)), from `generator`."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    _fill(layer, inputs, generator)
    return layer


def seeded_convolution(
    inputs: int,
    outputs: int,
    size: int,
    generator: torch.Generator,
    *,
    stride: int = 1,
    padding: int = 0,
    bias: bool = True,
) -> nn.Conv2d:
    """`nn.Conv2d` of `size` x `size` with its default initialisation, from `generator`.

    That is U(-1/sqrt(n), 1/sqrt(n)), with n = inputs * size * size.
    """
    layer: nn.Conv2d = skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, inputs, outputs, size, stride=stride, padding=padding, bias=bias
    )
    _fill(layer, inputs * size * size, generator)
    return layer


@contextmanager
def global_seed(generator: torch.Generator) -> Iterator[None]:
    """Let a library draw initial weights from the global random state, seeded by `generator`.

    The global state is then as it was before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _fill(layer: nn.Module, fan_in: int, generator: torch.Generator) -> None:
    bound = fan_in**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
