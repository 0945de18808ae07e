"""Batches drawn by weights, and validation by weighted means."""

import numpy as np
import pytest
import torch

from flowbench.errors import ConfigurationError
from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows
from flowbench.statistics.paired import estimate_mean
from flowbench.training.criterion import RowCriterion
from flowbench.training.judge import Judgement
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.training.training_rows import TrainingRows

WEIGHTS = torch.tensor([1.0, 0.5, 4.0, 1e-9, 2.5])


def numbered(weights: torch.Tensor | None = WEIGHTS) -> Rows:
    number = torch.arange(5.0)[:, None]
    return Rows(torch.cat([number, torch.randn(5, 1)], 1), number, weights)


@pytest.mark.parametrize("is_smoothed", [False, True])
def test_rows_are_drawn_by_their_weights(is_smoothed: bool) -> None:
    rows = numbered()
    smoother = None
    if is_smoothed:
        mixture = Mixture(2, 1)
        mixture.fit(torch.randn(50, 2), context=torch.randn(50, 1))
        smoother = SmoothedBootstrap(rows, mixture)
    drawn = TrainingRows(rows, rows, None, smoother).draw(40_000, 0.1, torch.Generator().manual_seed(0))
    # They count alike: a weight must not count twice.
    assert drawn.weights is None
    assert drawn.context is not None
    shares = np.bincount(drawn.context[:, 0].long(), minlength=5) / 40_000
    assert shares == pytest.approx(WEIGHTS.numpy() / 8, abs=0.012)


def test_the_last_row_is_drawn_and_none_beyond() -> None:
    rows = numbered(torch.tensor([0.0, 0.0, 0.0, 0.0, 1e-30]))
    drawn = TrainingRows(rows, rows).draw(100, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.x, rows.x[4].expand(100, -1))


def test_parts_keep_their_weights() -> None:
    rows = numbered()
    parts = rows.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    whole = Rows.join(parts)
    assert whole.weights is not None and torch.equal(whole.weights, WEIGHTS)
    chosen = rows[torch.tensor([2, 0])].at(torch.zeros(2, 2))
    assert chosen.weights is not None and chosen.weights.tolist() == [4.0, 1.0]
    assert rows.unweighted.weights is None
    assert RowCriterion().weights(rows) is WEIGHTS


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one number for each of the 3 rows"):
        Rows(torch.zeros(3, 2), None, torch.ones(4))


def test_large_weights_fit_into_float32() -> None:
    rows = Rows.of_arrays(np.zeros((2, 1)), None, np.array([1e300, 2e300]))
    assert rows.each(torch.Tensor.float).weights is not None
    assert rows.weights is not None and rows.weights.tolist() == [0.5, 1.0]


def judged(nll: np.ndarray, weights: np.ndarray | None) -> Judgement:
    each = torch.from_numpy(nll)
    return Judgement(-each, each, None, "", 0.0, None if weights is None else torch.from_numpy(weights))


def test_a_judgement_is_a_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    nll, weights = rng.normal(size=40), rng.exponential(size=40)
    assert judged(nll, weights).nll == pytest.approx(np.average(nll, weights=weights))
    assert judged(np.full(40, np.inf), weights).nll == np.inf


def test_weights_decide_what_is_level() -> None:
    best, rng = np.zeros(200), np.random.default_rng(1)
    worse = rng.normal(0.1, 1, 200)
    worse[:20] += 3
    weights = np.where(np.arange(200) < 20, 20.0, 1.0)
    assert judged(worse - worse.mean(), None).is_level_with(judged(best, None))
    estimate = estimate_mean(worse, weights)
    assert estimate.standard_error is not None and estimate.mean > 2 * estimate.standard_error
    assert not judged(worse, weights).is_level_with(judged(best, weights))
