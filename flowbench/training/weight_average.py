"""The exponential moving average (EMA) of the weights, which is what validation judges."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flowbench.training.state import Tensors


def average_decay(step: int, limit: float) -> float:
    """The decay at a phase's own `step`: small at first, so that the initial weights are soon forgotten."""
    return min(limit, (step + 1) / (step + 10))


@torch.no_grad()
def update_average(average: Tensors, weights: Mapping[str, Tensor], decay: float) -> None:
    """Move the `average` in place to decay * average + (1 - decay) * weights.

    Only floating-point tensors are averaged. Masks and orders of columns never change.
    """
    current = {name: value for name, value in weights.items() if value.is_floating_point()}
    torch._foreach_lerp_([average[name] for name in current], list(current.values()), 1 - decay)
