"""The learning rate and the smoothing over a phase."""

import pytest

from flowbench.training.plan import Phase
from flowbench.training.schedule import learning_rate, smoothing_width


def test_cosine_schedule_with_warm_up() -> None:
    phase = Phase(learning_rate=1.0, warmup_steps=9)
    assert learning_rate(phase, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(phase, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(phase, 50, 0.5) == pytest.approx(0.5)
    assert learning_rate(phase, 50, 1.0) == pytest.approx(0.0)
    late = phase.model_copy(update={"decline": 0.2})
    assert learning_rate(late, 50, 0.8) == pytest.approx(1.0)
    assert learning_rate(late, 50, 0.9) == pytest.approx(0.5)
    assert learning_rate(late, 50, 1.0) == pytest.approx(0.0)
    assert learning_rate(phase.model_copy(update={"decline": 0.0}), 50, 1.0) == pytest.approx(1.0)


def test_the_rate_is_in_units_of_the_phase() -> None:
    phase = Phase(learning_rate=1.0, warmup_steps=3)
    scaled = phase.model_copy(update={"learning_rate": 0.25})
    for step, fraction in ((0, 0.0), (2, 0.3), (100, 0.7)):
        assert learning_rate(scaled, step, fraction) == 0.25 * learning_rate(phase, step, fraction)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(Phase(learning_rate=3.0, warmup_steps=0), 0, 0.0) == pytest.approx(3.0)


def test_smoothing_falls_evenly_to_zero() -> None:
    phase = Phase(smoothing=0.8)
    widths = [smoothing_width(phase, fraction) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert widths == pytest.approx([0.8, 0.6, 0.4, 0.0])
    assert smoothing_width(Phase(), 0.3) == 0
