"""A density given columns, from the table to scores, draws and a report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from small_models import LOOSE_SOLVES, SMALL_MODELS

from flowbench.data.dataset import Column, Dataset, Provenance
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.registry import MODELS, TOYS
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.training import trials
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate, tradeoff
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun

SMALL = [
    "evaluation.test_rows=40",
    "evaluation.samples=100",
    "evaluation.grid=20",
    "evaluation.paths=5",
    *LOOSE_SOLVES,
]


def table(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """y and z follow from a, and b says nothing: y = 2 a + 0.5 e, z = -a + (1 + |a|) e'."""
    rng = np.random.default_rng(seed)
    a, b, first, second = rng.standard_normal((4, n))
    y, z = 2 * a + 0.5 * first, -a + (1 + np.abs(a)) * second
    return pd.DataFrame({"a": 10 + 3 * a, "y": y, "b": b, "z": 100 + 20 * z}).round(6)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    table().to_csv(folder / "datasets" / "table.csv", index=False)
    return Home(folder)


def fitted(home: Home, model: str, *settings: str, **overrides: object) -> Run:
    config = resolve(
        "table",
        model,
        overrides={"data.given": ("a", "b"), "plan.steps": 60, **overrides},
        settings=[*SMALL, *SMALL_MODELS.get(model, []), *settings],
    )
    return fit(config, home=home)


@pytest.fixture(scope="module")
def gaussian(home: Home) -> Run:
    # Standardised columns: then the model is linear regression, whose answer is known.
    return fitted(home, "gaussian", 'transforms=["standardise"]')


@pytest.mark.parametrize("model", MODELS.names())
def test_every_model_is_fitted_scored_and_drawn_from(home: Home, model: str) -> None:
    run = fitted(home, model, "evaluation.certificates=false")
    results = run.read_results()
    assert results.columns == ("y", "z") and results.given == ("a", "b")
    assert results.scored.context is not None
    assert results.scored.x.shape == results.scored.context.shape == (40, 2)
    assert np.isfinite(results.scored.log_prob).all()
    # The samples of a run are drawn for the givens of its test rows.
    assert results.samples.context is not None
    assert np.array_equal(results.samples.context, np.tile(results.scored.context, (3, 1))[:100])
    scored = score(run, "table", home=home)
    assert scored.log_prob[results.scored.row] == pytest.approx(results.scored.log_prob, abs=1e-9)
    drawn = sample(run, 3, given={"b": 0.5, "a": 13.0})
    assert drawn.context is not None
    assert drawn.x.shape == (3, 2) and np.array_equal(drawn.context, [[13.0, 0.5]] * 3)
    own = StoredRun(run).model.for_evaluation(StoredRun(run).config.evaluation.integrator)
    with torch.no_grad():
        expected = own.log_prob(torch.tensor(drawn.x), context=torch.tensor(drawn.context))
    assert drawn.log_prob == pytest.approx(expected.numpy(), abs=5e-3)


def test_likelihoods_are_those_of_linear_regression(home: Home, gaussian: Run) -> None:
    from sklearn.linear_model import LinearRegression

    results, whole = gaussian.read_results(), table()
    train = whole.iloc[results.split.train]
    line = LinearRegression().fit(train[["a", "b"]], train[["y", "z"]])
    residuals = (train[["y", "z"]] - line.predict(train[["a", "b"]])).to_numpy()
    covariance = residuals.T @ residuals / len(residuals)
    test = whole.iloc[results.scored.row]
    off = (test[["y", "z"]] - line.predict(test[["a", "b"]])).to_numpy()
    root = np.linalg.cholesky(covariance)
    expected = norm.logpdf(np.linalg.solve(root, off.T).T).sum(1) - np.log(np.diag(root)).sum()
    assert results.scored.log_prob == pytest.approx(expected, abs=1e-5)


def test_draws_are_those_of_linear_regression(home: Home, gaussian: Run) -> None:
    drawn = sample(gaussian, 4000, given={"a": 16.0, "b": 0.0}, seed=3)
    model = StoredRun(gaussian).model
    assert model.givens is not None
    # At a = 2 standard deviations: y is about 4, z about 60.
    assert drawn.x.mean(0) == pytest.approx([4.0, 60.0], abs=8)
    assert drawn.x[:, 0].std() == pytest.approx(0.5, rel=0.1)


def test_draws_for_each_row_of_a_table_stand_beside_it(home: Home, gaussian: Run, tmp_path: Path) -> None:
    pd.DataFrame({"b": [0.1, 0.2], "other": [1, 2], "a": [7.0, 13.0]}).to_csv(tmp_path / "g.csv", index=False)
    drawn = sample(gaussian, 2, given=str(tmp_path / "g.csv"))
    assert drawn.context is not None
    assert drawn.context.tolist() == [[7.0, 0.1], [7.0, 0.1], [13.0, 0.2], [13.0, 0.2]]
    drawn.save(tmp_path / "out.csv", gaussian)
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["y", "z", "a", "b", "log_prob", "log_prob_error"]
    again = score(gaussian, str(tmp_path / "out.csv"))
    assert again.log_prob == pytest.approx(drawn.log_prob, abs=1e-9)


def test_what_is_not_given_is_refused(home: Home, gaussian: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="models y, z given a, b; say for which values"):
        sample(gaussian, 2)
    with pytest.raises(ConfigurationError, match="lacks a value for `b`"):
        sample(gaussian, 2, given={"a": 1.0})
    with pytest.raises(ConfigurationError, match="unknown given column `y`"):
        sample(gaussian, 2, given={"a": 1.0, "b": 2.0, "y": 0.0})
    with pytest.raises(ConfigurationError, match="must be a finite number"):
        sample(gaussian, 2, given={"a": np.nan, "b": 2.0})
    (tmp_path / "half.csv").write_text("a,c\n1,2\n2,3\n3,4\n")
    with pytest.raises(DataError, match="the run is given a, b"):
        sample(gaussian, 2, given=str(tmp_path / "half.csv"))
    (tmp_path / "gap.csv").write_text("a,b\n1,2\n2,\n3,4\n")
    with pytest.raises(DataError, match="row 2"):
        sample(gaussian, 2, given=str(tmp_path / "gap.csv"))
    plain = fit(resolve("table", "gaussian", settings=SMALL), home=home, name="plain")
    with pytest.raises(ConfigurationError, match="models all of its columns together"):
        sample(plain, 2, given={"a": 1.0})


def test_a_missing_given_flags_its_row(home: Home, gaussian: Run, tmp_path: Path) -> None:
    whole = table(5)
    whole.loc[2, "a"] = np.nan
    whole.to_csv(tmp_path / "gap.csv", index=False)
    scored = score(gaussian, str(tmp_path / "gap.csv"))
    assert np.isnan(scored.log_prob).tolist() == [False, False, True, False, False]
    assert "a" in scored.flagged[2]


def test_givens_that_cannot_be(home: Home) -> None:
    with pytest.raises(UnknownColumnError, match="unknown column `c`"):
        fitted(home, "gaussian", **{"data.given": ("c",)})
    with pytest.raises(ConfigurationError, match="names every column"):
        fitted(home, "gaussian", **{"data.given": ("a", "b", "y", "z")})
    with pytest.raises(ConfigurationError, match="twice"):
        fitted(home, "gaussian", **{"data.given": ("a", "a")})


def test_columns_choose_the_targets_and_givens_come_with_them(home: Home) -> None:
    config = resolve(
        "table", "gaussian", overrides={"data.columns": ("y",), "data.given": ("a",)}, settings=SMALL
    )
    results = fit(config, home=home).read_results()
    assert (results.columns, results.given) == (("y",), ("a",))
    assert results.grid is not None and "grid_mass" not in results.metrics
    # Along each line of the given the density adds up to the mass of the box.
    mass = np.exp(results.grid.log_prob).sum(1) * np.diff(results.grid.y)[0]
    inside = (results.grid.x > 7) & (results.grid.x < 13)
    assert mass[inside] == pytest.approx(1, abs=0.05)


def test_the_picture_of_a_toy_has_the_given_along_x(home: Home) -> None:
    toy = TOYS.get("moons")()
    (x_low, x_high), (y_low, y_high) = toy.box
    assert (x_low, x_high) != (y_low, y_high)
    config = resolve("moons", "gaussian", overrides={"data.given": ("y",), "plan.steps": 5}, settings=SMALL)
    grid = fit(config, home=home).read_results().grid
    assert grid is not None
    half = (y_high - y_low) / 40, (x_high - x_low) / 40
    assert (grid.x[0], grid.x[-1]) == pytest.approx((y_low + half[0], y_high - half[0]))
    assert (grid.y[0], grid.y[-1]) == pytest.approx((x_low + half[1], x_high - half[1]))


@pytest.mark.parametrize("model", ["gaussian", "nsf", "cnf"])
def test_certificates_pass(home: Home, model: str) -> None:
    run = fitted(home, model, "evaluation.integrator.atol=1e-6", "evaluation.integrator.rtol=1e-6")
    found = run.read_results().certificates
    assert {"normalisation", "round_trip", "jacobian", "batch_invariance"} <= set(found)
    assert "3 contexts" in found["normalisation"].text
    failed = [name for name, each in found.items() if each.failed]
    assert not failed, found


def test_a_run_is_judged_by_forecasts(home: Home, gaussian: Run) -> None:
    metrics = evaluate(gaussian, home=home)
    assert {"crps_1", "crps_2", "pit_p_value", "hdr_coverage_90", "mmd"} <= set(metrics)
    # The score of a normal with the right mean and spread s has the mean s / sqrt(pi).
    assert metrics["crps_1"].value == pytest.approx(0.5 / np.pi**0.5, rel=0.25)
    assert metrics["crps_1"].units == "units of y"
    coverage = [metrics[f"hdr_coverage_90{end}"].value for end in ("_low", "", "_high")]
    assert coverage == sorted(coverage) and coverage[0] > 0.6
    kept = gaussian.read_results().calibration
    assert kept is not None and kept.pit is not None and kept.crps is not None
    assert kept.pit.shape == kept.crps.shape == (40, 2)


def test_an_interrupted_fit_goes_on_to_the_same_weights(home: Home) -> None:
    whole = fitted(home, "nsf", "evaluation.certificates=false", seed=5)

    steps = iter(range(10_000))
    config = resolve(
        "table",
        "nsf",
        overrides={"data.given": ("a", "b"), "plan.steps": 60, "seed": 5},
        settings=[*SMALL, *SMALL_MODELS["nsf"], "evaluation.certificates=false"],
    )
    part = fit(config, home=home, watch=Watch(should_stop=lambda: next(steps) > 30), name="part")
    assert part.info["status"] == "interrupted"
    resume(part, home=home)
    first, second = whole.load_model()[0], part.load_model()[0]
    assert first.keys() == second.keys()
    # Continuous columns have no spacing: NaN.
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


def test_solvers_are_traded_off(home: Home) -> None:
    run = fitted(home, "cnf", "evaluation.certificates=false")
    rungs, rows = tradeoff(run, rows=20)
    assert rows == 20 and any(rung.bias is not None and abs(rung.bias) < 1e-3 for rung in rungs)


def test_a_report_does_not_pair_it_with_a_joint_density(home: Home, gaussian: Run, tmp_path: Path) -> None:
    joint = fit(
        resolve("table", "gaussian", overrides={"data.columns": ("y", "z")}, settings=SMALL), home=home
    )
    paths = write_report([gaussian, joint], tmp_path / "report")
    text = paths.markdown.read_text(encoding="utf-8")
    assert text.count("## table") == 2 and "given: a, b" in text


def test_a_distribution_for_each_row_of_givens(home: Home, gaussian: Run) -> None:
    model = StoredRun(gaussian).model.for_evaluation(StoredRun(gaussian).config.evaluation.integrator)
    context = torch.tensor([[10.0, 0.0], [16.0, 0.0], [4.0, 1.0]])
    distribution = model.as_distribution(torch.Generator().manual_seed(0), context=context)
    assert (distribution.batch_shape, distribution.event_shape) == ((3,), (2,))
    drawn = distribution.sample((500,))
    assert drawn.shape == (500, 3, 2)
    assert drawn[..., 0].mean(0).numpy() == pytest.approx([0.0, 4.0, -4.0], abs=0.2)
    found = distribution.log_prob(drawn)
    assert found.shape == (500, 3)
    own = model.log_prob(drawn[:, 1], context=context[1].expand(500, -1))
    assert torch.allclose(found[:, 1], own)
    # One value for all of them.
    assert distribution.log_prob(torch.tensor([0.0, 100.0]).double()).shape == (3,)


def test_a_data_set_says_what_is_given() -> None:
    columns = tuple(map(Column, "abc"))
    whole = Dataset("t", columns, np.arange(12.0).reshape(4, 3), Provenance("here", "0" * 64))
    given = whole.giving(("c", "a"))
    assert given.target_names == ("b",) and given.given == ("c", "a")
    assert given.targets.tolist() == [[1], [4], [7], [10]]
    assert given.context is not None and given.context.tolist() == [[2, 0], [5, 3], [8, 6], [11, 9]]
    assert whole.context is None and whole.targets is whole.rows


def test_one_column_given_several_is_pictured_at_three_rows(home: Home, tmp_path: Path) -> None:
    runs = [fitted(home, model, **{"data.columns": ("y",)}) for model in ("gaussian", "mixture")]
    results = [run.read_results() for run in runs]
    for found in results:
        slices = found.slices
        assert slices is not None and slices.y.shape == slices.log_prob.shape == (3, 400)
        places = [np.flatnonzero((found.scored.context == each).all(1))[0] for each in slices.context]
        assert np.array_equal(found.scored.x[places, 0], slices.value)
        assert (np.diff(slices.value) > 0).all() and (np.diff(slices.y) >= 0).all()
        assert np.trapezoid(np.exp(slices.log_prob), slices.y) == pytest.approx(1, abs=0.02)
    # The rows of `table`: y = 2 a + 0.5 e, and the column a holds 10 + 3 a.
    first = results[0].slices
    assert first is not None
    truth = norm(2 * (first.context[:, :1] - 10) / 3, 0.5)
    assert np.abs(np.exp(first.log_prob) - truth.pdf(first.y)).max() < 0.1
    # The same rows for every model, so that their densities share a panel.
    assert results[1].slices is not None and np.array_equal(first.context, results[1].slices.context)
    page = write_report(runs, tmp_path / "report").html.read_text()
    assert "Densities of y at single givens" in page and page.count("value of that row") == 3


def test_two_columns_given_several_are_pictured_at_three_rows(home: Home, tmp_path: Path) -> None:
    runs = [fitted(home, model) for model in ("gaussian", "mixture")]
    found = [run.read_results().slice_planes for run in runs]
    for planes in found:
        assert planes is not None and planes.log_prob.shape == (3, 60, 60)
        mass = np.trapezoid(np.trapezoid(np.exp(planes.log_prob), planes.y[:, None]), planes.x)
        # Of normal columns the sides reach to 3.3 standard deviations.
        assert ((mass > 0.98) & (mass < 1.002)).all()
        results = runs[0].read_results()
        places = [np.flatnonzero((results.scored.context == each).all(1))[0] for each in planes.context]
        assert np.array_equal(results.scored.x[places], planes.value)
    # The rows of `table`: y = 2 a + 0.5 e, and the column a holds 10 + 3 a.
    first = found[0]
    assert first is not None
    density = np.trapezoid(np.exp(first.log_prob), first.y[:, None])
    truth = norm(2 * (first.context[:, :1] - 10) / 3, 0.5)
    assert np.abs(density - truth.pdf(first.x)).max() < 0.12
    page = write_report(runs, tmp_path / "report").html.read_text()
    assert "Densities of y and z at single givens" in page and "In this order: a = " in page


def test_scales_are_chosen_by_trials_once_and_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of scales is found again in the weights of a run, when it is resumed or opened."""
    # Whatever the trials say, so that the default is not what is found.
    monkeypatch.setattr(trials, "_choose", lambda flows, found, failed: (flows["1 scale"], "1 scale chosen"))
    phases = "plan.phases=[{objective='flow-matching',batch_size=32}]"
    settings = ["flow.field.width=8", phases, "evaluation.certificates=false", *SMALL]
    overrides = {"data.given": ("a", "b"), "plan.steps": 1200, "plan.validation_steps": 400}
    config = resolve("table", "cnf", overrides=overrides, settings=settings)
    said: list[str] = []
    whole = fit(config, home=home, watch=Watch(on_choice=said.append))
    assert said == [whole.info["chosen"]] and said == ["1 scale chosen"]
    steps: list[int] = []
    watch = Watch(on_progress=lambda now: steps.append(now.step), should_stop=lambda: steps[-1:] >= [400])
    stopped = fit(config, home=home, watch=watch)
    assert stopped.info["status"] == "interrupted"
    # Without trials the flow would have 3 scales.
    resumed = resume(stopped, home=home, watch=Watch(on_choice=said.append))
    assert len(said) == 1
    expected, found = (run.read_results().scored.log_prob for run in (whole, resumed))
    assert np.array_equal(expected, found)
    assert score(whole, "table", home=home).log_prob[whole.read_results().scored.row] == pytest.approx(
        expected, abs=1e-9
    )


def test_a_run_that_was_killed_before_it_saved_a_state_tells_its_own_choice(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(run: Run) -> None:
        raise Killed

    def fitted_with(scales: str) -> None:
        monkeypatch.setattr(
            trials, "_choose", lambda flows, found, failed: (flows[scales], f"{scales} taken")
        )

    phases = "plan.phases=[{objective='flow-matching',batch_size=32}]"
    settings = ["flow.field.width=8", phases, "evaluation.certificates=false", *SMALL]
    overrides = {"data.given": ("a", "b"), "plan.steps": 1200}
    config = resolve("table", "cnf", overrides=overrides, settings=settings)
    fitted_with("3 scales")
    before = set(home.runs.iterdir()) if home.runs.exists() else set()
    with pytest.raises(Killed):
        fit(config, home=home, watch=Watch(on_start=kill))
    (path,) = set(home.runs.iterdir()) - before
    run = Run.open(path)
    fitted_with("1 scale")
    assert resume(run, home=home).info["chosen"] == "1 scale taken"
    assert len(StoredRun(run).model.flow.get_submodule("field.context_waves").get_buffer("scales")) == 1
