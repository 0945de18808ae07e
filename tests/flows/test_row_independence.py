"""A thousand rows of a trained model, whose log-likelihoods must not depend on who shares their batch."""

import pytest
import torch

from flowbench.config import resolve
from flowbench.data import load_dataset
from flowbench.preparation import Watch, make_trainer, prepare


@pytest.mark.slow
@pytest.mark.parametrize("toy", ["2spirals", "checkerboard"])
def test_together_one_by_one_and_shuffled(toy: str) -> None:
    config = resolve(toy, "cnf", overrides={"plan.steps": 2000})
    rows = load_dataset(toy, rows=12_000).rows
    prepared = prepare(config, ("x", "y"), rows[:10_000], rows[10_000:11_000])
    make_trainer(prepared, Watch()).run()
    model = prepared.model.for_evaluation(config.evaluation.integrator)
    x = torch.tensor(rows[11_000:])
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model.log_prob(x)
        alone = torch.cat([model.log_prob(row[None]) for row in x])
        shuffled = model.log_prob(x[order])
    assert (together - alone).abs().max() < 1e-9
    assert (together[order] - shuffled).abs().max() < 1e-9
