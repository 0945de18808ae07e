"""What `judge` says of a model that is right, one that is not, and one that repeats its train rows."""

import dataclasses

import numpy as np
import torch

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.suite import TESTS, judge
from flowbench.models.background import Background
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.classical.kernel import KernelDensity, KernelOptions
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.store import Results, RowSplit, Samples, ScoredRows

COLUMNS = ("a", "b")


def cloud(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, 2))
    correlated: np.ndarray = x @ np.array([[1.0, 0.5], [0.0, 1.0]])
    return correlated


def gaussian(scale: float = 1.0) -> DensityModel:
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator())
    flow.initialise(scale * torch.tensor(cloud(20_000, 9)))
    return DensityModel(TableEncoder(COLUMNS), flow).for_evaluation(PerRowOptions())


def results_of(model: DensityModel, rows: int = 1000) -> Results:
    x = cloud(rows, 1)
    drawn, log_prob = model.sample_and_log_prob(2000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scored = ScoredRows(np.arange(rows), x, model.log_prob(torch.tensor(x)).numpy())
    none = np.arange(0)
    return Results(
        COLUMNS, scored, Samples(drawn.numpy(), log_prob.numpy()), RowSplit(none, none, scored.row), {}
    )


def figures(model: DensityModel, results: Results | None = None) -> dict[str, float]:
    judged = judge(
        model, Rows(torch.tensor(cloud(3000, 2))), results or results_of(model), EvaluationOptions(), seed=0
    )
    return {name: metric.value for name, metric in judged.metrics.items()}


def p_values(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.endswith("_p_value")}


def test_a_model_that_is_right_passes_all() -> None:
    found = figures(gaussian())
    assert len(p_values(found)) == 2 * len(TESTS) + 4
    assert all(value > 0.01 for value in p_values(found).values())
    assert found["c2st_null_low"] < 0.5 < found["c2st_null_high"]
    for level in (50, 90, 95, 99):
        name = f"hdr_coverage_{level}"
        assert found[f"{name}_low"] <= level / 100 <= found[f"{name}_high"]


def test_rows_that_the_background_holds_are_not_held_against_the_flow() -> None:
    background = Background(2)
    background.mixture.fit(torch.tensor(5 + 0.1 * cloud(500, 3)))
    background.share.fill_(0.3)
    model = DensityModel(TableEncoder(COLUMNS), gaussian().flow, background).for_evaluation(PerRowOptions())
    x, log_prob = model.sample_and_log_prob(1000, torch.Generator().manual_seed(7))
    scored = ScoredRows(np.arange(1000), x.numpy(), log_prob.numpy())
    found = figures(model, dataclasses.replace(results_of(model), scored=scored))
    assert found["column_quantile_p_value"] > 0.01
    assert found["radial_quantile_p_value"] > 0.01


def test_a_model_that_is_too_broad_is_told_by_all_but_its_train_rows() -> None:
    found = figures(gaussian(1.5))
    told = {name for name, value in p_values(found).items() if value < 0.01}
    assert told >= {
        f"{name}_p_value" for name in (*TESTS, "density_rank", "column_quantile", "radial_quantile")
    }
    assert not any("floor" in name for name in told)
    assert found["hdr_coverage_50_low"] > 0.5
    assert found["memorisation_closer"] < 0.5


def test_a_model_that_repeats_its_train_rows_is_told() -> None:
    density = KernelDensity(2, KernelOptions(), torch.Generator())
    density.rows, density.factor = torch.tensor(cloud(3000, 2)).float() / 1e-3, 1e-3 * torch.eye(2)
    density.log_weights = torch.zeros(3000)
    model = DensityModel(TableEncoder(COLUMNS), density).for_evaluation(PerRowOptions())
    found = figures(model)
    assert found["memorisation_closer"] > 0.9
    assert found["memorisation_p_value"] < 1e-6
    assert "column_quantile_p_value" not in found


def test_bits_per_dim_is_nll_over_columns_and_log_two() -> None:
    results = results_of(gaussian())
    expected = -results.scored.log_prob.mean() / (2 * np.log(2))
    assert figures(gaussian(), results)["bits_per_dim"] == expected


def test_few_rows_get_no_tests() -> None:
    found = figures(gaussian(), results_of(gaussian(), rows=10))
    assert not any(name in found for name in TESTS)
    assert "hdr_coverage_90" in found


def test_the_same_seed_gives_the_same_figures() -> None:
    model = gaussian()
    results = results_of(model)
    small = dataclasses.replace(
        results, samples=Samples(results.samples.x[:200], results.samples.log_prob[:200])
    )
    assert figures(model, small) == figures(model, small)
