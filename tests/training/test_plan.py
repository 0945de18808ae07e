"""What a plan asks for, and how it shares out budget and rows."""

import pytest

from flowbench.errors import ConfigurationError
from flowbench.training.plan import TrainingPlan


def test_a_plan_without_a_budget_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a budget"):
        TrainingPlan(**{"phases": [{}]})


def test_phases_share_the_budget() -> None:
    plan = TrainingPlan(**{"phases": [{"share": 3}, {"share": 1}], "steps": 100})
    assert plan.phase_at(0.0) == (0, 0.0)
    assert plan.phase_at(0.6) == (0, pytest.approx(0.8))  # type: ignore[comparison-overlap]
    assert plan.phase_at(0.75) == (1, pytest.approx(0.0))  # type: ignore[comparison-overlap]
    assert plan.phase_at(0.9) == (1, pytest.approx(0.6))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("rows", "divided"),
    [(700, (700, 0)), (1001, (1001, 0)), (1499, (1499, 0)), (1500, (1000, 500)), (9000, (1000, 5000))],
)
def test_few_further_rows_do_not_choose(rows: int, divided: tuple[int, int]) -> None:
    assert TrainingPlan(steps=1).divide(rows) == divided


def test_a_plan_may_ask_for_few_further_rows_or_none() -> None:
    assert TrainingPlan(steps=1, reserve_rows=3).divide(1200) == (1000, 3)
    assert TrainingPlan(steps=1, reserve_rows=0).divide(1200) == (1000, 0)
