"""The study of maximum likelihood measures what it says."""

from pathlib import Path

import numpy as np
import pytest

from flowbench.studies import maximum_likelihood
from flowbench.studies.against_planar import MODELS
from flowbench.studies.maximum_likelihood import MaximumLikelihood
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maximum_likelihood, "TEST_ROWS", 1000)
    monkeypatch.setattr(maximum_likelihood, "SIDE", 40)
    found = reproduce("maximum-likelihood", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    (table,) = found.findings.tables
    assert [row[0] for row in table.rows] == ["moons"]
    # Three seconds are enough to leave the base behind: its NLL of moons is above 4.
    assert all(1.5 < float(cell) < 3.5 for cell in table.rows[0][1:3])
    assert [image.title for image in found.findings.images] == ["moons: truth", "moons: cnf", "moons: planar"]
    for image in found.findings.images:
        mass = np.trapezoid(np.trapezoid(image.density, image.y), image.x)
        assert mass == pytest.approx(1, abs=0.1)
    assert {series.label for chart in found.findings.charts for series in chart.series} == {
        "cnf",
        "planar",
        "entropy",
    }


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0.1, "reproduced"), (-0.1, "not reproduced"), (0, "not reproduced")]
)
def test_the_verdict_follows_the_figures(gap: float, verdict: str) -> None:
    study, noise = MaximumLikelihood(), np.random.default_rng(0)

    def measured(trial: Trial) -> Measurement:
        nll = (gap if trial.values["model"] == MODELS[1] else 0.0) + 1e-6 * noise.normal()
        axis = np.linspace(-3, 3, 5)
        return Measurement(
            {"nll": nll, "kl": nll, "steps": 10.0},
            {"curve": np.ones((3, 3)), "density": np.ones((5, 5)), "x": axis, "y": axis},
        )

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == verdict
    assert ("Not on: circles, moons." in found.reason) == (gap <= 0)
