"""The study of the hopper asks what it says, and its verdict follows the figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d

from flowbench.data.hopper import Hopper
from flowbench.studies import hopper
from flowbench.studies.hopper import EPISODES, EXTENTS, PUBLISHED, SHA256, HopperStudy, Question
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.studies.timed_series_fit import build_for
from flowbench.workflows.home import Home

TINY = {"latent": 3, "width": 8, "layers": 1, "units": 8, "recognition_width": 8}


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(EXTENTS["quick"], episodes=50, validation=10, budget={"steps": 6}, model=TINY)
    monkeypatch.setitem(EXTENTS, "quick", tiny)
    found = reproduce("hopper", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    assert found.findings.verdict == "not comparable"
    (table,) = found.findings.tables
    assert [row[:2] for row in table.rows] == [("interpolation", "30%"), ("extrapolation", "30%")]
    assert table.rows[0][3] == "0.300" and table.rows[1][3] == "1.175"
    assert "height" in found.page.read_text(encoding="utf-8")
    # Of the pictures, the points that are seen lie on the curve, and beyond the first half there are none.
    inside, beyond = (
        each for each in found.findings.charts if each.title.endswith("height") and each.series[2].is_scatter
    )
    for chart, steps, last in ((inside, 100, 99), (beyond, 200, 99)):
        truth, drawn, seen = chart.series
        assert len(truth.x) == len(drawn.x) == steps and len(seen.x) == 30
        places = (seen.x / Hopper.STEP).round().astype(int)
        assert places.max() <= last
        np.testing.assert_array_equal(truth.y[places], seen.y)


@pytest.mark.parametrize("task", list(PUBLISHED))
def test_errors_are_those_of_the_authors_scale(task: str) -> None:
    """Straight lines, by scipy, in units of the greatest values; a series does not depend on the others."""
    toy, rng = Hopper(), np.random.default_rng(0)
    states = np.stack([toy.episode(rng) for _ in range(12)])
    unit = states.max((0, 1)).astype(np.float64)
    series = hopper._dataset(states)
    question = Question.of(Trial("x", {"task": task, "percent": 20}))
    model = {"recognition": "ode-rnn"} | TINY
    encoded = build_for(series, "latent-ode", model, torch.Generator().manual_seed(0))
    found = hopper._predict(encoded, series, question, torch.from_numpy(unit))
    batch, _ = encoded.encode([series.series(i) for i in range(12)])
    seen = question.seen(batch, torch.Generator().manual_seed(hopper.SEED))
    judged = slice(0, 200) if task == "interpolation" else slice(100, 200)
    for row in range(12):
        places = torch.isin(batch.times[row], seen.times[row]).nonzero()[:, 0].numpy()
        assert len(places) == (40 if task == "interpolation" else 20)
        known = states[row, places].astype(np.float64)
        line = interp1d(places, known, axis=0, bounds_error=False, fill_value=(known[0], known[-1]))
        squares = ((line(np.arange(200)) - states[row]) / unit) ** 2
        assert found["straight"][row] == pytest.approx(squares[judged].mean(), rel=1e-6)
    assert (found["mse"] > 0).all()


def test_the_first_states_are_those_that_were_hashed() -> None:
    """The seed and the order of the draws; later states may differ with the simulation."""
    study = HopperStudy()
    states = study._episodes(3)
    rng = np.random.RandomState(123)
    for own in states[:, 0]:
        # Coordinates lie in these ranges, and velocities below 5.
        first = np.concatenate([rng.uniform(0, 0.5, 2), rng.uniform(-2, 2, 5), rng.uniform(-5, 5, 7)])
        np.testing.assert_array_equal(own, first.astype(np.float32))
    assert study._episodes(2) is not states and np.array_equal(study._episodes(2), states[:2])
    assert len(SHA256) == 64


@pytest.mark.parametrize(
    ("off", "verdict", "reason"),
    [
        (-0.01, "reproduced", "in 8 of 8 cases. It is not below that of straight lines in: interpolation"),
        (0.01, "not reproduced", "Not in: interpolation from 10%;"),
    ],
)
def test_the_verdict_follows_the_figures(off: float, verdict: str, reason: str) -> None:
    study, rng = HopperStudy(), np.random.default_rng(0)

    def measured(trial: Trial) -> Measurement:
        task, percent = trial.values["task"], trial.values["percent"]
        mse = (PUBLISHED[task][percent] + off + 1e-4 * rng.standard_normal(50)) / 100
        steps = 100 if task == "interpolation" else 200
        curve = np.array([[1.0, 0.5], [2.0, 0.1]])
        states = np.zeros((steps, 14))
        arrays = {"mse": mse, "straight": mse / 2 if task == "interpolation" else 2 * mse}
        arrays |= {"curve": curve, "truth": states, "found": states, "seen": states}
        return Measurement({"steps": 10.0, "cpu_seconds": 2.0, "parameters": 5.0, "is_known": 0.0}, arrays)

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == verdict and reason in found.reason
    assert "extrapolation" not in found.reason.split("straight lines")[1]
    assert EXTENTS["default"].episodes == EPISODES
    # Another simulation is said to be one.
    assert any("not those of MuJoCo 3.17" in note for note in found.tables[0].notes)
