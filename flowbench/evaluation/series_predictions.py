"""Predictions of series in data units, and how good they are on what was held out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data.series_dataset import Floats, TimeSeries
from flowbench.evaluation.series_likelihoods import keys_of, same_solves
from flowbench.evaluation.series_options import SeriesEvaluationOptions
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.models.series.noise import SeriesNoise
from flowbench.models.series.prediction import Prediction

#: The ends of the bands that hold 90% and 50% of the probability.
BANDS = (0.05, 0.25, 0.75, 0.95)
#: Nodes of Gauss and Hermite's rule, which averages what an encoder makes of a normal distribution.
NODES = 8
#: Series that are predicted together.
CHUNK = 32


@dataclass(frozen=True, eq=False)
class SeriesForecast:
    """What is predicted for one series at `times: (k,)`, data units.

    `mean: (k, d)`, and `bands: (4, k, d)`, the quantiles `BANDS` of each cell. `draws: (m, k, d)` are whole
    series at these times. Where the values are known, `log_prob: (k, d)` is the log-density of each by
    itself, nats, and NaN where a cell is missing.
    """

    times: Floats
    mean: Floats
    bands: Floats
    draws: Floats
    log_prob: Floats


@torch.no_grad()
def predict_series(
    model: EncodedSeriesModel,
    seen: Sequence[TimeSeries],
    times: Sequence[Floats],
    options: SeriesEvaluationOptions,
    *,
    values: Sequence[Floats] | None = None,
    seed: int = 0,
) -> list[SeriesForecast]:
    """Predict series at increasing `times`, `(k,)` each and one at least, from what was `seen` of them.

    `values`, `(k, d)` each, are what was held out there, if it is known. A prediction does not depend on the
    other series. Raises `IntegrationError` if a solve fails.
    """
    judged = model.for_evaluation(options.integrator)
    held_out = values or [np.full((len(each), len(model.columns)), np.nan) for each in times]
    every, _ = judged.encode([TimeSeries(t, v) for t, v in zip(times, held_out, strict=True)])
    known, _ = judged.encode(seen)
    keys = keys_of(seen)
    found: dict[int, SeriesForecast] = {}
    # With as many times, a series gets the same random numbers whichever others there are.
    for group in same_solves(every, of_one_length=True):
        for part in torch.split(group, CHUNK):
            asked, noise = every[part], SeriesNoise(keys[part.numpy()], seed, judged.model.like)
            prediction = judged.model.predict(known[part], asked.times, noise, options.predictions)
            parts = _described(judged, prediction, asked.values, noise, options.predictions)
            for place, number in enumerate(part.tolist()):
                mean, bands, draws, log_prob, slope = (each[..., place, :, :] for each in parts)
                density = torch.where(asked.observed[place], log_prob + slope, torch.nan)
                found[number] = SeriesForecast(
                    times[number], mean.numpy(), bands.numpy(), draws.numpy(), density.numpy()
                )
    return [found[number] for number in range(len(times))]


def _described(
    model: EncodedSeriesModel, prediction: Prediction, values: Tensor, noise: SeriesNoise, draws: int
) -> tuple[Tensor, ...]:
    """Mean, bands, draws, log-density in model space, and log|dz/dx| at the `values: (n, k, d)`."""
    encoder = model.encoder
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    whole = torch.zeros_like(values)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        x = encoder.to_data(prediction.means + node * prediction.scales)
        whole += weight * (prediction.log_weights.exp()[..., None, None] * x).sum(0)
    bands = torch.stack([encoder.to_data(prediction.quantile(each)) for each in BANDS])
    drawn = prediction.resampled(draws, noise)
    flat = encoder.to_data(values).flatten(0, 1)
    slope = encoder.to_model(flat)[1].view_as(values)
    return whole, bands, encoder.to_data(drawn), prediction.log_prob(values), slope


def crps(forecast: SeriesForecast, values: Floats) -> Floats:
    """The continuous ranked probability score of each cell of `values: (k, d)`, from the draws, data units.

    E|X - x| - E|X - X'| / 2, with the mean over pairs of different draws (Gneiting and Raftery 2007).
    """
    drawn = np.sort(forecast.draws, axis=0)
    m = len(drawn)
    near = np.abs(drawn - values).mean(0)
    # Of sorted draws, the sum over pairs takes one pass.
    ranks = (2 * np.arange(m) - m + 1)[:, None, None]
    return np.asarray(near - (ranks * drawn).sum(0) / (m * (m - 1)))


@dataclass(frozen=True)
class Masked:
    """What is seen of a series, and what is held out."""

    seen: TimeSeries
    hidden: TimeSeries


def hide_inner(series: TimeSeries, share: float, key: int) -> Masked | None:
    """Hold out a share of the observations between the first and the last, one at least; None if there are
    too few.
    """
    inner = len(series) - 2
    if inner < 1:
        return None
    rng = np.random.default_rng([key, 0])
    count = max(1, round(share * inner))
    hidden = np.zeros(len(series), dtype=bool)
    hidden[1 + rng.choice(inner, count, replace=False)] = True
    return _split(series, hidden)


def hide_later(series: TimeSeries, share: float) -> Masked | None:
    """Hold out what comes after the first `share` of a series' own time; None if nothing does, or all."""
    cut = series.times[0] + share * (series.times[-1] - series.times[0])
    hidden = series.times > cut
    return None if not hidden.any() else _split(series, hidden)


def _split(series: TimeSeries, hidden: NDArray[np.bool_]) -> Masked:
    return Masked(
        TimeSeries(series.times[~hidden], series.values[~hidden]),
        TimeSeries(series.times[hidden], series.values[hidden]),
    )
