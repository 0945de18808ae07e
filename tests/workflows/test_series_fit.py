"""Runs on time series: fits of every model, bounds against the exact value, independence, and resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import TimeSeries
from flowbench.errors import ConfigurationError, DataError, RunExistsError
from flowbench.evaluation.series_likelihoods import score_series
from flowbench.evaluation.series_options import SeriesEvaluationOptions
from flowbench.evaluation.series_predictions import (
    SeriesForecast,
    crps,
    hide_inner,
    hide_later,
    predict_series,
)
from flowbench.models.series.noise import BatchNoise
from flowbench.registry import SERIES_MODELS
from flowbench.store import Run
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.series_config import SeriesConfig, is_of_series, resolve_series
from flowbench.workflows.series_fit import StoredSeriesRun, fit_series, resume_series

SMALL: dict[str, Any] = {
    "plan.steps": 24,
    "plan.validation_steps": 4,
    "data.rows": 40,
    "evaluation.draws": 16,
    "evaluation.predictions": 8,
    "evaluation.error_series": 2,
    "evaluation.samples": 2,
    "evaluation.curves": 1,
}


def config(model: str, dataset: str = "gaussian-process", **overrides: Any) -> SeriesConfig:
    return resolve_series(dataset, model, overrides={**SMALL, **overrides})


def fitted(model: str, home: Path, **overrides: Any) -> Run:
    return fit_series(config(model, **overrides), home=Home(home))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A short fit of every model on 40 draws of a Gaussian process."""
    home = tmp_path_factory.mktemp("home")
    return {name: fitted(name, home) for name in SERIES_MODELS.names()}


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_a_run_holds_what_its_model_says(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    results = run.read_series_results()
    assert run.info["kind"] == "series" and run.info["status"] == "finished"
    assert len(results.ids) == len(results.scored.log_prob) == 4
    assert set(SERIES_MODELS.names()) >= {run.info["model"]}
    known = results.scored.true_log_prob
    assert known is not None
    metrics = {key: each.value for key, each in results.metrics.items()}
    assert metrics["test_nll"] == pytest.approx(-results.scored.log_prob.mean())
    assert metrics["kl_to_truth"] == pytest.approx((known - results.scored.log_prob).mean())
    assert metrics["test_nll_per_value"] == pytest.approx(
        -results.scored.log_prob.sum() / results.scored.cells.sum()
    )
    part = results.extrapolation
    assert part is not None
    error = (part.mean - part.value)[~np.isnan(part.value)]
    stored = StoredSeriesRun(run)
    train = load_series("gaussian-process", count=40)
    scale = np.nanstd(train.take(_train(run)).values)
    assert metrics["extrapolation_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)) / scale)
    assert stored.model.columns == ("value",)
    assert (results.curves is not None and results.curves.path is not None) == (name == "latent-ode")


def _train(run: Run) -> np.ndarray[Any, np.dtype[np.int64]]:
    from flowbench.workflows.series_fit import load_split

    return load_split(StoredSeriesRun(run).config, Path("datasets"))[1].train


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_a_series_alone_shuffled_or_among_others_has_the_same_numbers(
    name: str, runs: dict[str, Run]
) -> None:
    model = StoredSeriesRun(runs[name]).model
    options = SeriesEvaluationOptions(draws=16, predictions=8)
    dataset = load_series("gaussian-process", count=40)
    series = [dataset.series(i) for i in range(6)]
    # One whose solve ends later, as of a series that is longer than the train series.
    late = TimeSeries(series[0].times + 7.0, series[0].values)
    many = [*series, late]
    together = score_series(model, many, options).log_prob
    alone = [score_series(model, [each], options).log_prob[0] for each in many]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-9)
    back = score_series(model, many[::-1], options).log_prob[::-1]
    np.testing.assert_allclose(together, back, rtol=0, atol=1e-9)
    times = [np.linspace(1.0, 9.0, 3 + i) for i in range(len(many))]
    every = predict_series(model, many, times, options)
    for one, at, found in zip(many, times, every, strict=True):
        (own,) = predict_series(model, [one], [at], options)
        np.testing.assert_allclose(found.mean, own.mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.draws, own.draws, rtol=0, atol=1e-9)


def test_the_bound_is_below_the_likelihood_and_tightens(tmp_path: Path) -> None:
    """Against its own bound from many more draws, which is close to the likelihood of the model."""
    run = fitted("latent-ode", tmp_path, **{"plan.steps": 60})
    model = StoredSeriesRun(run).model
    dataset = load_series("gaussian-process", count=40)
    series = [dataset.series(i) for i in range(12)]
    found = score_series(model, series, SeriesEvaluationOptions(draws=256))
    assert list(found.bounds) == [1, 4, 16, 64, 256]
    means = [each.mean() for each in found.bounds.values()]
    assert means == sorted(means)
    finer = score_series(model, series, SeriesEvaluationOptions(draws=4096), seed=1)
    assert found.standard_error is not None and finer.standard_error is not None
    slack = 5 * np.hypot(found.standard_error, finer.standard_error) + 0.05
    assert (found.bounds[16] <= finer.log_prob + slack).all()
    assert (np.abs(found.log_prob - finer.log_prob) <= slack + 1.0).all()


def test_missing_cells_and_other_units_change_nothing_but_the_constant(tmp_path: Path) -> None:
    """Values times 1000 and times in another unit: the same likelihoods up to the known constant."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        for t in np.sort(rng.uniform(0, 3, 5)):
            value = np.sin(t + number) + 0.1 * rng.normal()
            rows.append((number, t, value, "" if rng.random() < 0.3 else 2 * value))
    for unit, scale in (("a", 1.0), ("b", 1000.0)):
        hours = 24 if unit == "b" else 1
        lines = [
            f"{i},{t * hours:.17g},{v * scale:.17g},{w if w == '' else f'{float(w) * scale:.17g}'}"
            for i, t, v, w in rows
        ]
        (tmp_path / f"{unit}.csv").write_text("id,t,v,w\n" + "\n".join(lines) + "\n")
    own = {"data.series": "id", "data.time": "t", "data.rows": None}
    found = []
    for unit in ("a", "b"):
        run = fit_series(config("gp", str(tmp_path / f"{unit}.csv"), **own), home=Home(tmp_path))
        found.append(run.read_series_results())
    cells = found[0].scored.cells
    np.testing.assert_allclose(
        found[0].scored.log_prob, found[1].scored.log_prob + cells * np.log(1000), atol=1e-3
    )


class Stop:
    """Asks for an end after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    name: str, tmp_path: Path, runs: dict[str, Run]
) -> None:
    run = fit_series(config(name), home=Home(tmp_path), watch=Watch(should_stop=Stop(11)))
    assert run.info["status"] == "interrupted"
    resume_series(run)
    assert run.info["status"] == "finished"
    whole, again = (each.load_model()[0] for each in (runs[name], run))
    assert all(np.array_equal(whole[key], again[key], equal_nan=True) for key in whole)
    first, second = runs[name].read_series_results(), run.read_series_results()
    assert np.array_equal(first.scored.log_prob, second.scored.log_prob)
    with pytest.raises(RunExistsError, match="there is nothing to resume"):
        resume_series(run)


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "rnn-dt")) for name in SERIES_MODELS.names()],
)
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, runs: dict[str, Run], model: str) -> None:
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "flowbench",
        "fit",
        "gaussian-process",
        "--model",
        model,
        "--name",
        "k",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [*command, *settings], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    folder = tmp_path / "runs" / "k"
    deadline = time.monotonic() + 60
    while not (folder / "resume.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = Run(folder)
    if run.info["status"] != "finished":
        resume_series(run)
    whole, again = (each.load_model()[0] for each in (runs[model], run))
    assert all(np.array_equal(whole[key], again[key], equal_nan=True) for key in whole)


def test_a_changed_table_is_not_gone_on_with(tmp_path: Path) -> None:
    dataset = load_series("oscillators", count=20)
    path = tmp_path / "table.csv"
    ids = np.array(dataset.ids)[dataset.of_observation]
    lines = [f"{i},{t},{v}" for i, t, v in zip(ids, dataset.times, dataset.values[:, 0], strict=True)]
    path.write_text("id,t,v\n" + "\n".join(lines) + "\n")
    own = {"data.series": "id", "data.time": "t", "data.rows": None}
    run = fit_series(config("gp", str(path), **own), home=Home(tmp_path), watch=Watch(should_stop=Stop(3)))
    path.write_text("id,t,v\n" + "\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match="has changed since"):
        resume_series(run)


def test_crps_of_draws_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    draws, value = rng.normal(size=(7, 2, 1)), rng.normal(size=(2, 1))
    forecast = SeriesForecast(np.arange(2.0), value, np.zeros((4, 2, 1)), draws, value)
    pairs = [np.abs(draws[i] - draws[j]) for i in range(7) for j in range(7) if i != j]
    expected = np.abs(draws - value).mean(0) - 0.5 * np.mean(pairs, axis=0)
    np.testing.assert_allclose(crps(forecast, value), expected)


def test_what_is_held_out() -> None:
    series = TimeSeries(np.arange(10.0), np.arange(10.0)[:, None])
    inner = hide_inner(series, 0.5, key=3)
    assert inner is not None and len(inner.hidden) == 4
    assert inner.seen.times[0] == 0 and inner.seen.times[-1] == 9
    later = hide_later(series, 0.5)
    assert later is not None and later.seen.times.tolist() == [0, 1, 2, 3, 4]
    one = TimeSeries(np.zeros(1), np.zeros((1, 1)))
    assert hide_inner(one, 0.5, key=3) is None and hide_later(one, 0.5) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model.name": "cnf"}, "`cnf` models rows, not series"),
        ({"model.name": "latent"}, "latent-ode"),
        ({"data.series": "id"}, "`series` is given without `time`"),
        ({"plan.phases": [{"objective": "likelihood"}]}, "objective `likelihood` cannot train `gp`"),
        ({"plan.phases": [{"objective": "evidence-bound"}]}, "objective `evidence-bound` cannot train `gp`"),
    ],
)
def test_configurations_that_cannot_be(overrides: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=said):
        fitted(overrides.pop("model.name", "gp"), tmp_path, **overrides)


def test_a_configuration_is_written_and_read(tmp_path: Path, runs: dict[str, Run]) -> None:
    again = SeriesConfig(**runs["gp"].config)
    assert again == config("gp")
    assert is_of_series(None, None, {}, runs["gp"].path / "config.toml")
    assert not is_of_series("moons", "cnf", {})
    with pytest.raises(ConfigurationError, match="say which column of the table names the series"):
        is_of_series("moons", "gp", {})
    assert json.loads(json.dumps(again.to_values())) == again.to_values()


@pytest.mark.parametrize("name", ["gp", "rnn-dt", "latent-ode"])
def test_draws_are_whole_series(name: str, runs: dict[str, Run]) -> None:
    """Draws at neighbouring times move together, as those of `sample` do, where the model says so.

    The GP's covariance is the oracle: that of many draws is the posterior's.
    """
    model = StoredSeriesRun(runs[name]).model
    options = SeriesEvaluationOptions(predictions=4000)
    seen = TimeSeries(np.array([1.0, 2.0]), np.array([[0.3], [-0.2]]))
    times = np.array([3.0, 3.2, 9.0])
    (found,) = predict_series(model, [seen], [times], options)
    assert found.draws.shape == (4000, 3, 1)
    np.testing.assert_allclose(found.draws.mean(0), found.mean, atol=0.15)
    within = (found.bands[0] <= found.draws) & (found.draws <= found.bands[-1])
    np.testing.assert_allclose(within.mean(0), 0.9, atol=0.03)
    if name != "gp":
        return
    every = np.concatenate([seen.times, times])
    drawn = model.encoder.to_data(
        model.for_evaluation(options.integrator).model.sample(
            model.encoder.times_to_model(torch.from_numpy(every)).expand(40_000, -1),
            BatchNoise(40_000, torch.Generator().manual_seed(0), torch.zeros((), dtype=torch.float64)),
        )
    ).numpy()[..., 0]
    whole = np.cov(drawn.T)
    posterior = whole[2:, 2:] - whole[2:, :2] @ np.linalg.solve(whole[:2, :2], whole[:2, 2:])
    np.testing.assert_allclose(np.cov(found.draws[..., 0].T), posterior, atol=0.06)
