"""The field of the first continuous flows against its formula, unit by unit."""

import pytest
import torch
from torch import Tensor

from flowbench.models.continuous.fields.hypernetwork import Hypernetwork, HypernetworkOptions
from flowbench.models.continuous.fields.velocity_field import VelocityField


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


@pytest.mark.parametrize("givens", [0, 2])
def test_several_times_at_once_change_nothing(givens: int) -> None:
    """Neither the field nor its gradients; a product with tangents is that of autodiff."""
    generator = torch.Generator().manual_seed(1)
    field = Hypernetwork(2, HypernetworkOptions(width=5), generator, givens).double()
    x = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    tangents = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    context = torch.randn(4, givens, generator=generator, dtype=torch.float64) if givens else None
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    together = field.at(times)
    for t, alone in zip(times, together, strict=True):
        by_autodiff = VelocityField.jvp(field, t, x, tangents, context)
        for got, expected in (
            (alone.velocity_and_divergence(t, x, context), field.velocity_and_divergence(t, x, context)),
            (alone.jvp(t, x, tangents, context), by_autodiff),
            (field.jvp(t, x, tangents, context), by_autodiff),
            ((alone.velocity(t, x, context),), (field.velocity(t, x, context),)),
        ):
            torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)
            for one, other in zip(got, expected, strict=True):
                gradients = (
                    torch.autograd.grad(each.square().sum(), list(field.parameters()), retain_graph=True)
                    for each in (one, other)
                )
                torch.testing.assert_close(*gradients, atol=1e-13, rtol=1e-13)
