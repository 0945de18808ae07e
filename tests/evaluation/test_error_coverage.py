"""Stated errors of fitted models against solves at 1e-12, as tables of three widths need them."""

from functools import cache

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor

from flowbench.data import load_dataset
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.reported import reported_likelihoods
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import Watch, build_encoder, make_trainer, prepare

pytestmark = pytest.mark.slow
ROWS = 2000


def bent_table() -> Tensor:
    """Nine columns that hang together: clouds on four directions, bent, with a little noise."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = normal(20_000, 4) + 2 * normal(3, 4)[torch.randint(3, (20_000,), generator=generator)]
    return torch.tanh(hidden @ normal(4, 9) / 2) + 0.1 * normal(20_000, 9)


def tables() -> dict[int, Tensor]:
    cancer = torch.tensor(load_breast_cancer().data)
    return {2: torch.tensor(load_dataset("pinwheel", rows=50_000).rows), 9: bent_table(), 30: cancer}


@cache
def fitted(features: int) -> tuple[DensityModel, Tensor, Tensor]:
    """A model after a few hundred steps, rows to score, and their log-likelihoods at 1e-12."""
    rows = tables()[features]
    config = resolve("moons" if features == 2 else "array", overrides={"plan.steps": 1500})
    held_out = len(rows) // 5
    columns = tuple(f"x{i}" for i in range(features))
    prepared = prepare(config, build_encoder(config, columns), Rows(rows[held_out:]), Rows(rows[:held_out]))
    make_trainer(prepared, Watch()).run()
    x = rows[:ROWS]
    if len(x) < ROWS:  # a small table: the rest are drawn from the model
        exact = prepared.model.for_evaluation(PerRowOptions())
        drawn, _ = exact.sample_and_log_prob(ROWS - len(x), torch.Generator().manual_seed(0))
        x = torch.cat([x, drawn])
    reference = prepared.model.for_evaluation(PerRowOptions(atol=1e-12, rtol=1e-12, max_nfe=100_000))
    return prepared.model, x, reference.log_prob(x)


@cache
def measured(features: int, tolerance: float, error_rows: int) -> tuple[float, float]:
    """The share of rows whose error covers them, and the median stated error over the median true one."""
    model, x, reference = fitted(features)
    solver = PerRowOptions(atol=tolerance, rtol=tolerance)
    reported = reported_likelihoods(model, x, EvaluationOptions(integrator=solver, error_rows=error_rows))
    errors = (reported.log_prob - reference).abs()
    covered = (errors <= reported.error).double().mean().item()
    wide = (reported.error.median() / errors.median()).item()
    print(
        f"d={features} tolerance={tolerance:g} refined={error_rows}: {covered:.4f} covered, {wide:.1f} wide"
    )
    return covered, wide


CASES = [
    (features, tolerance, error_rows)
    for features in (2, 9, 30)
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6)
    for error_rows in (ROWS, 500)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_stated_error_holds_for_99_in_100_rows(case: tuple[int, float, int]) -> None:
    covered, _ = measured(*case)
    assert covered >= 0.99


#: Cases that miss the bound, and by how much.
TOO_WIDE = {(2, 1e-6, 500): 11.0, (9, 1e-4, 500): 10.1}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.xfail(reason=f"{TOO_WIDE[case]} times too wide"))
        if case in TOO_WIDE
        else case
        for case in CASES
    ],
    ids=str,
)
def test_the_stated_error_is_at_most_ten_times_too_wide(case: tuple[int, float, int]) -> None:
    _, wide = measured(*case)
    assert wide <= 10
