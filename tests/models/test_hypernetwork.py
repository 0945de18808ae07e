"""The field of the first continuous flows against its formula, unit by unit."""

import torch
from torch import Tensor

from flowbench.models.continuous.fields.hypernetwork import Hypernetwork, HypernetworkOptions


def by_formula(field: Hypernetwork, t: float, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The velocity (d,) and the divergence () at one row `x: (d,)`."""
    d, width = len(x), field.options.width
    time = torch.tensor([t], dtype=x.dtype)
    asked = time if context is None else torch.cat([time, context])
    weights = field.network(asked).view(width, 2 * d + 2)
    velocity, divergence = torch.zeros(d, dtype=x.dtype), torch.zeros((), dtype=x.dtype)
    for unit in weights:
        w, u, b, gate = unit[:d], unit[d : 2 * d], unit[2 * d], unit[2 * d + 1]
        h = torch.tanh(w @ x + b)
        velocity = velocity + torch.sigmoid(gate) * h * u / width
        divergence = divergence + torch.sigmoid(gate) * (1 - h**2) * (w @ u) / width
    return velocity, divergence


def test_the_field_is_a_mean_of_gated_planar_units() -> None:
    generator = torch.Generator().manual_seed(0)
    for givens in (0, 2):
        field = Hypernetwork(3, HypernetworkOptions(width=5, hidden=7), generator, givens).double()
        x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        context = torch.randn(4, givens, generator=generator, dtype=torch.float64) if givens else None
        found, divergence = field.velocity_and_divergence(torch.tensor(0.25).double(), x, context)
        for row in range(4):
            own = None if context is None else context[row]
            expected, trace = by_formula(field, 0.25, x[row], own)
            assert (found[row] - expected).abs().max() < 1e-12
            assert abs(divergence[row] - trace) < 1e-12
