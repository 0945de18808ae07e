"""The study of spirals predicts what it says, and its verdict follows the figures."""

from pathlib import Path

import numpy as np
import pytest

from flowbench.data.series_toys import Spirals
from flowbench.studies import spirals
from flowbench.studies.reproduction import reproduce
from flowbench.studies.spirals import MODELS, STEPS, SpiralsStudy
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spirals.EXTENT, "quick", ((30,), 1, (), 1, 1.0))
    monkeypatch.setattr(spirals, "TRAIN", 100)
    monkeypatch.setattr(spirals, "VALIDATION", 20)
    monkeypatch.setattr(spirals, "TEST", 12)
    monkeypatch.setattr(spirals, "DRAWS", 4)
    found = reproduce("spirals", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    # A single seed tells nothing apart.
    assert found.findings.verdict == "not reproduced"
    main, more, _ = found.findings.tables
    assert main.rows[0][0] == "30" and main.rows[0][-2:] == ("0.1642", "0.3937")
    assert all(0 < float(cell) < 20 for cell in main.rows[0][1:4])
    # Recurrent networks are no smaller than the latent ODE.
    sizes = {row[1]: int(row[-1].replace(",", "")) for row in more.rows}
    assert all(sizes[name] >= sizes["latent-ode"] for name in MODELS)
    planes = [chart for chart in found.findings.charts if chart.is_plane]
    assert len(planes) == 2 * len(MODELS)
    for chart in planes:
        truth, _, beyond, seen = chart.series
        assert (len(truth.x), len(beyond.x), len(seen.x)) == (2 * STEPS, STEPS, 30) and seen.is_scatter
        # The points that are seen lie near the first half of the curve.
        gaps = np.hypot(seen.x[:, None] - truth.x[:STEPS], seen.y[:, None] - truth.y[:STEPS])
        assert gaps.min(1).max() < 5 * spirals.NOISE
    assert "curves on the plane" in found.page.read_text(encoding="utf-8")


def test_only_points_of_the_first_steps_are_seen() -> None:
    whole = Spirals(noise=0.1, points=2 * STEPS, steps=2 * STEPS).draw(10, 0)
    for series, seen in zip(
        (whole.series(i) for i in range(10)), spirals._seen(whole, 30, np.random.default_rng(0)), strict=True
    ):
        assert len(seen) == 30 and seen.times.max() < series.times[STEPS]
        places = np.searchsorted(series.times, seen.times)
        np.testing.assert_array_equal(series.values[places], seen.values)


@pytest.mark.parametrize(
    ("gap", "verdict", "reason"),
    [
        (0.1, "reproduced", "in 6 of 6 pairs"),
        (-0.1, "not reproduced", "It is above rnn at 30; rnn-dt at 30; rnn at 50;"),
        (0.0, "not reproduced", "Not told apart: rnn at 30"),
    ],
)
def test_the_verdict_follows_the_figures(gap: float, verdict: str, reason: str) -> None:
    study, noise = SpiralsStudy(), np.random.default_rng(0)
    curves = {
        "truth": np.zeros((2, 2 * STEPS, 2)),
        "found": np.zeros((2, 2 * STEPS, 2)),
        "seen": np.zeros((2, 30, 2)),
        "first": np.zeros(2),
        "rmse_by_step": np.ones(2 * STEPS),
    }

    def measured(trial: Trial) -> Measurement:
        rmse = 0.2 + (gap if trial.values["model"] != "latent-ode" else 0.0) + 1e-6 * noise.normal()
        return Measurement({"rmse": rmse, "rmse_inside": 0.1, "steps": 10.0, "parameters": 20.0}, curves)

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == verdict and reason in found.reason
    # The main noise and the two others.
    assert [row[0] for row in found.tables[2].rows] == ["0.03", "0.1", "0.3"]
