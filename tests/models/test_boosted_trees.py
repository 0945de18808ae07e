"""Boosted trees against the package that fits them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.classical import boosted_trees
from flowbench.models.classical.boosted_trees import BoostedTrees, BoostedTreesOptions
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.training.state import from_arrays, to_arrays


def steps(n: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows whose mean jumps with the first given and whose spread grows with the second."""
    generator = torch.Generator().manual_seed(seed)
    context, noise = (torch.randn(n, k, generator=generator) for k in (2, features))
    return 2 * (context[:, :1] > 0.3) + (0.3 + 0.5 * (context[:, 1:] > 0)) * noise, context


def build(features: int, givens: int, **values: object) -> BoostedTrees:
    options = BoostedTreesOptions(**values)
    return BoostedTrees(features, options, torch.Generator().manual_seed(0), givens)


def test_the_arrays_predict_what_ngboost_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, context = steps(400, 1)
    made, make = [], boosted_trees._regressor

    def remember(*arguments: object) -> object:
        made.append(make(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(boosted_trees, "_regressor", remember)
    density = build(1, 2, stages=60, learning_rate=0.1)
    density.initialise(x, context=context)
    at, given = steps(300, 1, seed=1)
    oracle = made[-1].pred_dist(given.numpy())
    found = density.log_prob(at.double(), context=given.double())
    assert len(density.stage_columns) == len(made[-1].scalings) > 5
    assert abs(found.numpy() - oracle.logpdf(at[:, 0].double().numpy())).max() < 1e-9


def test_a_column_without_inputs_is_normal() -> None:
    x = 3 + 2 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    density = build(1, 0)
    density.initialise(x)
    normal = torch.distributions.Normal(x.double().mean(), x.double().std(correction=0))
    expected = normal.log_prob(x.double()).sum(1)  # type: ignore[no-untyped-call]
    assert (density.log_prob(x.double()) - expected).abs().max() < 1e-6
    assert density.parameter_count == 2


def test_steps_are_learnt_and_later_columns_see_earlier_ones() -> None:
    x, context = steps(3000, 1)
    noise = torch.randn(3000, 1, generator=torch.Generator().manual_seed(1))
    both = torch.cat([x, x.sign() + 0.1 * noise], 1)
    density = build(2, 2, learning_rate=0.1)
    density.initialise(both[:2000], context=context[:2000])
    nll = -density.log_prob(both[2000:].double(), context=context[2000:].double()).mean().item()
    # The entropies of what was drawn: log-deviations of log 0.3 or log 0.8, and of log 0.1.
    entropy = np.log(2 * np.pi * np.e) + (np.log(0.3) + np.log(0.8)) / 2 + np.log(0.1)
    assert nll == pytest.approx(entropy, abs=0.15)


def test_a_spent_budget_ends_the_fit() -> None:
    x, context = steps(300, 2)
    told: list[str] = []
    density = build(2, 2)
    density.initialise(x, 0.0, told.append, context=context)
    assert not len(density.stage_columns)
    assert density.remarks == tuple(
        f"ngboost: column {column} has 0 stages only, since the time ran out" for column in (1, 2)
    )
    assert told == ["ngboost, column 1 of 2", "ngboost, column 2 of 2"]
    assert torch.isfinite(density.log_prob(x, context=context)).all()


def test_a_fit_needs_the_package_and_a_score_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, context = steps(200, 1)
    density = build(1, 2, stages=20, learning_rate=0.1)
    density.check_packages()
    density.initialise(x, context=context)
    expected = density.log_prob(x, context=context)
    write_tensors(tmp_path / "model.safetensors", to_arrays(density.state_dict()), {})
    monkeypatch.setitem(sys.modules, "ngboost", None)
    loaded = build(1, 2, stages=20, learning_rate=0.1)
    loaded.load_state_dict(from_arrays(read_tensors(tmp_path / "model.safetensors")[0]))
    assert torch.equal(loaded.log_prob(x, context=context), expected)
    monkeypatch.setattr(BoostedTrees, "packages", ("a_package_that_nobody_has",))
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[ngboost\]'"):
        loaded.check_packages()


def test_time_that_a_column_leaves_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    def boost(x: object, y: object, chosen: object, *, seconds: float, **_: object) -> boosted_trees._Boosted:
        shares.append(seconds)
        return boosted_trees._Boosted([], "")

    monkeypatch.setattr(boosted_trees, "_boost", boost)
    x, context = steps(50, 3)
    build(3, 2).initialise(x, 9.0, context=context)
    assert shares == pytest.approx([3.0, 4.5, 9.0], abs=0.5)
    build(3, 0).initialise(x, 9.0)
    assert shares[3:] == pytest.approx([4.5, 9.0], abs=0.5)


@pytest.mark.parametrize(
    "column",
    [
        torch.tensor([0.0] * 49 + [1.0]),  # hardly any spread, but for the last row
        torch.tensor([1.0] + [0.0] * 49),  # none without the first row
        torch.arange(50.0) % 3,
        torch.arange(50.0) ** 8,
    ],
)
def test_hard_columns_get_finite_densities(column: Tensor) -> None:
    context = torch.stack([torch.arange(50.0) % 3, torch.arange(50.0)], 1)
    x = ((column - column.mean()) / column.std()).unsqueeze(1)
    density = build(1, 2, learning_rate=0.5, stages=300)
    density.initialise(x, context=context)
    double = density.log_prob(x.double(), context=context.double())
    assert torch.isfinite(double).all()
    # The deviations stay above what float32 resolves, so both precisions tell about the same.
    assert (density.log_prob(x, context=context) - double).abs().max() < 0.1


@pytest.mark.parametrize("rows", [1, 2, 3, 12])
def test_few_rows_are_fitted_too(rows: int) -> None:
    x, context = steps(rows, 2)
    density = build(2, 2, stages=50)
    density.initialise(x, context=context)
    assert torch.isfinite(density.log_prob(x, context=context)).all()
    assert density.log_prob(x[:0], context=context[:0]).shape == (0,)
