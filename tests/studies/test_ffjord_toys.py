"""The study of FFJORD's recipe: what it measures, and when it has a verdict."""

from pathlib import Path

import numpy as np
import pytest

from flowbench.registry import TOYS
from flowbench.studies import ffjord_toys
from flowbench.studies.ffjord_toys import FFJORD, FfjordToys
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ffjord_toys.EXTENT, "quick", (("8gaussians",), 1, 1.0, 200))
    monkeypatch.setattr(ffjord_toys, "SIDE", 40)
    monkeypatch.setattr("flowbench.data.catalogue.DEFAULT_TOY_ROWS", 20_000)
    found = reproduce("ffjord-toys", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    assert found.findings.verdict == "not comparable" and "10,000 iterations" in found.findings.reason
    table, costs = found.findings.tables
    (row,) = table.rows
    # NLL is KL plus the cross term, which is the entropy within the error of 200 rows.
    kl, nll = float(row[1].split()[0]), float(row[4])
    assert nll - kl == pytest.approx(TOYS.get("8gaussians")().entropy, abs=0.3)
    steps, _, seconds = (float(cell) for cell in costs.rows[0][1:4])
    assert steps >= 1 and seconds >= 1
    for image in found.findings.images:
        mass = np.trapezoid(np.trapezoid(image.density, image.y), image.x)
        assert mass == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("steps", "nfe", "verdict"),
    [(500, 80, "not comparable"), (10_000, 80, "reproduced"), (10_000, 120, "not reproduced")],
)
def test_the_verdict_follows_the_figures(steps: float, nfe: float, verdict: str) -> None:
    study, noise = FfjordToys(), np.random.default_rng(0)

    def measured(trial: Trial) -> Measurement:
        recipe = trial.values["recipe"] == FFJORD
        gap = 0.5 if recipe and trial.values["toy"] != "moons" else 0.0
        axis, truth = np.linspace(-4, 4, 5), np.full(50, -2.0)
        return Measurement(
            {"steps": steps, "batch_nfe": nfe, "row_nfe": nfe, "cpu_seconds": 1.0, "nll": 2.0},
            {
                "log_prob": truth - gap + 1e-3 * noise.normal(size=50),
                "truth": truth,
                "curve": np.ones((3, 3)),
                "density": np.ones((5, 5)),
                "x": axis,
                "y": axis,
            },
        )

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == verdict
    assert ("Outside 70 to 100: 8gaussians" in found.reason) == (verdict == "not reproduced")
    assert "on 7 of 8 toys. Not on: moons." in found.reason
