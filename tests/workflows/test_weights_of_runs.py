"""Rows that count by weights, from the table to training, evaluation and a report."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from biased_table import biased

from flowbench.errors import ConfigurationError, DataError
from flowbench.registry import MODELS
from flowbench.report import write_report
from flowbench.statistics.paired import compare_paired
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun

SMALL = [
    "evaluation.samples=100",
    "evaluation.grid=20",
    "evaluation.paths=5",
    "evaluation.certificates=false",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "datasets").mkdir()
    biased().to_csv(folder / "datasets" / "table.csv", index=False)
    return Home(folder)


def fitted(
    home: Home,
    model: str = "gaussian",
    weights: str | None = "w",
    *,
    table: str = "table",
    watch: Watch | None = None,
) -> Run:
    overrides = {"data.weights": weights, "data.columns": ("a", "b"), "plan.steps": 60}
    return fit(resolve(table, model, overrides=overrides, settings=SMALL), home=home, watch=watch)


@pytest.fixture(scope="module")
def run(home: Home) -> Run:
    return fitted(home)


@pytest.mark.parametrize("model", MODELS.names())
def test_every_model_takes_weights(home: Home, model: str) -> None:
    overrides = {"data.weights": "w", "data.columns": ("b",), "data.given": ("a",), "plan.steps": 20}
    few = ["flow.stages=30"] if model == "ngboost" else []
    run = fit(resolve("table", model, overrides=overrides, settings=[*SMALL, *few]), home=home)
    results = run.read_results()
    assert results.given == ("a",) and results.scored.weight is not None
    expected = np.average(-results.scored.log_prob, weights=results.scored.weight)
    assert results.metrics["test_nll"].value == pytest.approx(expected) and np.isfinite(expected)


def test_the_table_and_the_notes(home: Home) -> None:
    told: list[str] = []
    run = fitted(home, watch=Watch(on_warning=told.append))
    weights = biased()["w"].to_numpy()
    size = weights.sum() ** 2 / (weights**2).sum()
    assert any(
        "3 of" in text and "the weight 0 in `w`, or next to it, and are left out" in text for text in told
    )
    assert any(f"{len(weights) - 3:,} rows say as much as {size:,.1f}" in text for text in told)
    assert run.dataset["columns"] == ["a", "b"]
    assert run.dataset["rows"] == len(weights) - 3
    split = run.read_results().split
    assert min(np.concatenate([split.train, split.validation, split.test])) == 3


def test_the_fit_is_that_of_weighted_moments(run: Run) -> None:
    """The mean of the Gaussian is the weighted mean of the train rows, in model space."""
    model = StoredRun(run).model
    rows = biased().iloc[run.read_results().split.train]
    encoded = model.encoder.to_model(torch.tensor(rows[["a", "b"]].to_numpy()))[0]
    mean = model.flow.state_dict()["mean"]
    assert mean.numpy() == pytest.approx(np.average(encoded, axis=0, weights=rows["w"]), abs=1e-5)


def test_the_stored_figures_are_weighted(run: Run) -> None:
    results = run.read_results()
    scored, metrics = results.scored, results.metrics
    weights = biased()["w"].to_numpy()[scored.row]
    assert scored.weight is not None and np.array_equal(scored.weight, weights)
    mean = np.average(-scored.log_prob, weights=weights)
    size = weights.sum() ** 2 / (weights**2).sum()
    error = np.sqrt((weights**2 * (-scored.log_prob - mean) ** 2).sum()) / weights.sum()
    assert metrics["test_nll"].value == pytest.approx(mean)
    assert metrics["test_nll_standard_error"].value == pytest.approx(error * np.sqrt(size / (size - 1)))
    assert metrics["test_rows_effective"].value == pytest.approx(size)
    # The validation NLL is in the same units, of rows that count by weights too.
    validation = biased().iloc[results.split.validation]
    log_prob = score(run, str(run.path.parents[1] / "datasets" / "table.csv")).log_prob[validation.index]
    assert metrics["validation_nll"].value == pytest.approx(
        np.average(-log_prob, weights=validation["w"]), abs=1e-4
    )


def test_a_table_without_the_column_is_scored(run: Run, home: Home) -> None:
    table = biased()[["a", "b"]].head(20)
    table.to_csv(home.path / "bare.csv", index=False)
    whole = score(run, str(home.datasets / "table.csv"), home=home)
    assert score(run, str(home.path / "bare.csv"), home=home).log_prob == pytest.approx(whole.log_prob[:20])


def test_a_report_compares_by_weights(home: Home) -> None:
    runs = [fitted(home, model) for model in ("gaussian", "kde")]
    report = json.loads(write_report(runs, home.path / "report").json.read_text())
    (section,) = report["datasets"]
    assert section["weights"] == "w"
    best, worse = section["models"]
    scored = {run.info["model"]: run.read_results().scored for run in runs}
    first, second = scored[worse["model"]], scored[best["model"]]
    found = compare_paired(-first.log_prob, -second.log_prob, weights=first.weight)
    assert found is not None and first.weight is not None
    size = first.weight.sum() ** 2 / (first.weight**2).sum()
    assert section["effective_test_rows"] == pytest.approx(size)
    assert worse["difference_to_best"]["mean"] == pytest.approx(found.mean)
    assert worse["difference_to_best"]["low"] == pytest.approx(found.low)
    assert worse["test_nll"] == pytest.approx(np.average(-first.log_prob, weights=first.weight))
    assert f"weighted, as {size:,.1f} equal ones" in section["verdict"]
    assert any("Rows count by their weights in `w`" in text for text in section["cautions"])


def test_runs_of_other_weights_are_not_compared(home: Home) -> None:
    # All weights are above 0, so that the rows are the same.
    table = biased().iloc[3:]
    table.assign(twice=2 * table["w"]).to_csv(home.datasets / "few.csv", index=False)
    runs = [fitted(home, "gaussian", weights, table="few") for weights in ("w", "v", None, "twice")]
    parts = [run.read_results().scored.row for run in runs]
    assert all(np.array_equal(parts[0], part) for part in parts)
    report = json.loads(write_report(runs, home.path / "apart").json.read_text())
    told = {part["weights"]: part for part in report["datasets"]}
    assert set(told) == {"w", "v", None}
    # The scale of weights does not matter.
    assert len(told["w"]["models"]) == 2
    assert any("cells or weights" in text for text in told["v"]["cautions"])


def test_tests_and_calibration_are_of_kept_rows(home: Home) -> None:
    biased(16_000, least=0.1).to_csv(home.datasets / "many.csv", index=False)
    run = fitted(home, "kde", table="many")
    figures = {name: each.value for name, each in evaluate(run, home=home).items()}
    results = run.read_results()
    weights, calibration = results.scored.weight, results.calibration
    assert weights is not None and calibration is not None
    assert figures["judged_rows"] == len(calibration.row) < len(weights)
    assert figures["judged_rows"] == pytest.approx((weights / weights.max()).sum(), abs=30)
    assert results.scored.row[weights.argmax()] in calibration.row
    assert figures["c2st_p_value"] > 1e-3 and figures["density_rank_p_value"] > 1e-3
    assert figures["bits_per_dim"] == pytest.approx(figures["test_nll"] / (2 * np.log(2)))
    report = write_report([run], home.path / "judged")
    assert f"tests are of {len(calibration.row)} test rows" in report.markdown.read_text()
    # The draws are of the whole distribution, and not of what is seen of it.
    unthinned = replace(results, scored=replace(results.scored, weight=None))
    run.write_results(unthinned)
    told = evaluate(run, home=home)
    assert told["energy_distance_p_value"].value < 0.01 < figures["energy_distance_p_value"]


def test_a_run_goes_on_with_its_weights_and_tells_other_ones(home: Home, tmp_path: Path) -> None:
    steps = iter(range(1000))
    config = resolve(
        "table",
        "planar",
        overrides={"data.weights": "w", "data.columns": ("a", "b"), "plan.steps": 60},
        settings=[*SMALL, "plan.validation_steps=20"],
    )
    whole = fit(config, home=home, name="whole")
    halved = fit(config, home=home, name="halved", watch=Watch(should_stop=lambda: next(steps) > 35))
    assert halved.status == "interrupted"
    shutil.copytree(home.path, tmp_path / "other")
    resume(halved, home=home)
    expected, found = (run.read_results().scored for run in (whole, halved))
    assert np.array_equal(found.log_prob, expected.log_prob)
    other = Home(tmp_path / "other")
    table = biased()
    table["w"] *= np.where(table.index == 5, 2, 1)
    table.to_csv(other.datasets / "table.csv", index=False)
    with pytest.raises(DataError, match="has changed since"):
        resume(other.run("halved"), home=other)


def test_toys_have_no_weights(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="`moons` is none; leave it out"):
        fit(resolve("moons", "gaussian", overrides={"data.weights": "w"}), home=home)
