"""Log-likelihoods of a thousand rows of a trained model must not depend on the other rows of a batch."""

import numpy as np
import pytest
import torch

from flowbench.data import load_dataset
from flowbench.models.rows import Rows
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import Watch, build_encoder, make_trainer, prepare


def bent_columns(columns: int) -> np.ndarray:
    """Rows in which every second column is bent by the one before."""
    z = np.random.default_rng(0).standard_normal((12_000, columns))
    z[:, 1::2] += z[:, : columns - columns % 2 : 2] ** 2
    return z


@pytest.mark.slow
# Beyond 16 columns the waves have a hidden layer of their own.
@pytest.mark.parametrize("name, columns", [("2spirals", 2), ("checkerboard", 2), ("array", 9), ("array", 20)])
def test_together_one_by_one_and_shuffled(name: str, columns: int) -> None:
    rows = bent_columns(columns) if name == "array" else load_dataset(name, rows=12_000).rows
    config = resolve(name, "cnf", overrides={"plan.steps": 2000 if columns == 2 else 500})
    encoder = build_encoder(config, [f"x{i}" for i in range(columns)])
    train, validation = torch.tensor(rows[:10_000]), torch.tensor(rows[10_000:11_000])
    prepared = prepare(config, encoder, Rows(train), Rows(validation))
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
