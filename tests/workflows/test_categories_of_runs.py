"""Tables with categories, from the file to scores, draws and reports."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.cli.app import run_app
from flowbench.errors import ConfigurationError, DataError
from flowbench.evaluation.normalisation import bridge_mass
from flowbench.models.conditioned import Conditioned
from flowbench.registry import MODELS
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import ScoredTable, score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=60", "evaluation.samples=200", "evaluation.paths=5"]
COLOURS = ("blue", "green", "red")


def table(n: int = 900, seed: int = 0) -> pd.DataFrame:
    """A colour, a truth value that depends on it, and two numbers whose means depend on both."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    old = rng.random(n) < np.array([0.2, 0.5, 0.9])[colour]
    width = rng.normal(colour * 2.0, 1 + old, n)
    height = rng.normal(width + 3 * old, 0.5, n)
    frame = pd.DataFrame({"width": width, "colour": np.array(COLOURS)[colour], "height": height, "old": old})
    return frame.astype({"old": bool})


def true_log_prob(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The log-mass of the categories plus the log-density of the numbers given these."""
    colour = frame["colour"].map({name: i for i, name in enumerate(COLOURS)}).to_numpy()
    old = frame["old"].to_numpy().astype(float)
    share = np.array([0.2, 0.5, 0.9])[colour]
    mass = np.array([0.5, 0.3, 0.2])[colour] * np.where(old == 1, share, 1 - share)
    width = -0.5 * ((frame["width"] - colour * 2.0) / (1 + old)) ** 2 - np.log(1 + old)
    height = -0.5 * ((frame["height"] - frame["width"] - 3 * old) / 0.5) ** 2 - np.log(0.5)
    return np.asarray(np.log(mass) + width + height - np.log(2 * np.pi))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    table().to_csv(folder / "datasets" / "table.csv", index=False)
    table().to_parquet(folder / "datasets" / "typed.parquet")
    return Home(folder)


def fitted(
    home: Home,
    model: str = "gaussian",
    values: Mapping[str, object] | None = None,
    *,
    dataset: str = "table",
    watch: Watch | None = None,
) -> Run:
    overrides = {"plan.steps": 30, "evaluation.certificates": False, **(values or {})}
    settings = [*SMALL, *LOOSE_SOLVES, *SMALL_MODELS.get(model, [])]
    return fit(resolve(dataset, model, overrides=overrides, settings=settings), home=home, watch=watch)


@pytest.fixture(scope="module")
def mixture(home: Home) -> Run:
    return fitted(home, "mixture", {"evaluation.certificates": True})


def scored(run: Run, frame: pd.DataFrame, folder: Path, home: Home) -> ScoredTable:
    path = folder / "rows.csv"
    frame.to_csv(path, index=False)
    return score(run, str(path), home=home)


def test_a_known_density_is_found(mixture: Run, home: Home, tmp_path: Path) -> None:
    held_out = table(2000, seed=1)
    kl = true_log_prob(held_out) - scored(mixture, held_out, tmp_path, home).log_prob
    assert abs(kl.mean()) < 0.1 + 3 * kl.std() / len(kl) ** 0.5
    wrong = held_out.assign(colour=held_out["colour"].to_numpy()[::-1])
    assert scored(mixture, wrong, tmp_path, home).log_prob.mean() < true_log_prob(held_out).mean() - 1


def test_every_model_gets_the_same_mass(home: Home, tmp_path: Path) -> None:
    held_out = table(50, seed=2)
    found = [scored(fitted(home, model), held_out, tmp_path, home) for model in ("gaussian", "planar", "cnf")]
    masses = [each.log_mass for each in found if each.log_mass is not None]
    assert len(masses) == 3
    np.testing.assert_array_equal(masses[0], masses[1])
    np.testing.assert_array_equal(masses[0], masses[2])
    assert not np.allclose(found[0].log_prob, found[1].log_prob)


def test_cells_add_up_to_one_and_each_density_does(mixture: Run, home: Home) -> None:
    model = StoredRun(mixture).model
    assert model.mass is not None and model.givens is not None
    cells = model.mass.enumerate()
    assert len(cells) == 4 * 3
    assert model.mass.log_prob(cells).exp().sum().item() == pytest.approx(1, abs=1e-12)
    for cell in cells[cells.isfinite().all(1)]:
        mass = bridge_mass(Conditioned(model, cell), torch.Generator().manual_seed(0))
        assert mass.value == pytest.approx(1, abs=0.01 + 3 * mass.standard_error)
    certificate = mixture.read_results().certificates["mass"]
    assert certificate.passed and "all 12 combinations of colour, old add up to 1.0" in certificate.text


@pytest.mark.parametrize("name", MODELS.names())
def test_a_row_has_one_number_in_any_company_order_and_unit(name: str, home: Home, tmp_path: Path) -> None:
    try:
        MODELS.get(name).check_packages()
    except ConfigurationError:
        pytest.skip(f"the package of {name} is not installed")
    run, rows = fitted(home, name), table(20, seed=3)
    found = scored(run, rows, tmp_path, home).log_prob
    assert np.isfinite(found).all()
    shuffled = rows.iloc[::-1][["old", "height", "colour", "width"]]
    np.testing.assert_allclose(scored(run, shuffled, tmp_path, home).log_prob[::-1], found, atol=1e-9)
    np.testing.assert_allclose(scored(run, rows.iloc[:1], tmp_path, home).log_prob, found[:1], atol=1e-9)


def test_other_units_change_likelihoods_by_a_known_constant(home: Home, tmp_path: Path) -> None:
    inches = table().assign(width=table()["width"] / 4)  # exact in floating point
    inches.to_csv(home.datasets / "inches.csv", index=False)
    rows = table(30, seed=3)
    first = scored(fitted(home, "mixture", {"data.dequantise": "none"}), rows, tmp_path, home)
    run = fitted(home, "mixture", {"data.dequantise": "none"}, dataset="inches")
    second = scored(run, rows.assign(width=rows["width"] / 4), tmp_path, home)
    np.testing.assert_allclose(second.log_prob, first.log_prob + np.log(4), atol=1e-6)
    np.testing.assert_array_equal(second.log_mass, first.log_mass)


def test_draws_have_the_types_and_levels_of_the_file(home: Home, tmp_path: Path) -> None:
    run = fitted(home, "mixture", dataset="typed")
    sample(run, 300, home=home).save(tmp_path / "drawn.parquet", run)
    drawn, source = (
        parquet.read_table(p) for p in (tmp_path / "drawn.parquet", home.datasets / "typed.parquet")
    )
    assert drawn.column_names[:4] == source.column_names
    assert [str(each).removeprefix("large_") for each in source.schema.types] == list(
        map(str, drawn.schema.types[:4])
    )
    assert set(drawn["colour"].to_pylist()) == set(COLOURS)
    assert set(drawn["old"].to_pylist()) == {True, False}
    parts = {name: drawn[name].to_numpy() for name in ("log_prob", "log_mass", "log_density")}
    np.testing.assert_allclose(parts["log_mass"] + parts["log_density"], parts["log_prob"], atol=1e-12)
    # What was drawn is scored alike, in every format.
    for ending in ("parquet", "csv", "h5"):
        path = tmp_path / f"again.{ending}"
        sample(run, 20, home=home).save(path, run)
        again = score(run, str(path), home=home)
        assert np.isfinite(again.log_prob).all() and not again.counts()


def test_draws_can_be_made_for_given_categories(mixture: Run, home: Home) -> None:
    drawn = sample(mixture, 400, given={"colour": "red", "old": "True"}, home=home)
    assert drawn.log_mass is None
    width = drawn.x[:, drawn.columns.index("width")]
    assert width.mean() == pytest.approx(4, abs=0.6)
    with pytest.raises(ConfigurationError, match="level of `colour`"):
        sample(mixture, 4, given={"colour": "pink", "old": "True"}, home=home)


def test_an_unknown_category_counts_as_any_other_and_is_flagged(
    mixture: Run, home: Home, tmp_path: Path
) -> None:
    found = scored(mixture, table(4).assign(colour=["red", "pink", "blue", ""]), tmp_path, home)
    assert found.flagged[0] == found.flagged[2] == ""
    assert "`colour` holds what it holds in no row of the fit" in found.flagged[1]
    assert found.log_mass is not None and found.log_mass[1] < found.log_mass[0] - 3
    assert np.isfinite(found.log_prob[1])
    assert found.flagged[3] == "missing cell in `colour`" and np.isnan(found.log_prob[3])


def test_an_interrupted_run_goes_on_to_the_same_weights(home: Home) -> None:
    whole = fitted(home, "planar")
    steps: list[int] = []
    watch = Watch(
        on_progress=lambda progress: steps.append(progress.step), should_stop=lambda: len(steps) > 1
    )
    stopped = fitted(home, "planar", watch=watch)
    assert stopped.info["status"] == "interrupted"
    resume(stopped, home=home)
    first, second = (StoredRun(run).model.state_dict() for run in (whole, stopped))
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)


def test_a_report_keeps_mass_and_density_apart(mixture: Run, home: Home, tmp_path: Path) -> None:
    results = mixture.read_results()
    assert results.scored.log_mass is not None
    nll = results.metrics["test_nll"].value
    parts = [results.metrics[f"test_nll_{name}"].value for name in ("mass", "density")]
    assert sum(parts) == pytest.approx(nll, abs=1e-12)
    page = write_report([mixture], tmp_path)
    text = page.markdown.read_text()
    for words in (
        "### Categories and numbers",
        "### Categories in test rows and in draws",
        "| colour | blue |",
    ):
        assert words in text
    described = json.loads(page.json.read_text())["datasets"][0]
    assert described["categories"] == ["colour", "old"] and described["given"] == []


def test_the_command_line_says_what_is_learnt_as_categories(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "5", "--home", str(home.path), *[f"--set={each}" for each in SMALL]]
    assert run_app(["fit", "table", "--set=flow=gaussian", "--name", "told", *options]) == 0
    told = capsys.readouterr().err
    assert "olumn `colour` holds 3 categories: `blue`, `green`, `red`" in told
    assert "are of the probability of the categories" in told
    assert run_app(["sample", "told", "-n", "3", "--home", str(home.path), "-o", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "width,colour,height,old,log_prob,log_prob_error,log_mass,log_density"


def test_text_may_be_given_and_numbers_may_be_categories(home: Home, tmp_path: Path) -> None:
    run = fitted(home, "mixture", {"data.given": ["colour", "old"]})
    assert StoredRun(run).categorical == ()
    held_out = table(500, seed=1)
    found = scored(run, held_out, tmp_path, home)
    assert found.log_mass is None
    frame = table().assign(code=np.random.default_rng(0).integers(0, 30, 900))
    frame.to_csv(home.datasets / "coded.csv", index=False)
    assert (
        "code" in StoredRun(fitted(home, values={"data.categories": ["code"]}, dataset="coded")).categorical
    )
    assert "code" not in StoredRun(fitted(home, dataset="coded")).categorical


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.given": ["width"]}, "column `colour` holds categories.* name it in `--given` too"),
        ({"data.columns": ["colour", "old"]}, "every column of `table` holds categories"),
        ({"data.categories": ["hue"]}, "`--categories`.*`hue`"),
    ],
)
def test_what_cannot_be_learnt_is_refused(home: Home, values: dict[str, object], message: str) -> None:
    with pytest.raises((DataError, ConfigurationError), match=message):
        fitted(home, values=values)
