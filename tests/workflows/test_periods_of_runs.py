"""Periodic columns, from the table to scores, draws and the report."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import vonmises
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.cli.app import run_app
from flowbench.data.periods import Period
from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.report import write_report
from flowbench.statistics.ensembles import crps
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=60", "evaluation.samples=100", "evaluation.grid=20", "evaluation.paths=5"]


def table(n: int = 800) -> pd.DataFrame:
    """Whole hours around midnight, directions of a wind around north, and its speed."""
    rng = np.random.default_rng(0)
    angle = np.mod(vonmises.rvs(1.5, size=n, random_state=rng), 2 * np.pi)
    hour = np.mod(np.rint(12 / np.pi * vonmises.rvs(0.8, size=n, random_state=rng)), 24)
    speed = np.cos(angle) + 0.5 * np.sin(np.pi / 12 * hour) + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"hour": hour.astype(int), "direction": np.rad2deg(angle).round(1), "speed": speed})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    table().to_csv(folder / "datasets" / "table.csv", index=False)
    return Home(folder)


def fitted(home: Home, values: Mapping[str, Any], model: str = "mixture", watch: Watch | None = None) -> Run:
    hours = "hour" in values.get("data.columns", ("hour",)) and "data.given" not in values
    standing = {"plan.steps": 40, "data.dequantise": "hour=1" if hours else "none"}
    settings = [*SMALL, *LOOSE_SOLVES, *SMALL_MODELS.get(model, [])]
    config = resolve("table", model, overrides={**standing, **values}, settings=settings)
    return fit(config, home=home, watch=watch)


def asked(folder: Path, **columns: list[float]) -> str:
    path = folder / "asked.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("model", ["cnf", "mixture"])
def test_draws_stay_within_the_period_and_every_number_has_a_score(
    home: Home, tmp_path: Path, model: str
) -> None:
    run = fitted(home, {"evaluation.certificates": False}, model)
    assert run.dataset["periodic"] == {"hour": [0, 24], "direction": [0, 360]}
    assert not set(run.dataset.get("support", {})) & {"hour", "direction"}
    drawn = sample(run, 500, home=home)
    hour, direction, _ = drawn.x.T
    assert set(hour.tolist()) <= set(range(24)) and {0, 23} <= set(hour.tolist())
    # Decimals are rounded as in the table, and 360.0 is 0.0.
    assert ((direction >= 0) & (direction < 360)).all()
    np.testing.assert_allclose(direction, direction.round(1), atol=1e-9)
    assert np.isfinite(drawn.log_prob).all()
    rows = asked(
        tmp_path,
        hour=[0, 24, -24, 23, -1, 0],
        direction=[10.0, 370.0, -350.0, 359.9, -0.1, 0.0],
        speed=[1.0, 1.0, 1.0, 0.5, 0.5, 1.0],
    )
    found = score(run, rows, home=home)
    assert np.isfinite(found.log_prob).all() and not found.flagged.any()
    np.testing.assert_allclose(found.log_prob[1:3], found.log_prob[0], atol=1e-9)
    np.testing.assert_allclose(found.log_prob[4], found.log_prob[3], atol=1e-9)
    (tmp_path / "alone").mkdir()
    alone = score(run, asked(tmp_path / "alone", hour=[23], direction=[359.9], speed=[0.5]), home=home)
    np.testing.assert_allclose(alone.log_prob[0], found.log_prob[3], atol=1e-9)


def test_hours_add_up_to_one_and_come_close_to_their_shares(home: Home, tmp_path: Path) -> None:
    run = fitted(home, {"data.columns": ("hour",)})
    found = np.exp(score(run, asked(tmp_path, hour=list(range(24))), home=home).log_prob)
    # Each is a lower bound of the probability of its cell, by Jensen's inequality.
    assert 0.97 < found.sum() <= 1 + 1e-9
    angle = np.pi / 12 * (np.arange(25) - 0.5)
    truth = np.diff(vonmises.cdf(angle, 0.8))
    assert (truth * np.log(truth / found)).sum() < 0.03


def test_the_certificates_of_a_periodic_density_pass(home: Home) -> None:
    run = fitted(home, {"data.columns": ("direction", "speed")}, "planar")
    certificates = run.read_results().certificates
    assert {"normalisation", "round_trip", "jacobian", "batch_invariance"} <= set(certificates)
    assert all(each.passed for each in certificates.values()), certificates
    grid = run.read_results().grid
    assert grid is not None and grid.x.min() > 0 and grid.x.max() < 360
    evaluate(run, home=home)


def test_a_fit_of_a_periodic_density_is_close_to_the_truth(home: Home, tmp_path: Path) -> None:
    run = fitted(home, {"data.columns": ("direction",), "data.dequantise": "none"})
    degrees = np.arange(0.25, 360, 0.5)
    found = score(run, asked(tmp_path, direction=degrees.tolist()), home=home).log_prob
    truth = vonmises.logpdf(np.deg2rad(degrees), 1.5) + np.log(np.pi / 180)
    assert np.exp(found).sum() * 0.5 == pytest.approx(1, abs=1e-3)
    assert (np.exp(truth) * (truth - found)).sum() * 0.5 < 0.03


def test_a_given_column_that_is_periodic_has_no_cut(home: Home, tmp_path: Path) -> None:
    run = fitted(home, {"data.given": ("hour", "direction"), "evaluation.certificates": False})
    model = StoredRun(run).model
    assert model.givens is not None and model.givens.width == 4 and not model.encoder.circle
    assert StoredRun(run).periods == {"hour": Period(0, 24), "direction": Period(0, 360)}
    rows = asked(tmp_path, hour=[0, 24, -24], direction=[0.0, 360.0, 720.0], speed=[1.0, 1.0, 1.0])
    found = score(run, rows, home=home).log_prob
    np.testing.assert_allclose(found, found[0], atol=1e-9)
    run = fitted(home, {"data.given": ("speed",), "data.columns": ("direction",)}, "planar")
    assert run.read_results().certificates["normalisation"].passed
    drawn = sample(run, 50, given={"speed": 0.5}, home=home).x
    assert ((drawn >= 0) & (drawn < 360)).all()
    assert 0 < evaluate(run, home=home)["crps_1"].value < 90


def test_an_atom_of_a_periodic_column_has_one_copy(tmp_path: Path) -> None:
    """Calms are 0, and north is 360."""
    rng = np.random.default_rng(0)
    n = 900
    direction = np.rad2deg(np.mod(vonmises.rvs(1.5, size=n, random_state=rng), 2 * np.pi))
    calm = rng.random(n) < 0.3
    direction[calm] = 0
    direction[np.flatnonzero(~calm)[:5]] = 360
    home = Home(tmp_path)
    (tmp_path / "datasets").mkdir()
    pd.DataFrame({"direction": direction, "speed": rng.normal(size=n)}).to_csv(
        tmp_path / "datasets" / "table.csv", index=False
    )
    told: list[str] = []
    run = fitted(home, {"data.dequantise": "none"}, watch=Watch(on_table=told.append))
    assert run.dataset["atoms"] == {"direction": [0]}
    assert any("5 of 900 values lie outside its period, from 0 to 360" in text for text in told)
    drawn = sample(run, 1000, home=home).x[:, 0]
    assert ((drawn >= 0) & (drawn < 360)).all() and abs((drawn == 0).mean() - 0.3) < 0.06
    degrees = np.arange(0.25, 360, 0.5)
    # At one speed: the density of directions given it, and that there is no calm.
    directions = [*degrees, 360.0, 1e-7, 0.0]
    rows = asked(tmp_path, direction=directions, speed=[0.2] * len(directions))
    own = score(run, rows, home=home)
    assert own.log_mass is not None
    assert np.exp(own.log_mass[[0, -1]]).sum() == pytest.approx(1, abs=1e-3)
    log_density = own.log_prob - own.log_mass
    assert log_density[-3] == pytest.approx(log_density[-2], abs=0.2)
    # Of a calm it is the density of the speed alone.
    speed = np.exp(-0.02) / np.sqrt(2 * np.pi)
    assert np.exp(log_density[-1]) == pytest.approx(speed, rel=0.3)
    assert np.exp(log_density[:-3]).sum() * 0.5 == pytest.approx(speed, rel=0.3)


def test_a_run_goes_on_with_the_same_periods(home: Home) -> None:
    """Both from a saved state and from before there was one."""
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) > 3

    run = fitted(home, {"data.given": ("hour",)}, "planar", Watch(should_stop=stop))
    assert run.status == "interrupted"
    saved = StoredRun(run).load_state()
    assert saved.encoder.circle.periods == {"direction": Period(0, 360)}
    assert saved.givens is not None and saved.givens.circular.periods == {"hour": Period(0, 24)}
    (run.path / "resume.safetensors").rename(run.path / "kept")
    assert StoredRun(run).load_state().encoder.circle.periods == {"direction": Period(0, 360)}
    (run.path / "kept").rename(run.path / "resume.safetensors")
    resume(run, home=home)
    assert StoredRun(run).model.encoder.circle.periods == {"direction": Period(0, 360)}
    file = run.path / "run.json"
    file.write_text(
        re.sub(r'("hour": \[)\s*0\.0,', r"\1", file.read_text(encoding="utf-8")), encoding="utf-8"
    )
    with pytest.raises(DamagedFileError, match="`periodic` of the data set"):
        _ = StoredRun(home.run(run.name)).model


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data.periodic": "height=24"}, "`periodic`: unknown column `height`"),
        ({"data.periodic": "hour"}, "takes auto, none, or periods"),
        ({"data.periodic": "hour=24", "data.support": "hour=-1:24"}, "`hour` is periodic and has no ends"),
    ],
)
def test_what_does_not_fit_is_refused(home: Home, values: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        fitted(home, values)
    with pytest.raises(ConfigurationError, match="is for tables"):
        fit(resolve("moons", "gaussian", overrides={"data.periodic": "x=4"}), home=home)


def test_a_density_has_few_periodic_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "datasets").mkdir()
    names = ["angle_a", "angle_b", "angle_c", "angle_d"]
    pd.DataFrame(rng.uniform(0, 360, (300, 4)), columns=names).to_csv(
        tmp_path / "datasets" / "table.csv", index=False
    )
    told: list[str] = []
    quick = {"data.dequantise": "none", "evaluation.certificates": False}
    run = fitted(Home(tmp_path), quick, "gaussian", Watch(on_table=told.append))
    assert list(run.dataset["periodic"]) == names[:3]
    assert any("`angle_d` is periodic too" in text for text in told)
    with pytest.raises(ConfigurationError, match="3 periodic columns"):
        fitted(Home(tmp_path), {**quick, "data.periodic": ",".join(f"{name}=360" for name in names)})


def test_fit_and_report_say_which_columns_are_periodic(
    home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", "table", "--model", "gaussian", "--home", str(home.path), "--name"]
    small = [part for each in (*SMALL, "evaluation.certificates=false") for part in ("--set", each)]
    assert run_app([*line, "found", *small]) == 0
    said = capfd.readouterr().err
    assert "olumn `hour` begins anew where it ends, from 0 to 24; `--periodic none` takes it" in said
    assert "periodic: hour from 0 to 24, direction from 0 to 360; a density has no cut there" in said
    assert run_app([*line, "shifted", "--periodic", "hour=24,direction=-180:180", *small]) == 0
    said = capfd.readouterr().err
    assert "values lie outside its period, from -180 to 180, and are moved into it" in said
    drawn = sample(home.run("shifted"), 200, home=home).x[:, 1]
    assert ((drawn >= -180) & (drawn < 180)).all() and drawn.min() < 0
    assert run_app([*line, "none", "--periodic", "none", *small]) == 0
    assert "periodic" not in capfd.readouterr().err
    page = tmp_path / "page"
    text = write_report([home.run("found")], page).markdown.read_text(encoding="utf-8")
    assert "Periodic: hour \\(from 0 to 24\\) and direction \\(from 0 to 360\\)." in text
    text = write_report([home.run("found"), home.run("none")], page).markdown.read_text(encoding="utf-8")
    assert "The models differ in the columns that they take for periodic" in text


def test_the_ranked_probability_score_goes_round() -> None:
    rng = np.random.default_rng(0)
    draws, values = rng.uniform(0, 24, (5, 40)), rng.uniform(0, 24, 5)

    def apart(a: float, b: float) -> float:
        return min(abs(a - b), 24 - abs(a - b))

    for number, (own, value) in enumerate(zip(draws, values, strict=True)):
        to_value = np.mean([apart(each, value) for each in own])
        pairs = [apart(own[i], own[j]) for i in range(40) for j in range(40) if i != j]
        expected = to_value - np.mean(pairs) / 2
        assert crps(draws, values, 24.0)[number] == pytest.approx(expected)
    # On a circle that is far longer than the values spread, it is that of the line.
    np.testing.assert_allclose(crps(draws, values, 1e6), crps(draws, values))
