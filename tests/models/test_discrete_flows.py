"""Radial, Sylvester and zuko's flows: properties beyond the contract of flows."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.models.discrete.radial import RadialFlow, RadialOptions
from flowbench.models.discrete.sylvester import SylvesterFlow, SylvesterOptions
from flowbench.models.discrete.zuko_flows import ZukoFlow
from flowbench.registry import MODELS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_a_radial_layer_is_the_formula_of_the_paper() -> None:
    flow = RadialFlow(3, RadialOptions(layers=1), generator()).double()
    with torch.no_grad():
        flow.raw_beta.fill_(2.0)
    ((centre, alpha, total),) = flow._layers(None)
    x = normal(20, 3)
    radius = (x - centre).norm(dim=1, keepdim=True)
    expected = x + (total - alpha) * (x - centre) / (alpha + radius)
    assert torch.allclose(flow.to_base(x).value, expected, atol=1e-12)


@pytest.mark.parametrize("raw_beta", [-30.0, -3.0, 30.0])
def test_radial_layers_never_fold(raw_beta: float) -> None:
    flow = RadialFlow(2, RadialOptions(layers=4), generator()).double().requires_grad_(False)
    flow.raw_beta.fill_(raw_beta)
    # The centres themselves, points beside them, and points far away.
    x = torch.cat([flow.centre, flow.centre + 1e-8, 1e3 * normal(5, 2)])
    there = flow.to_base(x)
    assert torch.isfinite(there.log_det).all()
    assert (flow.to_data(there.value).value - x).abs().max() < 1e-6 * x.abs().max()


def test_a_sylvester_layer_in_one_dimension_is_a_planar_one() -> None:
    sylvester = SylvesterFlow(1, SylvesterOptions(layers=1), generator()).double().requires_grad_(False)
    q, outer, inner, bias = sylvester._layers(None)[0]
    planar = PlanarFlow(1, PlanarOptions(layers=1), generator()).double().requires_grad_(False)
    w, product = (q * inner).squeeze(), (outer * inner).squeeze()
    planar.w.fill_(w)
    planar.b.copy_(bias)
    # Planar layers constrain u by w.u; its raw value is the one whose constrained product is ours.
    raw = torch.log(torch.expm1(product + 1 - 1e-5))
    planar.u.fill_(raw / w)
    x = normal(30, 1)
    ours, theirs = sylvester.to_base(x), planar.to_base(x)
    assert torch.allclose(ours.value, theirs.value, atol=1e-10)
    assert torch.allclose(ours.log_det, theirs.log_det, atol=1e-10)


def test_sylvester_matrices_are_orthogonal_and_triangular() -> None:
    flow = SylvesterFlow(5, SylvesterOptions(layers=3), generator()).double()
    for q, outer, inner, _ in flow._layers(None):
        assert torch.allclose(q @ q.T, torch.eye(5, dtype=q.dtype), atol=1e-12)
        for triangle in (outer, inner):
            assert not triangle.tril(-1).any()
            assert (triangle.diagonal().abs() < 1).all()


def test_sylvester_layers_never_fold() -> None:
    flow = SylvesterFlow(3, SylvesterOptions(layers=4), generator()).double().requires_grad_(False)
    flow.outer.mul_(3e4)
    flow.inner.mul_(30)
    x = normal(50, 3)
    there = flow.to_base(x)
    assert torch.isfinite(there.log_det).all()
    assert (flow.to_data(there.value).value - x).abs().max() < 1e-4 * there.value.abs().max()


@pytest.mark.parametrize("name", ["maf", "nsf", "coupling"])
def test_likelihoods_are_those_of_zuko(name: str) -> None:
    from zuko.distributions import NormalizingFlow

    flow_class = MODELS.get(name)
    flow: ZukoFlow = flow_class(4, flow_class.Options(hidden=(16,)), generator()).double()
    flow.requires_grad_(False)
    zero, unit = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    oracle = NormalizingFlow(flow.network(), MultivariateNormal(zero, unit))
    x = 2 * normal(40, 4)
    assert torch.allclose(flow.log_prob(x), oracle.log_prob(x), atol=1e-12)


def test_coupling_draws_in_two_passes() -> None:
    flow_class = MODELS.get("coupling")
    flow = flow_class(6, flow_class.Options(), generator())
    passes = [module.passes for module in flow.modules() if hasattr(module, "order")]
    assert passes == 8 * [2]
