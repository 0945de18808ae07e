"""The energies have the integrals that another quadrature finds, and trials measure the divergence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.studies import density_matching
from flowbench.studies.against_planar import Recipe
from flowbench.studies.density_matching import DensityMatching
from flowbench.studies.potentials import POTENTIALS
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_density_integrates_to_one(name: str) -> None:
    """By Gauss-Legendre quadrature on strips, where the normaliser is by the midpoint rule."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(-4.6, 4.6, 47)
    half = (edges[1] - edges[0]) / 2
    axis = (edges[:-1, None] + half * (1 + nodes)).ravel()
    points = torch.from_numpy(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    density = POTENTIALS[name].log_prob(points).exp().numpy().reshape(len(axis), len(axis))
    each = np.tile(half * weights, len(edges) - 1)
    assert each @ density @ each == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("model", ["cnf", "planar"])
def test_the_divergence_is_that_of_quadrature(model: str) -> None:
    """E log q - log p over draws, against the sum of q (log q - log p) over a grid."""
    generator = torch.Generator().manual_seed(0)
    flow = density_matching._build(model, 4, generator).for_evaluation(PerRowOptions(atol=1e-8, rtol=1e-8))
    target = POTENTIALS["ring"]
    with torch.no_grad():
        drawn = density_matching._divergences(flow, target, 20_000, generator)
        axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
        log_prob = flow.log_prob(points)
        summed = (log_prob.exp() * (log_prob - target.log_prob(points))).sum() * (12 / 240) ** 2
    error = drawn.std() / len(drawn) ** 0.5
    assert abs(drawn.mean() - summed) < 4 * error + 1e-3 * summed.abs()


def test_training_lowers_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    flow = density_matching._build("planar", 8, generator)
    recipe = Recipe("adamw", 1e-2, 128)
    curve = density_matching._train(flow, POTENTIALS["wave"], recipe, None, 500, generator, lambda text: None)
    assert len(curve) == density_matching.POINTS and curve[-1, 1] == 500
    assert (np.diff(curve[:, :2], axis=0) >= 0).all()
    assert curve[-5:, 2].mean() < curve[:5, 2].mean() - 0.2


def test_the_quick_study_runs_to_its_page(tmp_path: Path) -> None:
    found = reproduce("density-matching", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    (table,) = found.findings.tables
    assert [row[:2] for row in table.rows] == [
        (target, size) for target in ("ring", "split wave") for size in ("2", "8")
    ]
    # Of each target: the truth and two flows.
    assert len(found.findings.images) == 6
    truth = found.findings.images[0]
    mass = np.trapezoid(np.trapezoid(truth.density, truth.y), truth.x)
    assert mass == pytest.approx(1, abs=0.02)


def test_the_verdict_follows_the_figures() -> None:
    study = DensityMatching()
    trials = study.trials("quick")
    axis = np.linspace(-1, 1, 3)

    def measured(gap: float) -> list[tuple[Trial, Measurement]]:
        noise = np.random.default_rng(0)
        return [
            (
                trial,
                Measurement(
                    {
                        "kl": (gap if trial.values["model"] == "planar" else 0.0) + 1e-6 * noise.normal(),
                        "steps": 10.0,
                    },
                    {"curve": np.ones((3, 3)), "density": np.ones((3, 3)), "axis": axis},
                ),
            )
            for trial in trials
        ]

    assert study.conclude(measured(0.1), "quick").verdict == "reproduced"
    behind = study.conclude(measured(-0.1), "quick")
    assert behind.verdict == "not reproduced" and "Above it: ring, 2; ring, 8; split wave, 2" in behind.reason
    level = study.conclude(measured(0.0), "quick")
    assert level.verdict == "not reproduced" and "Not told apart: ring, 2" in level.reason
    assert dataclasses.asdict(study.claim)["name"] == "density-matching"
