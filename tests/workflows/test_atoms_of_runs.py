"""Tables with values that many rows hold, from the file to scores, draws and reports."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.data.schema import Support
from flowbench.errors import ConfigurationError, DataError
from flowbench.registry import MODELS
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import ScoredTable, score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=80", "evaluation.samples=300", "evaluation.paths=5"]


def table(n: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Dry days are more frequent where it is warm; a gauge holds at most 30."""
    rng = np.random.default_rng(seed)
    warmth = rng.normal(size=n)
    dry = rng.random(n) < 1 / (1 + np.exp(-warmth))
    rain = np.where(dry, 0, np.exp(0.5 * warmth + 0.4 * rng.normal(size=n)))
    gauge = np.minimum(20 + 10 * rng.normal(size=n), 30.0)
    return pd.DataFrame({"warmth": warmth, "rain": rain, "gauge": gauge})


def true_log_prob(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Of each row: a log-density, with log-probabilities in place of that of cells that hold an atom."""
    warmth, rain, gauge = (frame[name].to_numpy() for name in frame)
    dry = 1 / (1 + np.exp(-warmth))
    wet = stats.lognorm.logpdf(np.where(rain > 0, rain, 1), 0.4, scale=np.exp(0.5 * warmth))
    of_rain = np.where(rain == 0, np.log(dry), np.log1p(-dry) + wet)
    of_gauge = np.where(gauge == 30, stats.norm.logsf(1), stats.norm.logpdf(gauge, 20, 10))
    return np.asarray(stats.norm.logpdf(warmth) + of_rain + of_gauge)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    table().to_csv(folder / "datasets" / "table.csv", index=False)
    return Home(folder)


def fitted(
    home: Home, model: str = "mixture", values: Mapping[str, object] | None = None, watch: Watch | None = None
) -> Run:
    overrides = {"plan.steps": 30, "evaluation.certificates": False, **(values or {})}
    settings = [*SMALL, *LOOSE_SOLVES, *SMALL_MODELS.get(model, [])]
    return fit(resolve("table", model, overrides=overrides, settings=settings), home=home, watch=watch)


@pytest.fixture(scope="module")
def mixture(home: Home) -> Run:
    return fitted(home)


def scored(run: Run, frame: pd.DataFrame, folder: Path, home: Home) -> ScoredTable:
    path = folder / "rows.csv"
    frame.to_csv(path, index=False)
    return score(run, str(path), home=home)


def test_a_known_mass_and_density_are_found(mixture: Run, home: Home, tmp_path: Path) -> None:
    assert StoredRun(mixture).atoms == {"rain": [0.0], "gauge": [30.0]}
    held_out = table(2000, seed=1)
    found = scored(mixture, held_out, tmp_path, home)
    kl = true_log_prob(held_out) - found.log_prob
    assert abs(kl.mean()) < 0.05 + 3 * kl.std() / len(kl) ** 0.5
    assert found.log_mass is not None and set(np.round(found.log_mass, 6)) == set(
        np.round(found.log_mass, 6)[:200]
    )
    assert not found.counts()


@pytest.mark.parametrize("name", MODELS.names())
def test_no_model_draws_anything_else_and_each_scores_rows_alone(
    name: str, home: Home, tmp_path: Path
) -> None:
    try:
        MODELS.get(name).check_packages()
    except ConfigurationError:
        pytest.skip(f"the package of {name} is not installed")
    run = fitted(home, name)
    rows = table(12, seed=3)
    found = scored(run, rows, tmp_path, home).log_prob
    assert np.isfinite(found).all()
    np.testing.assert_allclose(scored(run, rows.iloc[::-1], tmp_path, home).log_prob[::-1], found, atol=1e-9)
    np.testing.assert_allclose(scored(run, rows.iloc[:1], tmp_path, home).log_prob, found[:1], atol=1e-9)
    sample(run, 40, home=home).save(tmp_path / "drawn.csv", run)
    drawn = pd.read_csv(tmp_path / "drawn.csv")
    assert drawn.columns[:3].tolist() == ["warmth", "rain", "gauge"]
    assert (drawn["rain"] >= 0).all() and (drawn["rain"] == 0).any() and (drawn["rain"] > 0).any()


def test_shares_of_atoms_are_within_their_binomial_error(mixture: Run, home: Home) -> None:
    n = 2000
    drawn = sample(mixture, n, home=home).x
    train = table()
    for column, (name, atom) in ((1, ("rain", 0.0)), (2, ("gauge", 30.0))):
        count = int((drawn[:, column] == atom).sum())
        share = float((train[name] == atom).mean())
        assert stats.binomtest(count, n, share).pvalue > 1e-3
    assert (drawn[:, 1] >= 0).all() and (drawn[:, 2] <= 30).all()


def test_atoms_are_told_named_or_not_looked_for(home: Home, tmp_path: Path) -> None:
    told: list[str] = []
    run = fitted(home, "gaussian", watch=Watch(on_warning=told.append))
    assert any("olumn `rain`: " in text and "hold 0, which gets a probability" in text for text in told)
    page = write_report([run], tmp_path).markdown.read_text()
    assert "| atom of rain | none |" in page and "which gets a probability" in page
    assert StoredRun(fitted(home, values={"data.atoms": "none"})).atoms == {}
    mixed = StoredRun(fitted(home, values={"data.atoms": "auto,rain=none", "data.support": "gauge=:"}))
    assert mixed.atoms == {"gauge": [30.0]}
    # No value is drawn beyond an atom that is the greatest, whatever is said of the support.
    assert mixed.model.encoder.support.supports == {"gauge": Support(high=30.0)}
    assert StoredRun(fitted(home, values={"data.atoms": "gauge=30"})).atoms == {"gauge": [30.0]}


@pytest.mark.parametrize(
    ("atoms", "error", "message"),
    [
        ("snow=0", ConfigurationError, "unknown column `snow`"),
        ("rain=-5", DataError, "no train row has -5 in `rain`"),
    ],
)
def test_atoms_that_are_not_there_are_refused(
    home: Home, atoms: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fitted(home, values={"data.atoms": atoms})


def test_an_interrupted_run_goes_on_to_the_same_weights(home: Home) -> None:
    steps: list[int] = []
    watch = Watch(on_progress=lambda each: steps.append(each.step), should_stop=lambda: len(steps) > 1)
    whole, stopped = fitted(home, "planar"), fitted(home, "planar", watch=watch)
    assert stopped.info["status"] == "interrupted"
    resume(stopped, home=home)
    first, second = (StoredRun(run).model.state_dict() for run in (whole, stopped))
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)


def test_what_is_stored_is_judged_by_the_states(home: Home) -> None:
    run = fitted(home, "cnf")
    results = run.read_results()
    assert results.given == ("atom of rain", "atom of gauge")
    found = evaluate(run, home=home)
    assert found["c2st_p_value"].value > 1e-4
    assert torch.isfinite(torch.tensor([each.value for each in found.values()])).all()


def test_a_value_outside_the_support_that_is_an_atom_has_a_probability(
    mixture: Run, home: Home, tmp_path: Path
) -> None:
    frame = table(3, seed=4).assign(rain=[0.0, 2.0, -1.0])
    found = scored(mixture, frame, tmp_path, home)
    assert np.isfinite(found.log_prob[:2]).all() and np.isneginf(found.log_prob[2])
    assert "-1 is not above 0, as `rain` has to be" in found.flagged[2]


def test_tables_in_single_precision_hold_the_same_atoms_and_levels(home: Home, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "gauge": np.where(rng.random(600) < 0.2, 28.6, rng.normal(20, 3, 600)),
            "dose": rng.choice([0.1, 0.3, 2.7], 600),
            "x": rng.normal(size=600),
        }
    )
    single = frame.astype("float32")
    overrides = {"plan.steps": 10, "evaluation.certificates": False}
    for ours, theirs in ((frame, single), (single, frame)):
        ours.to_parquet(home.datasets / "gauge.parquet", index=False)
        run = fit(resolve("gauge", "gaussian", overrides=overrides, settings=SMALL), home=home)
        assert set(StoredRun(run).atoms) == {"gauge"} and StoredRun(run).categorical[0] == "dose"
        found = []
        for part in (ours, theirs):
            part.iloc[:50].to_parquet(tmp_path / "part.parquet", index=False)
            found.append(score(run, str(tmp_path / "part.parquet"), home=home))
        # Stand-ins follow from the digits of a row, so cells with an atom have others.
        beside = ours.iloc[:50]["gauge"].round(3) != 28.6
        first, second = (each.log_prob for each in found)
        np.testing.assert_allclose(first[beside], second[beside], atol=1e-4)
        np.testing.assert_allclose(first, second, atol=0.2)
        assert found[0].log_mass is not None and found[1].log_mass is not None
        np.testing.assert_array_equal(found[0].log_mass, found[1].log_mass)
        assert not found[1].counts()


def test_no_draw_is_rounded_onto_an_atom_that_it_is_not(home: Home, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ages = np.where(rng.random(2000) < 0.15, 40, rng.normal(100, 60, 2000).round())
    pd.DataFrame({"age": ages, "x": rng.normal(size=2000)}).to_csv(home.datasets / "ages.csv", index=False)
    overrides = {"plan.steps": 10, "evaluation.certificates": False}
    run = fit(resolve("ages", "gaussian", overrides=overrides, settings=SMALL), home=home)
    assert StoredRun(run).atoms == {"age": [40.0]}
    drawn = sample(run, 3000, home=home)
    drawn.save(tmp_path / "drawn.csv", run)
    again = score(run, str(tmp_path / "drawn.csv"), home=home)
    np.testing.assert_allclose(again.log_prob, drawn.log_prob, atol=1e-9)
