"""The networks have the published sizes, and their gradients are those of the ODE that they solve."""

import pytest
import torch
from torch import Tensor

from flowbench.ode.integrator import Integrator
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions
from flowbench.studies.digit_networks import (
    NETWORKS,
    NetworkName,
    OdeBlock,
    TimeConvolution,
    build_network,
    dynamics_of,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("MLP", 238_510), ("ResNet", 576_778), ("RK-Net", 208_266), ("ODE-Net", 208_266)],
)
def test_the_networks_have_the_published_sizes(name: NetworkName, parameters: int) -> None:
    network = build_network(name, 28, seeded())
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient_and_the_seed_decides(name: NetworkName) -> None:
    first, same, other = (build_network(name, 8, seeded(seed)) for seed in (0, 0, 1))
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    first(x).square().sum().backward()
    assert all(each.grad is not None and each.grad.any() for each in first.parameters())
    assert torch.equal(first(x), same(x)) and not torch.equal(first(x), other(x))


def test_the_time_is_one_more_channel() -> None:
    layer, x, t = TimeConvolution(seeded()), torch.randn(3, 64, 6, 5, generator=seeded()), torch.tensor(0.7)
    widened = torch.cat([torch.full((3, 1, 6, 5), 0.7), x], 1)
    torch.testing.assert_close(layer(t, x), layer.layer(widened), rtol=1e-5, atol=1e-5)


def gradients(integrator: Integrator) -> list[Tensor]:
    """The block's output, and the gradients of a function of it to the input and the parameters."""
    block = OdeBlock(integrator, seeded()).double()
    x = torch.randn(2, 64, 3, 3, dtype=torch.float64, generator=seeded()).requires_grad_()
    out = block(x)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=seeded(1))
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *block.parameters()])]


def test_the_adjoint_gradient_is_that_of_backpropagation_through_a_tight_solve() -> None:
    """ReLU has a kink, so that the gradients of a solve are of first order in its steps only."""
    tight = gradients(NativeIntegrator(NativeOptions(method="rk4", steps=100)))

    def worst(tolerance: float) -> float:
        options = TorchdiffeqOptions(atol=tolerance, rtol=tolerance, gradient="adjoint")
        found = gradients(TorchdiffeqIntegrator(options))
        return max(
            float((one - other).norm() / other.norm()) for one, other in zip(found, tight, strict=True)
        )

    assert worst(1e-4) < 0.02
    # At the tolerance of the study it is as near as that.
    assert worst(1e-3) < 0.06


def test_both_networks_with_an_ode_solve_the_same_one() -> None:
    adjoint, runge_kutta = build_network("ODE-Net", 8, seeded()), build_network("RK-Net", 8, seeded())
    x = torch.rand(4, 1, 8, 8, generator=seeded())
    one, other = adjoint(x), runge_kutta(x)
    assert 0 < (one - other).norm() < 0.1 * one.norm()
    dynamics = dynamics_of(runge_kutta)
    assert dynamics is not None and dynamics.evaluations == 8
    assert dynamics_of(build_network("ResNet", 8, seeded())) is None
