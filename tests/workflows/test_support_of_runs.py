"""Columns with ends, from the table to scores and draws."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.cli.app import run_app
from flowbench.data.schema import POSITIVE, Support
from flowbench.errors import ConfigurationError, DataError
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=40", "evaluation.samples=100", "evaluation.grid=20", "evaluation.paths=5"]
SUPPORT = "waiting=0:,share=0:1,count=0:"


def table(n: int = 600) -> pd.DataFrame:
    """Waiting times with two decimals, shares, and counts that depend on the shares."""
    rng = np.random.default_rng(0)
    waiting, share = rng.exponential(2.0, n).clip(0.01), rng.beta(0.7, 2.0, n)
    count = rng.poisson(3 * share)
    return pd.DataFrame({"waiting": waiting.round(2), "share": share, "count": count})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    table().to_csv(folder / "datasets" / "table.csv", index=False)
    return Home(folder)


def fitted(
    home: Home, values: Mapping[str, object], model: str = "gaussian", watch: Watch | None = None
) -> Run:
    # Without dequantisation a column of decimals is rounded when it is drawn.
    standing = {"plan.steps": 40, "data.support": SUPPORT, "data.dequantise": "count=1"}
    settings = [*SMALL, *LOOSE_SOLVES, *SMALL_MODELS.get(model, [])]
    config = resolve("table", model, overrides={**standing, **values}, settings=settings)
    return fit(config, home=home, watch=watch)


# Ends are the affair of the encoder; a flow that solves, one that does not, and a mixture tell.
@pytest.mark.parametrize("model", ["cnf", "planar", "mixture"])
def test_no_model_draws_outside_and_scores_say_why_there_is_no_density(
    home: Home, tmp_path: Path, model: str
) -> None:
    run = fitted(home, {"evaluation.certificates": False}, model)
    drawn = sample(run, 400, home=home)
    waiting, share, count = drawn.x.T
    assert (waiting > 0).all() and ((share > 0) & (share < 1)).all()
    assert (count >= 0).all() and (count == count.round()).all()
    assert np.isfinite(drawn.log_prob).all()
    asked = pd.DataFrame(
        {"waiting": [-1.0, 1.0, 1.0, 1.0], "share": [0.5, 1.0, 0.5, 0.5], "count": [1, 1, -2, 1]}
    )
    asked.to_csv(tmp_path / "asked.csv", index=False)
    found = score(run, str(tmp_path / "asked.csv"), home=home)
    assert (found.log_prob[:3] == -np.inf).all() and np.isfinite(found.log_prob[3])
    assert (found.log_prob_error[:3] == 0).all()
    assert found.flagged.tolist() == [
        "the density is zero there: -1 is not above 0, as `waiting` has to be",
        "the density is zero there: 1 is not between 0 and 1, as `share` has to be",
        "the density is zero there: -2 is not above -0.5, as `count` has to be",
        "",
    ]


def test_ends_by_hand_stand_beside_those_that_are_found(home: Home) -> None:
    run = fitted(home, {"data.support": "auto,share=-1:2", "data.dequantise": "auto"})
    supports = StoredRun(run).model.encoder.support.supports
    assert supports["share"] == Support(-1.0, 2.0)
    assert supports["waiting"].low == pytest.approx(0.005)
    # In parentheses an end is no value.
    with pytest.raises(DataError, match=r"0 is not above 0\.5"):
        fitted(home, {"data.support": "count=(0:)"})


def test_the_density_integrates_to_one_between_its_ends(home: Home) -> None:
    values = {"data.columns": ("share",), "data.support": "share=0:1", "data.dequantise": "none"}
    run = fitted(home, {**values, "transforms": ["standardise"]})
    model = StoredRun(run).model.for_evaluation(StoredRun(run).config.evaluation.integrator)

    def density(x: float) -> float:
        with torch.no_grad():
            return float(model.log_prob(torch.tensor([[x]], dtype=torch.float64)).exp())

    # By x = sin(a)^2, whose derivative is zero at both ends.
    whole, _ = quad(lambda a: density(np.sin(a) ** 2) * np.sin(2 * a), 0, np.pi / 2, epsabs=1e-8)
    assert whole == pytest.approx(1, abs=1e-6)
    assert density(1.0) == density(-0.1) == 0


def test_a_run_goes_on_within_the_same_ends(home: Home) -> None:
    """Both from a saved state and from before there was one."""
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) > 3

    run = fitted(home, {}, "planar", Watch(should_stop=stop))
    assert run.status == "interrupted"
    supports = StoredRun(run).load_state().encoder.support.supports
    assert supports["waiting"] == POSITIVE and supports["share"] == Support(0.0, 1.0)
    assert supports["count"].low == pytest.approx(-0.5)
    described = StoredRun(run)._described_support().supports
    assert described == supports
    resume(run, home=home)
    assert StoredRun(run).model.encoder.support.supports == supports


@pytest.mark.parametrize(
    ("support", "error", "says"),
    [
        ("share=0:0.5", DataError, r"column `share`, row \d+: 0\.\d+ is not between 0 and 0\.5"),
        ("count=1:", DataError, r"column `count`, row \d+: 0 is not above 0\.5"),
        ("height=0:", ConfigurationError, "`support`: unknown column `height`"),
        ("share=1:0", ConfigurationError, "takes auto, none, or intervals"),
        ("share", ConfigurationError, "takes auto, none, or intervals"),
        ("share=0:1,share=0:2", ConfigurationError, "names `share` twice"),
    ],
)
def test_what_does_not_fit_is_refused(home: Home, support: str, error: type[Exception], says: str) -> None:
    before = sorted(home.runs.iterdir()) if home.runs.exists() else []
    with pytest.raises(error, match=says):
        fitted(home, {"data.support": support})
    assert (sorted(home.runs.iterdir()) if home.runs.exists() else []) == before


def test_fit_and_report_say_which_columns_have_ends(
    home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", "table", "--model", "gaussian", "--home", str(home.path), "--name"]
    small = [part for each in SMALL for part in ("--set", each)]
    assert run_app([*line, "found", *small]) == 0
    said = capfd.readouterr().err
    # No waiting time is 0, so the least one with two decimals is 0.01.
    assert "columns with ends: waiting above 0.005, share above 0, count above -0.5; other" in said
    assert run_app([*line, "none", "--support", "none", *small]) == 0
    assert "columns with ends" not in capfd.readouterr().err
    page = tmp_path / "page"
    text = write_report([home.run("found")], page).markdown.read_text(encoding="utf-8")
    assert "Columns with ends: waiting above 0.005, share above 0 and count above -0.5." in text
    text = write_report([home.run("found"), home.run("none")], page).markdown.read_text(encoding="utf-8")
    assert "The models differ in the values that a column can have" in text
