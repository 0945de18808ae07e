"""The NLL of held-out rows, with a background and without."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from flowbench.models.background import Background
from flowbench.models.rows import Rows
from flowbench.training.criterion import RowCriterion


def held_out() -> tuple[Rows, Tensor]:
    """Rows, and log-densities of a flow that gives every tenth of them next to nothing."""
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    log_prob = -x.double().square().sum(1)
    log_prob[::10] -= 50
    return Rows(x), log_prob


def background() -> Background:
    made = Background(2)
    made.mixture.fit(torch.randn(500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    return made


def test_alone_it_is_the_flows_own() -> None:
    rows, log_prob = held_out()
    assert torch.equal(RowCriterion().nll(rows, log_prob), -log_prob)
    RowCriterion().settle(rows, log_prob)


def test_transforms_move_it_to_data_units() -> None:
    rows, log_prob = held_out()
    torch.testing.assert_close(RowCriterion(log_det=1.5).nll(rows, log_prob), -log_prob - 1.5)


def test_a_background_takes_part_at_the_shares_that_suit_the_rows() -> None:
    rows, log_prob = held_out()
    own = background()
    before = own.share.item(), own.normal_share.item()
    found = RowCriterion(own).nll(rows, log_prob).numpy()
    a, b = own.best_shares(log_prob, rows.x)
    normal = multivariate_normal(np.zeros(2)).logpdf(rows.x.numpy())
    parts = np.stack([log_prob.numpy(), own.mixture.log_prob(rows.x.double()).numpy(), normal])
    shares = np.log([(1 - b) * (1 - a), (1 - b) * a, b])
    assert found == pytest.approx(-logsumexp(parts + shares[:, None], axis=0))
    assert found.mean() < -log_prob.mean().item()
    assert (own.share.item(), own.normal_share.item()) == before


def test_settling_gives_the_background_these_shares() -> None:
    rows, log_prob = held_out()
    own = background()
    criterion = RowCriterion(own)
    found = criterion.nll(rows, log_prob)
    criterion.settle(rows, log_prob)
    assert (own.share.item(), own.normal_share.item()) == own.best_shares(log_prob, rows.x)
    torch.testing.assert_close(own.mix(log_prob, rows.x), -found)
