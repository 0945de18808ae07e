"""What held-out rows say of weights, without a training loop."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.models.density import Scores
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.models.rows import Rows
from flowbench.training.criterion import RowCriterion
from flowbench.training.judge import Judge, Judgement


def planar(seed: int = 0) -> PlanarFlow:
    return PlanarFlow(2, PlanarOptions(layers=3), torch.Generator().manual_seed(seed))


def held_out(n: int = 50) -> Rows:
    return Rows(torch.randn(n, 2, generator=torch.Generator().manual_seed(1)))


def test_it_judges_the_weights_that_it_is_given() -> None:
    flow, other, rows = planar(), planar(seed=5), held_out()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    found = Judge(flow, RowCriterion(), chunk=50)(dict(other.state_dict()), rows)
    expected = other.log_prob(rows.x).detach().double()
    assert torch.equal(found.log_prob, expected)
    assert torch.equal(found.each_nll, -expected)
    assert found.nll == pytest.approx(-expected.mean().item())
    assert found.is_solved and not found.fault and found.nfe is None and found.seconds > 0
    assert not found.log_prob.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def test_rows_are_scored_in_chunks() -> None:
    class Counted(PlanarFlow):
        sizes: list[int] = []

        def score(
            self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
        ) -> Scores:
            Counted.sizes.append(len(x))
            return super().score(x, generator, context=context)

    flow, rows = Counted(2, PlanarOptions(layers=3), torch.Generator().manual_seed(0)), held_out()
    weights = dict(flow.state_dict())
    parts = Judge(flow, RowCriterion(), chunk=20)(weights, rows)
    assert Counted.sizes == [20, 20, 10]
    torch.testing.assert_close(parts.log_prob, Judge(flow, RowCriterion(), chunk=50)(weights, rows).log_prob)


def test_a_failed_solve_is_an_answer() -> None:
    class Unsolvable(PlanarFlow):
        def score(
            self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
        ) -> Scores:
            raise IntegrationError("the solve met its cap")

    flow = Unsolvable(2, PlanarOptions(layers=3), torch.Generator())
    found = Judge(flow, RowCriterion(), chunk=50)(dict(flow.state_dict()), held_out())
    assert found.fault == "the solve met its cap"
    assert found.nll == math.inf and not found.is_solved
    assert found.nfe is None and torch.isnan(found.log_prob).all()


def test_one_row_without_a_number_is_no_figure_at_all() -> None:
    flow, rows = planar(), held_out()
    rows.x[3] = math.nan
    found = Judge(flow, RowCriterion(), chunk=50)(dict(flow.state_dict()), rows)
    assert found.nll == math.inf and torch.isinf(found.each_nll).all()
    assert found.fault == "some have no finite log-likelihood"
    assert not found.is_solved


def test_a_criterion_without_a_number_is_no_figure_either() -> None:
    class Infinite(RowCriterion):
        def nll(self, rows: Rows, log_prob: Tensor) -> Tensor:
            return torch.full_like(log_prob, -math.inf)

    flow = planar()
    found = Judge(flow, Infinite(), chunk=50)(dict(flow.state_dict()), held_out())
    assert found.nll == math.inf
    assert found.fault == "some have no finite log-likelihood"
    assert found.is_solved


def judged(each_nll: Tensor) -> Judgement:
    return Judgement(-each_nll, each_nll, None, "", 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_level_is_within_two_standard_errors_of_a_paired_comparison(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    best = torch.randn(40, generator=random, dtype=torch.float64)
    levels = []
    for drift in (-0.5, 0.0, 0.3, 0.6, 1.0):
        other = best + drift + torch.randn(40, generator=random, dtype=torch.float64)
        statistic = stats.ttest_rel(other.numpy(), best.numpy()).statistic
        levels.append(judged(other).is_level_with(judged(best)))
        assert levels[-1] == (statistic < 2)
    assert levels[0] and not levels[-1]


def test_what_broke_down_or_is_one_row_is_level_with_nothing() -> None:
    best = torch.zeros(5, dtype=torch.float64)
    broken = torch.full((5,), math.inf, dtype=torch.float64)
    assert not judged(broken).is_level_with(judged(best))
    assert not judged(broken).is_level_with(judged(broken))
    assert not judged(best[:1]).is_level_with(judged(best[:1]))
