"""Activation functions with their first derivatives, for Jacobian-vector products without autodiff."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ActivationName = Literal["tanh", "softplus", "elu", "silu"]


class Activation(NamedTuple):
    """An elementwise function, alone and together with its derivative."""

    value: Callable[[Tensor], Tensor]
    value_and_derivative: Callable[[Tensor], tuple[Tensor, Tensor]]


def _tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(x)
    return value, 1 - value.square()


def _softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.softplus(x), torch.sigmoid(x)


def _elu(x: Tensor) -> tuple[Tensor, Tensor]:
    value = functional.elu(x)
    return value, 1 + value.clamp(max=0)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(x)
    value = x * gate
    return value, gate + value * (1 - gate)


ACTIVATIONS: dict[ActivationName, Activation] = {
    "tanh": Activation(torch.tanh, _tanh),
    "softplus": Activation(functional.softplus, _softplus),
    "elu": Activation(functional.elu, _elu),
    "silu": Activation(functional.silu, _silu),
}
