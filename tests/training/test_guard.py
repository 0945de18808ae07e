"""What follows from a failed step, with a planted failure and no flow."""

import math

import pytest
import torch

from flowbench.errors import RunFailedError
from flowbench.training.guard import Guard, find_fault
from flowbench.training.state import Counters, TrainingState


def guard(max_rollbacks: int) -> Guard:
    return Guard(TrainingState({}, {}, {}, {}, torch.empty(0), Counters()), max_rollbacks)


def fail(kept: Guard, counters: Counters) -> Counters:
    return kept.roll_back(counters, fault="a planted fault", objective="likelihood", learning_rate=1e-3)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_loss_or_a_gradient_that_is_not_finite_is_a_fault(number: float) -> None:
    assert find_fault(1.0, 2.0) == ""
    assert find_fault(number, 2.0) == "the loss is not finite"
    assert find_fault(1.0, number) == "the gradient is not finite"


def test_each_return_halves_the_rate_and_counts_the_step() -> None:
    counters = Counters(step=10, rows=640, phase=1, phase_step=7, nll=3.0, best_nll=2.0)
    kept = guard(max_rollbacks=2)
    once = fail(kept, counters)
    assert once == counters.replace(step=11, rollbacks=1, rate_scale=0.5)
    assert fail(kept, once) == counters.replace(step=12, rollbacks=2, rate_scale=0.25)


def test_it_gives_up_with_a_diagnosis() -> None:
    said = (
        r"`likelihood` failed at step 12, after 2 returns to the last good weights.*\(now 0.001\): "
        "a planted fault; lower `learning_rate`"
    )
    with pytest.raises(RunFailedError, match=said):
        fail(guard(max_rollbacks=2), Counters(step=12, rollbacks=2))
    with pytest.raises(RunFailedError, match="after 0 returns"):
        fail(guard(max_rollbacks=0), Counters())
