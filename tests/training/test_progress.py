"""Means of losses, and how often they are told."""

import math
import time

import pytest
import torch

from flowbench.training.progress import LossMeter, Throttle


def test_without_steps_there_is_no_loss() -> None:
    meter = LossMeter()
    assert meter.steps == 0
    assert math.isnan(meter.loss())
    assert meter.terms() == {}


def test_it_holds_the_means_over_the_steps() -> None:
    meter = LossMeter()
    for loss, nll in ((1.0, 5.0), (2.0, 6.0), (6.0, 10.0)):
        meter.add(loss, {"nll": torch.tensor(nll), "cost": torch.tensor(-nll)})
    assert meter.steps == 3
    assert meter.loss() == 3
    assert meter.terms() == {"nll": 7, "cost": -7}


def test_a_throttle_says_yes_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle, yes = Throttle(0.25), []
    for step in range(8):
        now = step / 8
        if throttle.is_due():
            yes.append(step)
    assert yes == [0, 3, 6]
