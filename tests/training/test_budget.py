"""What of a budget is spent, when to validate and when to stop; with no flow and no clock."""

import math

import pytest

from flowbench.training import budget
from flowbench.training.plan import TrainingPlan
from flowbench.training.state import Counters


def plan(**values: object) -> TrainingPlan:
    return TrainingPlan(**values)


def test_steps_are_spent_by_their_number() -> None:
    assert budget.spent_share(plan(steps=80), Counters(), wall=1e9) == 0
    assert budget.spent_share(plan(steps=80), Counters(step=20), wall=0.0) == 0.25
    assert budget.spent_share(plan(steps=80), Counters(step=80), wall=0.0) == 1


def test_seconds_count_from_the_first_step_to_the_choice_of_the_weights() -> None:
    counters = Counters(began_at=10.0, held_back=20.0)
    assert budget.elapsed(counters, wall=45.0) == 35
    assert budget.spent_share(plan(seconds=100.0), counters, wall=10.0) == 0
    assert budget.spent_share(plan(seconds=100.0), counters, wall=45.0) == 0.5
    assert budget.spent_share(plan(seconds=100.0), counters, wall=80.0) == 1


def test_whichever_ends_first_is_what_is_spent() -> None:
    both = plan(steps=10, seconds=100.0)
    assert budget.spent_share(both, Counters(step=9), wall=20.0) == 0.9
    assert budget.spent_share(both, Counters(step=1), wall=20.0) == 0.2


@pytest.mark.parametrize("began_at", [100.0, 120.0])
def test_a_time_that_was_over_before_the_first_step_is_spent(began_at: float) -> None:
    assert budget.spent_share(plan(seconds=100.0), Counters(began_at=began_at), wall=began_at) == 1


def test_time_left_is_in_proportion_and_unknown_at_first() -> None:
    assert budget.seconds_left(0.25, 10.0) == 30
    assert budget.seconds_left(1.0, 10.0) == 0
    assert budget.seconds_left(1.1, 10.0) == 0
    assert math.isnan(budget.seconds_left(0.0, 0.0))


def due(chosen: TrainingPlan, steps: int) -> list[int]:
    return [
        step
        for step in range(1, steps + 1)
        if budget.validation_is_due(chosen, Counters(step=step), 0.0, 0.0)
    ]


def test_steps_are_validated_at_an_interval() -> None:
    assert due(plan(steps=100, validation_steps=30), 100) == [30, 60, 90]
    assert due(plan(steps=80), 8) == [2, 4, 6, 8]
    assert due(plan(steps=3), 3) == [1, 2, 3]


def test_an_interval_in_steps_goes_before_the_time() -> None:
    chosen = plan(seconds=40.0, validation_steps=30)
    assert due(chosen, 61) == [30, 60]
    assert not budget.validation_is_due(chosen, Counters(step=31), wall=39.0, took=0.0)


@pytest.mark.parametrize(
    ("validated_at", "took", "interval"),
    [
        (5.0, 0.0, 0.5),  # a tenth of the time so far
        (30.0, 0.0, 1.0),  # a fortieth of the budget
        (30.0, 0.2, 4.0),  # a twentieth of the time for validation
    ],
)
def test_a_time_is_validated_more_often_at_first(validated_at: float, took: float, interval: float) -> None:
    chosen, counters = plan(seconds=40.0), Counters(step=1, validated_at=validated_at)
    assert not budget.validation_is_due(chosen, counters, validated_at + 0.99 * interval, took)
    assert budget.validation_is_due(chosen, counters, validated_at + 1.01 * interval, took)


def test_time_for_the_choice_is_held_back_up_to_a_tenth_and_never_given_back() -> None:
    assert budget.time_to_hold_back(plan(seconds=50.0), Counters(), needed=2.0) == 2
    assert budget.time_to_hold_back(plan(seconds=50.0), Counters(), needed=20.0) == 5
    assert budget.time_to_hold_back(plan(seconds=50.0), Counters(held_back=3.0), needed=2.0) == 3
    assert budget.time_to_hold_back(plan(steps=50), Counters(), needed=2.0) == 0


def test_a_budget_is_stale_after_its_patience() -> None:
    counters = Counters(improved_at=0.25)
    assert not budget.is_stale(plan(steps=10, patience=0.5), counters, spent=0.74)
    assert budget.is_stale(plan(steps=10, patience=0.5), counters, spent=0.75)
    assert not budget.is_stale(plan(steps=10, patience=0.0), counters, spent=1.0)
