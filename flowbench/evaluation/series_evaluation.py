"""Everything a finished run says about its model of series, computed once and stored."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.data import Split
from flowbench.data.series_dataset import Floats, SeriesDataset, TimeSeries
from flowbench.evaluation.series_likelihoods import SeriesLikelihoods, key_of, score_series
from flowbench.evaluation.series_options import SeriesEvaluationOptions
from flowbench.evaluation.series_predictions import Masked, crps, hide_inner, hide_later, predict_series
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.models.series.latent_ode import LatentOde
from flowbench.models.series.noise import SeriesNoise
from flowbench.statistics.paired import estimate_mean
from flowbench.store import Metric
from flowbench.store.series_results import (
    Curves,
    DrawnSeries,
    HeldOut,
    Observations,
    ScoredSeries,
    SeriesResults,
)

#: Times at which a pictured series is predicted, and at which samples are drawn.
POINTS = 120
Tell = Callable[[str], None]


@torch.no_grad()
def compute_series_results(
    model: EncodedSeriesModel,
    dataset: SeriesDataset,
    split: Split,
    options: SeriesEvaluationOptions,
    *,
    seed: int,
    training_metrics: dict[str, Metric],
    provenance: dict[str, Any],
    tell: Tell = lambda text: None,
) -> SeriesResults:
    """Score test series, predict what is held out of them, picture some, and draw new ones; data units.

    `tell` hears which of these is under way. Raises `IntegrationError` if a solve fails.
    """
    began = time.process_time()
    indices = split.test[: options.test_series]
    test = dataset.take(indices)
    series = [test.series(i) for i in range(len(test))]
    tell("scoring test series")
    found = score_series(model, series, options, seed=seed, errors=options.error_series)
    scored = _stored(test, found)
    metrics = _likelihood_metrics(scored)
    metrics["parameters"] = Metric(model.model.parameter_count, "1")
    scale = _spread(dataset, split.train)
    parts = {}
    masks = {
        "interpolation": [hide_inner(each, options.held_out, key_of(each)) for each in series],
        "extrapolation": [hide_later(each, options.seen) for each in series],
    }
    for name, masked in masks.items():
        tell(f"predicting held-out values, {name}")
        part = _held_out(model, masked, options, seed)
        if part is not None:
            parts[name] = part
            metrics |= _prediction_metrics(name, part, scale)
    tell("following curves")
    curves = _curves(model, series, masks["extrapolation"], options, seed)
    results = SeriesResults(
        columns=test.column_names,
        ids=test.ids,
        scored=scored,
        metrics={**training_metrics, **metrics},
        interpolation=parts.get("interpolation"),
        extrapolation=parts.get("extrapolation"),
        curves=curves,
        observations=None if curves is None else _observations(test, curves.of_series),
        samples=_samples(model, options, seed),
        provenance=provenance,
    )
    results.metrics["evaluation_cpu_seconds"] = Metric(time.process_time() - began, "seconds")
    return results


def _stored(test: SeriesDataset, found: SeriesLikelihoods) -> ScoredSeries:
    draws = np.array(list(found.bounds), dtype=np.int64) if found.bounds else None
    return ScoredSeries(
        log_prob=found.log_prob,
        observations=test.lengths,
        cells=test.cells,
        standard_error=found.standard_error,
        solver_error=found.solver_error,
        true_log_prob=test.log_prob,
        draws=draws,
        bound=np.stack(list(found.bounds.values())) if found.bounds else None,
    )


def _likelihood_metrics(scored: ScoredSeries) -> dict[str, Metric]:
    """The mean NLL of a series and of a cell, and how sure they are."""
    nll, cells = -scored.log_prob, scored.cells
    metrics = _mean_metrics("test_nll", nll)
    ratio = nll.sum() / cells.sum()
    metrics["test_nll_per_value"] = Metric(float(ratio), "nats")
    if len(nll) > 1:
        # The delta method, for the ratio of two means.
        error = (nll - ratio * cells).std(ddof=1) / cells.mean() / len(nll) ** 0.5
        metrics["test_nll_per_value_standard_error"] = Metric(float(error), "nats")
    if scored.standard_error is not None:
        metrics["draws"] = Metric(float((scored.draws if scored.draws is not None else [1])[-1]), "1")
        metrics["bound_error_median"] = Metric(float(np.median(scored.standard_error)), "nats")
        metrics["bound_error_largest"] = Metric(float(scored.standard_error.max()), "nats")
    if scored.bound is not None and len(scored.bound) > 1:
        metrics["bound_gain_of_last_draws"] = Metric(
            float((scored.bound[-1] - scored.bound[-2]).mean()), "nats"
        )
    if scored.solver_error is not None:
        metrics["solver_error_largest"] = Metric(float(scored.solver_error.max()), "nats")
    if scored.true_log_prob is not None:
        metrics |= _mean_metrics("kl_to_truth", scored.true_log_prob - scored.log_prob)
    return metrics


def _mean_metrics(name: str, values: Floats, units: str = "nats") -> dict[str, Metric]:
    estimate = estimate_mean(values)
    metrics = {name: Metric(estimate.mean, units)}
    if estimate.standard_error is not None:
        metrics[f"{name}_standard_error"] = Metric(estimate.standard_error, units)
    return metrics


def _spread(dataset: SeriesDataset, train: NDArray[np.int64]) -> Floats:
    """The standard deviation of each column over the train series: `(d,)`."""
    return np.asarray(np.nanstd(dataset.take(train).values, axis=0))


def _held_out(
    model: EncodedSeriesModel, masked: Sequence[Masked | None], options: SeriesEvaluationOptions, seed: int
) -> HeldOut | None:
    kept = [(number, each) for number, each in enumerate(masked) if each is not None]
    if not kept:
        return None
    found = predict_series(
        model,
        [each.seen for _, each in kept],
        [each.hidden.times for _, each in kept],
        options,
        values=[each.hidden.values for _, each in kept],
        seed=seed,
    )
    scores = [crps(forecast, each.hidden.values) for forecast, (_, each) in zip(found, kept, strict=True)]
    return HeldOut(
        of_series=np.repeat([number for number, _ in kept], [len(each.hidden) for _, each in kept]),
        time=np.concatenate([each.hidden.times for _, each in kept]),
        value=np.concatenate([each.hidden.values for _, each in kept]),
        mean=np.concatenate([forecast.mean for forecast in found]),
        bands=np.concatenate([forecast.bands for forecast in found], axis=1),
        log_prob=np.concatenate([forecast.log_prob for forecast in found]),
        crps=np.concatenate(scores),
    )


def _prediction_metrics(name: str, part: HeldOut, scale: Floats) -> dict[str, Metric]:
    """Errors over all cells, in standard deviations of their columns, and how often the bands hold them."""
    held = ~np.isnan(part.value)
    error = ((part.mean - part.value) / scale)[held]
    low, lower, upper, high = part.bands
    cells = int(held.sum())
    return {
        f"{name}_values": Metric(cells, "1"),
        f"{name}_rmse": Metric(float(np.sqrt(np.mean(error**2))), "standard deviations"),
        f"{name}_nll": Metric(float(-part.log_prob[held].mean()), "nats"),
        f"{name}_crps": Metric(float((part.crps / scale)[held].mean()), "standard deviations"),
        f"{name}_coverage_90": Metric(float(((low <= part.value) & (part.value <= high))[held].mean()), "1"),
        f"{name}_coverage_50": Metric(
            float(((lower <= part.value) & (part.value <= upper))[held].mean()), "1"
        ),
    }


def _curves(
    model: EncodedSeriesModel,
    series: Sequence[TimeSeries],
    masked: Sequence[Masked | None],
    options: SeriesEvaluationOptions,
    seed: int,
) -> Curves | None:
    """Predictions along the whole of some series, given what comes before the cut."""
    shown = [number for number, each in enumerate(masked) if each is not None][: options.curves]
    if not shown:
        return None
    seen = [each.seen for number in shown if (each := masked[number]) is not None]
    times = [np.linspace(series[number].times[0], series[number].times[-1], POINTS) for number in shown]
    found = predict_series(model, seen, times, options, seed=seed)
    path = None
    if isinstance(model.model, LatentOde):
        path = latent_paths(model, seen, times, options)
    return Curves(
        of_series=np.array(shown, dtype=np.int64),
        time=np.stack(times),
        mean=np.stack([each.mean for each in found]),
        bands=np.stack([each.bands for each in found], axis=1),
        cut=np.array([each.times[-1] for each in seen]),
        path=path,
    )


def latent_paths(
    model: EncodedSeriesModel,
    seen: Sequence[TimeSeries],
    times: Sequence[Floats],
    options: SeriesEvaluationOptions,
) -> Floats:
    """The latent states `(c, g, q)` at g times of each of c series, from the mean of the posterior."""
    judged = model.for_evaluation(options.integrator)
    latent = judged.model
    if not isinstance(latent, LatentOde):
        raise TypeError(f"a {type(latent).__name__} has no latent paths")
    paths = []
    for one, own in zip(seen, times, strict=True):
        batch, _ = judged.encode([one])
        mean, _ = latent.recognition(batch)
        model_times = judged.encoder.times_to_model(torch.from_numpy(own))
        paths.append(latent.paths(mean, model_times)[:, 0].numpy())
    return np.stack(paths)


def _observations(test: SeriesDataset, shown: NDArray[np.int64]) -> Observations:
    part = test.take(shown)
    return Observations(
        of_series=shown[part.of_observation], time=part.times, value=part.values, truth=part.truth
    )


def _samples(model: EncodedSeriesModel, options: SeriesEvaluationOptions, seed: int) -> DrawnSeries | None:
    if not options.samples:
        return None
    origin, scale = float(model.encoder.time_origin), float(model.encoder.time_scale)
    times = np.linspace(origin, origin + scale, POINTS)
    return DrawnSeries(times, sample_series(model, options.samples, times, options, seed=seed))


@torch.no_grad()
def sample_series(
    model: EncodedSeriesModel, n: int, times: Floats, options: SeriesEvaluationOptions, *, seed: int
) -> Floats:
    """Draw `n` series at increasing `times: (k,)`, with noise: `(n, k, d)`, data units."""
    judged = model.for_evaluation(options.integrator)
    at = judged.encoder.times_to_model(torch.from_numpy(times)).expand(n, -1)
    noise = SeriesNoise(np.arange(n, dtype=np.uint64), seed, judged.model.like)
    drawn: Floats = judged.encoder.to_data(judged.model.sample(at, noise)).numpy()
    return drawn
