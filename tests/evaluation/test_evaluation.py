"""Reported likelihoods and grids, against closed forms and much tighter solves."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from flowbench.evaluation.grid import data_box, grid_axes, grid_mass, tabulate
from flowbench.evaluation.likelihood import coarsen, refine, reported_likelihoods
from flowbench.flows.continuous import ContinuousFlow, ContinuousOptions
from flowbench.flows.density_model import DensityModel
from flowbench.flows.gaussian import GaussianFlow, GaussianOptions
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqOptions
from flowbench.transforms.standardise import Standardise, StandardiseOptions

NORMAL = multivariate_normal([3, -2], [[2.0, 0.6], [0.6, 0.5]])


def model(flow: object) -> DensityModel:
    transform = Standardise(("a", "b"), StandardiseOptions())
    transform.fit(torch.tensor(NORMAL.rvs(500, random_state=0)))
    return DensityModel(("a", "b"), [transform], flow)


def bent_flow() -> ContinuousFlow:
    generator = torch.Generator().manual_seed(0)
    flow = ContinuousFlow(2, ContinuousOptions(field={"width": 16, "scales": 2}), generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return flow


def test_a_gaussian_in_data_units_against_scipy() -> None:
    rows = NORMAL.rvs(200_000, random_state=1)
    gaussian = model(GaussianFlow(2, GaussianOptions(), torch.Generator()))
    gaussian.flow.initialise(gaussian.to_model(torch.tensor(rows))[0])
    reported = reported_likelihoods(gaussian, torch.tensor(rows[:1000]), PerRowOptions(), 10)
    assert reported.nfe is None and reported.solver_error is None
    assert reported.log_prob.dtype == torch.float64
    assert np.abs(reported.log_prob.numpy() - NORMAL.logpdf(rows[:1000])).max() < 0.05


def test_the_stated_solver_error_is_that_against_a_far_tighter_solve() -> None:
    x = torch.tensor(NORMAL.rvs(100, random_state=2))
    bent = model(bent_flow())
    reported = reported_likelihoods(bent, x, PerRowOptions(atol=1e-5, rtol=1e-5), 100)
    reference = reported_likelihoods(bent, x, PerRowOptions(atol=1e-12, rtol=1e-12), 1)
    error = (reported.log_prob - reference.log_prob).abs().max().item()
    assert reported.solver_error == pytest.approx(error, rel=0.1)
    assert error > 0


def test_refined_and_coarsened_solvers() -> None:
    assert refine(PerRowOptions(atol=1e-6, rtol=1e-5)).model_dump()["rtol"] == pytest.approx(1e-7)
    assert coarsen(PerRowOptions(atol=1e-6)).model_dump()["atol"] == pytest.approx(1e-4)
    assert refine(TorchdiffeqOptions(method="rk4", steps=10)).model_dump()["steps"] == 40


def test_grid_of_a_known_density() -> None:
    x, y = grid_axes(((-5, 11), (-7, 3)), 200)
    table = tabulate(lambda points: np.asarray(NORMAL.logpdf(points)), x, y)
    assert table[30, 150] == pytest.approx(NORMAL.logpdf([x[30], y[150]]))
    assert grid_mass(table, x, y) == pytest.approx(1, abs=1e-6)


def test_box_grows_around_the_rows() -> None:
    assert data_box(np.array([[0.0, 10.0], [4.0, 30.0]]), margin=0.25) == ((-1.0, 5.0), (5.0, 35.0))
