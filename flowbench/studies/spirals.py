"""A latent ODE against recurrent networks that extrapolate spirals (Chen et al. 2018, table 2)."""

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch

from flowbench.data.series_dataset import SeriesDataset, TimeSeries
from flowbench.data.series_toys import Spirals
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.models.series.noise import BatchNoise
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.statistics.paired import compare_paired
from flowbench.store.findings import Chart, Findings, Series
from flowbench.store.text_table import TextTable
from flowbench.studies.study import (
    Budget,
    Claim,
    Floats,
    Measurement,
    Study,
    Tell,
    Trial,
    compared,
    over_seeds,
)
from flowbench.studies.timed_series_fit import build_for, train_for

TRAIN, VALIDATION, TEST = 1000, 100, 200
#: Series of a training step.
BATCH = 64
#: Steps in which a series is seen, and as many after these, which are predicted.
STEPS = 100
#: Draws that a prediction is the mean of.
DRAWS = 50
#: The noise at which the numbers of seen points are compared. The paper does not give its own.
NOISE = 0.1
#: How many points are seen where noises are compared.
SWEPT = 50
MODELS = ("latent-ode", "rnn", "rnn-dt")
#: RMSE by the number of seen points, as published.
PUBLISHED = {
    "rnn": {30: 0.3937, 50: 0.3202, 100: 0.1813},
    "latent-ode": {30: 0.1642, 50: 0.1502, 100: 0.1346},
}
#: The sizes of the paper. The recurrent networks have those of the latent ODE's encoder and decoder.
SIZES: dict[str, dict[str, Any]] = {
    "latent-ode": {"latent": 4, "width": 20, "layers": 1, "units": 25},
    "rnn": {"units": 25, "width": 20},
    "rnn-dt": {"units": 25, "width": 20},
}
#: By trials of 20 CPU seconds at 30 points, in which SOAP was far better than Adam. Of the rates 0.005, 0.02
#: and 0.05 for the latent ODE, and 0.01 and 0.03 for `rnn-dt`, these do best.
RATES = {"latent-ode": 2e-2, "rnn": 1e-2, "rnn-dt": 1e-2}
#: For each budget: numbers of seen points, seeds, other noises with their seeds, and CPU seconds of a fit.
EXTENT: dict[Budget, tuple[tuple[int, ...], int, tuple[float, ...], int, float]] = {
    "quick": ((30,), 2, (0.3,), 1, 5.0),
    "default": ((30, 50, 100), 5, (0.03, 0.3), 2, 25.0),
    "full": ((30, 50, 100), 5, (0.03, 0.3), 5, 300.0),
}


class SpiralsStudy(Study):
    """Learns spirals that are seen at irregular times, and predicts where they go on."""

    claim: ClassVar[Claim] = Claim(
        "spirals",
        "A latent ODE extrapolates spirals better than a recurrent network",
        "Of 1,000 spirals, 30, 50 or 100 noisy points are seen at irregular times. On the 100 points beyond, "
        "a latent ODE has a predictive RMSE of 0.1642, 0.1502 and 0.1346, and a recurrent network 0.3937, "
        "0.3202 and 0.1813.",
        "Chen et al. 2018, section 5.1 and table 2",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each noise, number of seen points, seed and model."""
        points, seeds, noises, fewer, _ = EXTENT[budget]
        settings = [(NOISE, each, seed) for each, seed in product(points, range(seeds))]
        settings += [(noise, _swept(budget), seed) for noise, seed in product(noises, range(fewer))]
        return [
            Trial(
                f"{noise:g}-{seen}-{model}-{seed}",
                {"noise": noise, "points": seen, "model": model, "seed": seed},
            )
            for (noise, seen, seed), model in product(settings, MODELS)
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one model for CPU seconds, then predict fresh spirals, in float64."""
        noise, points, model, seed = (trial.values[name] for name in ("noise", "points", "model", "seed"))
        drawn = Spirals(noise=noise, points=points, steps=STEPS).draw(TRAIN + VALIDATION, seed)
        generator = torch.Generator().manual_seed(seed)
        encoded = build_for(drawn.take(np.arange(TRAIN)), model, SIZES[model], generator)
        steps = _train(encoded, drawn, RATES[model], EXTENT[budget][4], seed, tell)
        whole = Spirals(noise=noise, points=2 * STEPS, steps=2 * STEPS).draw(TEST, 1000 + seed)
        truth = np.asarray(whole.truth).reshape(TEST, 2 * STEPS, -1)
        seen = _seen(whole, points, np.random.default_rng(seed))
        found = _predict(encoded, seen, whole.times.reshape(TEST, -1), seed)
        squares = (found - truth) ** 2
        shown = _one_of_each(truth)
        return Measurement(
            {
                "rmse": float(np.sqrt(squares[:, STEPS:].mean())),
                "rmse_inside": float(np.sqrt(squares[:, :STEPS].mean())),
                "steps": float(steps),
                "parameters": float(encoded.model.parameter_count),
            },
            {
                "rmse_by_step": np.sqrt(squares.mean((0, 2))),
                "truth": truth[shown],
                "found": found[shown],
                "seen": np.stack([seen[i].values for i in shown]),
                "first": np.array([np.searchsorted(whole.series(i).times, seen[i].times[0]) for i in shown]),
            },
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if the latent ODE is below both recurrent networks for every number of points."""
        points, seeds, noises, fewer, seconds = EXTENT[budget]
        rmse = {key: _figures(measured, key, "rmse") for key in {_key(trial) for trial, _ in measured}}
        rows, above, level = [], [], []
        for seen in points:
            ours = rmse[NOISE, seen, "latent-ode"]
            ahead = {
                name: compare_paired(rmse[NOISE, seen, name], ours, resample=False) for name in MODELS[1:]
            }
            for name, difference in ahead.items():
                if difference is None or not difference.is_resolved:
                    level.append(f"{name} at {seen}")
                elif difference.mean < 0:
                    above.append(f"{name} at {seen}")
            rows.append(
                (
                    str(seen),
                    *(f"{rmse[NOISE, seen, name].mean():.4f}" for name in MODELS),
                    *(compared(each) for each in ahead.values()),
                    *(f"{PUBLISHED[name][seen]:.4f}" for name in ("latent-ode", "rnn")),
                )
            )
        table = TextTable(
            f"RMSE on the {STEPS} points beyond, noise {NOISE:g}",
            (
                "seen points",
                *MODELS,
                *(f"{name} above latent-ode [95%]" for name in MODELS[1:]),
                "published, latent ODE",
                "published, RNN",
            ),
            tuple(rows),
            (True,) * 8,
            (
                f"Means over {seeds} seeds, each with {TRAIN:,} train spirals and {TEST} fresh ones to "
                f"predict. Every model was trained for {seconds:g} CPU seconds with SOAP and batches of "
                f"{BATCH}. The interval is Student's t of the differences over the seeds. In charts, bars "
                "reach from the lowest seed to the highest.",
                "The error is that of the mean of a prediction, from the curve without noise. It is in "
                "units of the plane, on which the spirals have radii from 0 to 15.",
                "The paper gives neither the noise nor the size of its spirals. The size here is that of "
                "torchdiffeq's example. So published figures may be on another scale.",
                "Recurrent networks feed their predictions back, in steps of the mean gap of what they "
                "learnt from. In between, their predictions are interpolated. Shorter steps make them worse.",
            ),
        )
        return Findings(
            "not reproduced" if above or level else "reproduced",
            _reason(2 * len(points), above, level, seconds),
            (table, _more(measured, points), _sweep(rmse, noises, budget, fewer)),
            (_by_points(rmse, points), _by_step(measured, points[0]), *_planes(measured, points[0])),
        )


def _train(
    encoded: EncodedSeriesModel, drawn: SeriesDataset, rate: float, seconds: float, seed: int, tell: Tell
) -> int:
    """Train the model for CPU seconds; returns the number of steps."""
    objective: dict[str, Any] = {"name": "series-likelihood"}
    if not encoded.model.is_exact:
        objective = {"name": "evidence-bound", "cut": 0.0, "warm_up": 0.1}
    return train_for(
        encoded,
        (drawn.take(np.arange(TRAIN)), drawn.take(np.arange(TRAIN, TRAIN + VALIDATION))),
        {"objective": objective, "optimizer": "soap", "batch_size": BATCH, "learning_rate": rate},
        {"seconds": seconds},
        torch.Generator().manual_seed(seed),
        lambda progress: tell(f"step {progress.step:,}, validation NLL {progress.validation_nll:.2f}"),
    )


def _seen(whole: SeriesDataset, points: int, rng: np.random.Generator) -> list[TimeSeries]:
    """`points` of the first steps of each spiral."""
    found = []
    for number in range(len(whole)):
        series, chosen = whole.series(number), np.sort(rng.choice(STEPS, points, replace=False))
        found.append(TimeSeries(series.times[chosen], series.values[chosen]))
    return found


@torch.no_grad()
def _predict(encoded: EncodedSeriesModel, seen: Sequence[TimeSeries], times: Floats, seed: int) -> Floats:
    """The mean of the predictions at `times: (n, k)`, of which the first half are within: `(n, k, 2)`.

    Beyond, a recurrent network is asked at as many times as were seen, and its answers are interpolated. They
    are as far apart as it knows from training, without which it is several times worse.
    """
    judged = encoded.for_evaluation(PerRowOptions(atol=1e-5, rtol=1e-5))
    batch, _ = judged.encode(seen)
    noise = BatchNoise(len(batch), torch.Generator().manual_seed(seed), judged.model.like)

    def means(times: Floats) -> Floats:
        at = judged.encoder.times_to_model(torch.tensor(times))
        # The columns are standardised, so the mean of the values is the value of the mean.
        return judged.encoder.to_data(judged.model.predict(batch, at, noise, DRAWS).mean).numpy()

    if judged.model.looks_ahead:
        return means(times)
    points = batch.times.shape[1]
    last, end = times[:, STEPS - 1 : STEPS], times[:, -1:]
    beyond = last + (end - last) * np.linspace(0, 1, points + 1)[1:]
    within, nodes = means(times[:, :STEPS]), np.concatenate([last, beyond], 1)
    values = np.concatenate([within[:, -1:], means(beyond)], 1)
    after = [
        [np.interp(asked, at, column) for column in each.T]
        for asked, at, each in zip(times[:, STEPS:], nodes, values, strict=True)
    ]
    return np.concatenate([within, np.array(after).transpose(0, 2, 1)], 1)


def _one_of_each(truth: Floats) -> list[int]:
    """The first clockwise and the first other spiral, by the centres that they wind around."""
    return [int(np.argmax(side)) for side in (truth[:, 0, 0] < -2, truth[:, 0, 0] > 2)]


def _key(trial: Trial) -> tuple[float, int, str]:
    return trial.values["noise"], trial.values["points"], trial.values["model"]


def _figures(measured: Sequence[tuple[Trial, Measurement]], key: tuple[float, int, str], name: str) -> Floats:
    return np.array([m.figures[name] for t, m in measured if _key(t) == key])


def _swept(budget: Budget) -> int:
    points = EXTENT[budget][0]
    return SWEPT if SWEPT in points else points[0]


def _reason(cases: int, above: Sequence[str], level: Sequence[str], seconds: float) -> str:
    told = (
        f"After {seconds:g} CPU seconds each, the latent ODE is below a recurrent network, with an interval "
        f"without zero, in {cases - len(above) - len(level)} of {cases} pairs of network and points."
    )
    if level:
        told += f" Not told apart: {'; '.join(level)}."
    if above:
        told += f" It is above {'; '.join(above)}."
    return told


def _more(measured: Sequence[tuple[Trial, Measurement]], points: Sequence[int]) -> TextTable:
    rows = [
        (
            str(seen),
            name,
            *(
                f"{_figures(measured, (NOISE, seen, name), figure).mean():{form}}"
                for figure, form in (("rmse_inside", ".4f"), ("steps", ",.0f"), ("parameters", ",.0f"))
            ),
        )
        for seen, name in product(points, MODELS)
    ]
    return TextTable(
        "Reconstruction, steps and sizes",
        ("seen points", "model", f"RMSE on the {STEPS} points within", "steps", "parameters"),
        tuple(rows),
        (True, False, True, True, True),
        (
            "A recurrent network predicts from the points before alone, and knows nothing before the first. "
            "The latent ODE sees all of them.",
        ),
    )


def _sweep(
    rmse: dict[tuple[float, int, str], Floats], noises: Sequence[float], budget: Budget, seeds: int
) -> TextTable:
    seen = _swept(budget)
    rows = [
        (f"{noise:g}", *(f"{rmse[noise, seen, name][:seeds].mean():.4f}" for name in MODELS))
        for noise in sorted((NOISE, *noises))
    ]
    return TextTable(
        f"RMSE by noise, {seen} points seen",
        ("noise", *MODELS),
        tuple(rows),
        (True,) * 4,
        (f"The noise is the standard deviation of each coordinate. Seeds: {seeds}.",),
    )


def _by_points(rmse: dict[tuple[float, int, str], Floats], points: Sequence[int]) -> Chart:
    x = np.array(points, dtype=float)
    series = []
    for name in MODELS:
        values = [rmse[NOISE, seen, name] for seen in points]
        series.append(over_seeds(name, x, values))
    return Chart("RMSE beyond what is seen", "seen points", "RMSE", tuple(series), ("y",))


def _by_step(measured: Sequence[tuple[Trial, Measurement]], points: int) -> Chart:
    """How the error grows, of the first seed."""
    x = np.arange(2 * STEPS, dtype=float)
    curves = {t.values["model"]: m.arrays["rmse_by_step"] for t, m in _first(measured, points)}
    return Chart(
        f"Error by step, {points} points of the first {STEPS} steps seen",
        "step",
        "RMSE",
        tuple(Series(name, x, curves[name]) for name in MODELS),
        ("y",),
    )


def _planes(measured: Sequence[tuple[Trial, Measurement]], points: int) -> list[Chart]:
    """Two spirals with the predictions of each model, of the first seed."""
    charts = []
    for (trial, measurement), (number, side) in product(
        _first(measured, points), enumerate(("clockwise", "counter-clockwise"))
    ):
        truth, found, seen = (measurement.arrays[name][number] for name in ("truth", "found", "seen"))
        # Of the first point that is seen, a recurrent network knows nothing.
        first = int(measurement.arrays["first"][number]) + 1
        charts.append(
            Chart(
                f"{trial.values['model']}, {side}, {points} points seen",
                "x",
                "y",
                (
                    Series("true curve", *truth.T),
                    Series("within", *found[first:STEPS].T),
                    Series("beyond", *found[STEPS:].T),
                    Series("seen", seen[:, 0], seen[:, 1], is_scatter=True),
                ),
                is_plane=True,
            )
        )
    return charts


def _first(measured: Sequence[tuple[Trial, Measurement]], points: int) -> list[tuple[Trial, Measurement]]:
    wanted = {(NOISE, points, name) for name in MODELS}
    return [(t, m) for t, m in measured if _key(t) in wanted and not t.values["seed"]]
