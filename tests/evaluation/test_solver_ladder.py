"""A ladder of solvers: its figures against direct solves, and what it recommends."""

import dataclasses

import pytest
import torch
from bent import bent_flow

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.evaluation.solver_ladder import LADDER, climb
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.store.rung import Rung, recommend


def bent_model() -> DensityModel:
    return DensityModel(TableEncoder(("a", "b")), bent_flow())


def rows(n: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_every_rung_is_measured_against_a_tight_solve() -> None:
    seen = []
    rungs = climb(bent_model(), Rows(rows(60)), lambda done, total: seen.append((done, total)))
    assert len(rungs) == sum(len(settings) for *_, settings in LADDER)
    assert seen[-1] == (len(rungs), len(rungs))
    by_label = {rung.label: rung for rung in rungs}
    loose, tight = by_label["per-row dopri5 float64 0.001"], by_label["per-row dopri5 float64 1e-07"]
    assert loose.row_error is not None and tight.row_error is not None
    assert loose.row_error > 100 * tight.row_error
    assert loose.nfe is not None and tight.nfe is not None
    assert loose.nfe < tight.nfe
    for rung in (loose, tight):
        assert rung.low is not None and rung.bias is not None and rung.high is not None
        assert rung.low <= rung.bias <= rung.high
    solve = bent_model().for_evaluation(PerRowOptions(atol=1e-3, rtol=1e-3)).log_prob(rows(60))
    reference = bent_model().for_evaluation(PerRowOptions(atol=1e-11, rtol=1e-11)).log_prob(rows(60))
    assert loose.bias == pytest.approx((solve - reference).mean().item(), rel=1e-4)
    midpoint, rk4 = (by_label[f"native {one} steps"] for one in ("midpoint float64 10", "rk4 float64 80"))
    assert midpoint.worst_bias > rk4.worst_bias


def test_a_model_without_a_solver_is_refused() -> None:
    model = DensityModel(TableEncoder(("a", "b")), GaussianFlow(2, GaussianOptions(), torch.Generator()))
    with pytest.raises(ConfigurationError, match="solves no equation"):
        climb(model, Rows(rows(10)))


def rung(speed: float | None, low: float, high: float) -> Rung:
    solved = Rung("native", "rk4", "float64", 10, 40, speed, (low + high) / 2, low, high, 0.1)
    return solved if speed else dataclasses.replace(solved, low=None, high=None, bias=None)


def test_the_fastest_that_is_surely_good_enough_is_recommended() -> None:
    rungs = [rung(900, -2e-3, 1e-4), rung(500, -1e-4, 9e-4), rung(100, 0.0, 1e-6), rung(None, 0, 0)]
    assert recommend(rungs, 1e-3) is rungs[1]
    assert recommend(rungs, 1e-5) is rungs[2]
    assert recommend(rungs, 1e-9) is None
    assert recommend(rungs, 1e-2) is rungs[0]


def test_a_rung_gives_the_options_that_choose_it() -> None:
    assert rung(1, 0, 0).options == {"name": "native", "method": "rk4", "steps": 10}
    tolerance = dataclasses.replace(rung(1, 0, 0), method="dopri5", setting=1e-4)
    assert tolerance.options == {"name": "native", "method": "dopri5", "atol": 1e-4, "rtol": 1e-4}
    assert tolerance.label == "native dopri5 float64 0.0001"
