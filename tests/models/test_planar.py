"""Planar flows: the scalar inversion, the invertibility constraint, and the recovery of a planar density."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions, solve_monotone
from flowbench.models.rows import Rows
from flowbench.training.criterion import RowCriterion
from flowbench.training.plan import TrainingPlan
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

FINITE = st.floats(-50, 50)


@given(y=FINITE, c=st.floats(-0.999, 30), b=FINITE)
def test_root_against_brent(y: float, c: float, b: float) -> None:
    root = solve_monotone(*torch.tensor([[y], [c], [b]], dtype=torch.float64)).item()
    expected = brentq(
        lambda a: a + c * math.tanh(a + b) - y, y - abs(c) - 1, y + abs(c) + 1, xtol=1e-14, rtol=1e-15
    )
    assert root == pytest.approx(expected, abs=1e-10, rel=1e-14)


def test_root_where_the_equation_is_nearly_flat() -> None:
    y = torch.linspace(-1e-3, 1e-3, 101, dtype=torch.float64)
    c = torch.tensor(-1 + 1e-9, dtype=torch.float64)
    root = solve_monotone(y, c, torch.tensor(0.0, dtype=torch.float64))
    assert (root + c * torch.tanh(root) - y).abs().max() < 1e-10
    assert (root.diff() > 0).all()


@pytest.mark.parametrize("c", [-0.999, -0.5, 0.5, 5.0, 200.0])
def test_roots_are_exact_and_do_not_depend_on_those_beside_them(c: float) -> None:
    y = 5 * torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shape, shift = torch.tensor([c, 0.7], dtype=torch.float64)
    roots = solve_monotone(y, shape, shift)
    assert (roots + c * torch.tanh(roots + shift) - y).abs().max() < 1e-13 * max(1, c)
    assert torch.equal(torch.cat([solve_monotone(one, shape, shift) for one in torch.split(y, 1)]), roots)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 20))
def test_invertible_whatever_the_weights(seed: int, scale: float) -> None:
    """w.u > -1 in every layer, so that the Jacobian's determinant is positive everywhere."""
    generator = torch.Generator().manual_seed(seed)
    flow = PlanarFlow(3, PlanarOptions(layers=4), generator).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    *_, products = flow._layers(None)
    assert (products > -1).all()
    assert torch.isfinite(flow.to_base(torch.randn(20, 3, generator=generator).double()).log_det).all()


def test_samples_have_the_log_likelihoods_that_log_prob_gives_them() -> None:
    flow = strong_flow()
    x, log_prob = flow.sample_and_log_prob(500, torch.Generator().manual_seed(0))
    assert (flow.log_prob(x) - log_prob).abs().max() < 1e-8


def strong_flow() -> PlanarFlow:
    """A two-layer planar density that is far from Gaussian, in float64."""
    flow = PlanarFlow(2, PlanarOptions(layers=2), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        flow.w.copy_(torch.tensor([[2.0, 0.5], [-0.5, 1.5]]))
        flow.u.copy_(torch.tensor([[1.5, 1.0], [0.5, 2.0]]))
        flow.b.copy_(torch.tensor([0.3, -0.5]))
    return flow.requires_grad_(False)


def test_fits_an_analytically_planar_density_to_a_hundredth_of_a_nat() -> None:
    truth = strong_flow()
    x, _ = truth.sample_and_log_prob(40_000, torch.Generator().manual_seed(1))
    flow = PlanarFlow(2, PlanarOptions(layers=4), torch.Generator().manual_seed(2))
    plan = TrainingPlan(**{**PlanarFlow.default_plan("toy"), "steps": 1500, "patience": 0})
    generator = torch.Generator().manual_seed(3)
    rows = TrainingRows(Rows(x[:30_000].float()), Rows(x[30_000:31_000].float()))
    Trainer(flow, plan, rows, generator=generator, criterion=RowCriterion()).run()
    with torch.no_grad():
        difference = truth.log_prob(x[31_000:]) - flow.double().log_prob(x[31_000:])
    error = difference.std() / len(difference) ** 0.5
    # A divergence is not negative: below zero by more than chance, a density does not integrate to one.
    assert -4 * error < difference.mean() < 0.01, f"KL {difference.mean():.4f} +- {error:.4f} nat"
