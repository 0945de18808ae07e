"""Tables with missing cells: learnt, scored, filled in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.cli.app import run_app
from flowbench.errors import ConfigurationError, DataError
from flowbench.registry import MODELS
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.imputing import impute_table
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.scoring import ScoredTable, score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=60", "evaluation.samples=100", "evaluation.paths=5"]
MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.8], [0.8, 2.0]])


def table(n: int = 1200, seed: int = 0) -> pd.DataFrame:
    """Two numbers, a word that depends on the first, and an amount that is 0 for one word."""
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(MEAN, COVARIANCE, n)
    word = np.where(rng.random(n) < 1 / (1 + np.exp(-2 * (x[:, 0] - 1))), "high", "low")
    amount = np.where(word == "low", 0.0, np.exp(0.3 * rng.normal(size=n)))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "word": word, "amount": amount})


def holes(frame: pd.DataFrame, share: float = 0.2, seed: int = 1) -> pd.DataFrame:
    gone = np.random.default_rng(seed).random(frame.shape) < share
    gone[gone.all(1), 0] = False
    return frame.mask(gone)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    holes(table()).to_csv(folder / "datasets" / "gaps.csv", index=False)
    holes(table()[["a", "b"]]).to_csv(folder / "datasets" / "pairs.csv", index=False)
    return Home(folder)


def fitted(
    home: Home,
    model: str = "mixture",
    dataset: str = "gaps",
    values: Mapping[str, object] | None = None,
    watch: Watch | None = None,
) -> Run:
    standing = {"plan.steps": 20, "evaluation.certificates": False, "data.missing": "model"}
    settings = [*SMALL, *LOOSE_SOLVES, *SMALL_MODELS.get(model, [])]
    config = resolve(dataset, model, overrides={**standing, **(values or {})}, settings=settings)
    return fit(config, home=home, watch=watch)


@pytest.fixture(scope="module")
def gaps(home: Home) -> Run:
    return fitted(home)


@pytest.fixture(scope="module")
def pairs(home: Home) -> Run:
    return fitted(home, "gaussian", "pairs")


def scored(run: Run, frame: pd.DataFrame, folder: Path, home: Home) -> ScoredTable:
    path = folder / "rows.csv"
    frame.to_csv(path, index=False)
    return score(run, str(path), home=home)


def closed_form(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The marginal density of the numbers that are there, of the normal that rows were drawn from."""
    a, b = frame["a"].to_numpy(), frame["b"].to_numpy()
    both = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(np.nan_to_num(np.c_[a, b]))
    alone = [stats.norm.logpdf(each, MEAN[i], COVARIANCE[i, i] ** 0.5) for i, each in enumerate((a, b))]
    return np.asarray(np.where(np.isnan(a), alone[1], np.where(np.isnan(b), alone[0], both)))


def test_the_cells_that_are_there_get_their_marginal_density(pairs: Run, home: Home, tmp_path: Path) -> None:
    rows = holes(table(400, seed=2)[["a", "b"]], 0.4)
    found = scored(pairs, rows, tmp_path, home)
    assert found.incomplete == int(rows.isna().any(axis=1).sum()) > 100
    off = found.log_prob - closed_form(rows)
    # The normal was learnt from 960 rows, a fifth of whose cells were missing.
    assert abs(off.mean()) < 0.03 and np.abs(off).max() < 0.5
    assert not found.counts()


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_scores_rows_with_gaps_alone_and_in_any_order(
    name: str, home: Home, tmp_path: Path
) -> None:
    try:
        MODELS.get(name).check_packages()
    except ConfigurationError:
        pytest.skip(f"the package of {name} is not installed")
    run, rows = fitted(home, name), holes(table(8, seed=3), 0.4)
    found = scored(run, rows, tmp_path, home).log_prob
    assert np.isfinite(found).all()
    np.testing.assert_allclose(scored(run, rows.iloc[::-1], tmp_path, home).log_prob[::-1], found, atol=1e-8)
    np.testing.assert_allclose(scored(run, rows.iloc[:1], tmp_path, home).log_prob, found[:1], atol=1e-8)


def test_mass_and_density_of_what_is_there_add_up(gaps: Run, home: Home, tmp_path: Path) -> None:
    frame = table(40, seed=4).assign(word=np.nan)
    found = scored(gaps, frame.assign(amount=np.nan), tmp_path, home)
    assert found.log_mass is not None
    # Nothing is known of the categories: their mass is 1.
    np.testing.assert_allclose(found.log_mass, 0, atol=1e-9)
    off = np.abs(found.log_prob - closed_form(frame))
    assert off.mean() < 0.2 and np.quantile(off, 0.9) < 0.4


def test_missing_cells_are_filled_with_bands_that_cover(pairs: Run, home: Home, tmp_path: Path) -> None:
    whole = table(800, seed=5)[["a", "b"]]
    rows = holes(whole, 0.3, seed=6)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    imputed = impute_table(pairs, str(tmp_path / "rows.csv"), tmp_path / "filled.csv", home=home)
    inside = 0
    for name in ("a", "b"):
        gone = rows[name].isna().to_numpy()
        assert imputed.filled[name] == gone.sum()
        columns = {end: imputed.columns[f"{name}_{end}"] for end in ("lower", "upper")}
        np.testing.assert_array_equal(imputed.columns[name][~gone], whole[name][~gone])
        np.testing.assert_array_equal(columns["lower"][~gone], whole[name][~gone])
        truth = whole[name].to_numpy()[gone]
        inside += int(((columns["lower"][gone] <= truth) & (truth <= columns["upper"][gone])).sum())
    count = sum(imputed.filled.values())
    assert 0.84 < inside / count < 0.94
    both = rows["a"].isna() & rows["b"].notna()
    gain = COVARIANCE[0, 1] / COVARIANCE[1, 1]
    expected = MEAN[0] + gain * (rows["b"][both] - MEAN[1])
    assert np.abs(imputed.columns["a"][both] - expected).mean() < 0.15


def test_categories_and_atoms_are_filled_with_their_probability(
    gaps: Run, home: Home, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"a": [3.0, -1.0], "b": [0.0, -4.0], "word": [None, None], "amount": [None, 0.0]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    found = impute_table(gaps, str(tmp_path / "rows.csv"), tmp_path / "filled.csv", home=home)
    assert found.columns["word"].tolist() == ["high", "low"]
    assert (found.columns["word_probability"] > 0.7).all()
    assert found.columns["amount"][1] == 0 and found.columns["amount"][0] > 0
    assert list(found.columns)[:3] == ["a", "b", "word"]


def test_a_report_is_made_of_rows_with_gaps(gaps: Run, home: Home, tmp_path: Path) -> None:
    results = gaps.read_results()
    assert np.isnan(results.scored.x).any() and np.isfinite(results.scored.log_prob).all()
    evaluate(gaps, home=home)
    text = write_report([gaps], tmp_path).markdown.read_text()
    assert "rows have missing cells, in" in text.replace("\\", "")


def test_an_interrupted_run_goes_on_to_the_same_weights(home: Home) -> None:
    steps: list[int] = []
    watch = Watch(on_progress=lambda each: steps.append(each.step), should_stop=lambda: len(steps) > 1)
    whole, stopped = fitted(home, "planar"), fitted(home, "planar", watch=watch)
    assert stopped.info["status"] == "interrupted"
    resume(stopped, home=home)
    first, second = (StoredRun(run).model.state_dict() for run in (whole, stopped))
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)


def test_the_command_line_says_what_is_missing_and_fills_it_in(
    home: Home, gaps: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holes(table(10, seed=7), 0.3).to_csv(tmp_path / "rows.csv", index=False)
    place = ["--home", str(home.path)]
    assert run_app(["score", gaps.name, str(tmp_path / "rows.csv"), "-o", "-", *place]) == 0
    assert "rows have missing cells; their log-likelihood is that of the cells" in capsys.readouterr().err
    assert run_app(["impute", gaps.name, str(tmp_path / "rows.csv"), "-o", "-", *place]) == 0
    out, err = capsys.readouterr()
    assert "missing cells are filled in: " in err
    assert out.startswith("a,a_lower,a_upper,b,")
    assert "nan" not in out


def test_what_does_not_go_with_missing_cells_is_refused(home: Home, pairs: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not go with `--given`"):
        fitted(home, dataset="pairs", values={"data.given": ["a"]})
    table(30)[["a", "b"]].assign(c=np.nan).to_csv(home.datasets / "empty.csv", index=False)
    with pytest.raises(DataError, match="column `c` has no cell that is there"):
        fitted(home, dataset="empty")
    (tmp_path / "bad.csv").write_text("a,b\n1.0,x\n2.0,\n3.0,1.0\n")
    with pytest.raises(DataError, match=r"row 1: `x` in `b` is not a number"):
        impute_table(pairs, str(tmp_path / "bad.csv"), tmp_path / "filled.csv", home=home)
    other = fitted(home, "gaussian", "pairs", {"data.missing": "drop"})
    with pytest.raises(ConfigurationError, match="fills in no cells"):
        impute_table(other, str(tmp_path / "bad.csv"), tmp_path / "filled.csv", home=home)


def test_a_row_outside_the_support_has_no_density_and_is_filled_all_the_same(
    home: Home, tmp_path: Path
) -> None:
    run = fitted(home, values={"data.support": "amount=-0.5:", "data.atoms": "none"})
    frame = table(3, seed=8).assign(a=np.nan, amount=[1.0, -1.0, 0.5])
    found = scored(run, frame, tmp_path, home)
    assert np.isneginf(found.log_prob[1]) and found.log_prob_error[1] == 0
    assert np.isfinite(found.log_prob[[0, 2]]).all()
    assert "the density is zero there" in found.flagged[1]
    filled = impute_table(run, str(tmp_path / "rows.csv"), tmp_path / "filled.csv", home=home)
    assert np.isfinite(filled.columns["a"]).all()


def test_errors_above_the_largest_asked_for_are_flagged(gaps: Run, home: Home, tmp_path: Path) -> None:
    holes(table(30, seed=9), 0.4).to_csv(tmp_path / "rows.csv", index=False)
    settings = ["evaluation.max_error=1e-9"]
    found = score(gaps, str(tmp_path / "rows.csv"), settings=settings, home=home)
    assert found.above == 30 and (found.flagged != "").all()


def test_an_unknown_category_beside_a_missing_cell_counts_as_any_other(
    gaps: Run, home: Home, tmp_path: Path
) -> None:
    frame = table(3, seed=8).assign(a=[np.nan, 1.0, 1.0], word=["odd", "odd", "low"])
    found = scored(gaps, frame, tmp_path, home)
    assert np.isfinite(found.log_prob).all()
    assert all("`word` holds what it holds in no row" in text for text in found.flagged[:2])
    with pytest.raises(DataError, match="column `word`, row 1: it holds this in no row of the fit"):
        impute_table(gaps, str(tmp_path / "rows.csv"), tmp_path / "filled.csv", home=home)


def test_cells_that_are_there_are_written_as_they_are(home: Home, tmp_path: Path) -> None:
    whole = pd.DataFrame({"n": np.random.default_rng(0).poisson(20, 300), "x": np.arange(300) % 7 / 10})
    whole["x"] += np.random.default_rng(1).normal(size=300).round(1)
    whole.astype({"n": "Int64"}).mask(np.random.default_rng(2).random((300, 2)) < 0.1).to_csv(
        home.datasets / "rounded.csv", index=False
    )
    run = fitted(home, "gaussian", "rounded", {"data.dequantise": "none"})
    (tmp_path / "rows.csv").write_text("n,x\n2.5,1.234\n20,\n,0.1\n")
    filled = impute_table(run, str(tmp_path / "rows.csv"), tmp_path / "filled.csv", home=home)
    assert filled.columns["x"][0] == 1.234 and filled.columns["n"][0] == 2.5
    assert filled.columns["n"][2] == np.rint(filled.columns["n"][2])


def test_tables_without_a_complete_row_are_learnt(home: Home, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(400, 12)), columns=[f"c{i}" for i in range(12)])
    wide["word"] = rng.choice(["a", "b"], 400)
    gone = rng.random(wide.shape) < 0.3
    gone[np.arange(400), np.arange(400) % 12] = True
    wide.mask(gone).to_csv(home.datasets / "wide.csv", index=False)
    run = fitted(home, "gaussian", "wide", {"evaluation.certificates": True})
    results = run.read_results()
    assert np.isfinite(results.scored.log_prob).all()
    assert results.certificates["mass"].passed
    write_report([run], tmp_path)


def test_two_columns_have_a_picture(pairs: Run) -> None:
    results = pairs.read_results()
    assert results.grid is not None and np.isfinite(results.grid.log_prob).all()
    assert results.metrics["grid_mass"].value == pytest.approx(1, abs=0.05)
