"""Two-sample tests of a fitted model's draws, and the calibration of its density."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.evaluation.conditional import ROWS, forecast, forecast_metrics
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.incomplete import has_gaps
from flowbench.models.density import Flow, base_log_prob
from flowbench.models.density_model import DensityModel
from flowbench.models.mixture import with_context
from flowbench.models.rows import Rows
from flowbench.statistics import calibration, two_sample
from flowbench.statistics.memorisation import memorisation
from flowbench.statistics.weighting import mean_of, thin
from flowbench.store import Calibration, Metric, Results, ScoredRows

Floats = NDArray[np.float64]
Test = Callable[[Floats, Floats, np.random.Generator], two_sample.TwoSampleTest]

#: The most rows on each side of a test: the cost of a kernel grows with their square.
TEST_ROWS = 1000
#: The fewest rows on each side with which a test is made.
LEAST_ROWS = 20

TESTS: dict[str, Test] = {
    "c2st": two_sample.c2st,
    "mmd": two_sample.mmd,
    "sliced_wasserstein": two_sample.sliced_wasserstein,
    "energy_distance": two_sample.energy_distance,
}


@dataclass(frozen=True)
class Judgement:
    """Metrics by name, and the quantile transforms that some of them are computed from."""

    metrics: dict[str, Metric]
    calibration: Calibration


@torch.no_grad()
def judge(
    model: DensityModel, train: Rows, results: Results, options: EvaluationOptions, seed: int
) -> Judgement:
    """Judge a model, in the form that reported likelihoods have, by what its run has stored.

    Draws, held-out rows and `train` rows, data units, are compared in model space, where all columns
    have the same scale. The transforms are one-to-one, so that two distributions are equal there if they are
    equal in data units. Each value of a dequantised column is moved to a random place in its cell, and each
    of a periodic column to one of its copies on the line, which keeps equal distributions equal. Every
    two-sample statistic has a floor: the statistic of train rows against held-out rows, which no model can be
    expected to beat.
    Rows with missing cells are left out.

    Under a conditional model a draw is made for the context of a held-out row. Rows are compared together
    with their contexts, and each held-out row with draws of its own (`flowbench.evaluation.conditional`).

    Rows that have weights are thinned first: a row is kept with a probability in proportion to its weight
    (`flowbench.statistics.weighting.thin`). All tests are of the rows that are kept, whose number is the
    metric `judged_rows`. Only distances to the nearest train row are to all train rows.

    `seed` draws the places and the subsets of rows. Raises `IntegrationError` if a solve fails.
    """
    rng = np.random.default_rng(seed)
    bits = bits_per_dim(results)
    if results.scored.weight is not None:
        results = _of_rows(results, thin(results.scored.weight, rng))
        bits["judged_rows"] = Metric(len(results.scored.row), "1")
    held_out_rows = Rows.of_arrays(results.scored.x, results.scored.context)
    whole = (~has_gaps(held_out_rows)).numpy()
    held_out_rows, train = held_out_rows[torch.from_numpy(whole)], train[~has_gaps(train)]
    drawn_rows = Rows.of_arrays(results.samples.x, results.samples.context)
    drawn, held_out, seen = (
        _in_model_space(model, rows.at(model.unroll(model.encoder.jitter(rows.x, rng), rng, rows.context)))
        for rows in (drawn_rows, held_out_rows, train)
    )
    finite = np.isfinite(drawn).all(1)
    drawn = drawn[finite]
    metrics = bits | {"draws_not_finite": Metric(float((~finite).sum()), "1")}
    # Draws that are not finite are left out of the tests, and their number is a metric.
    floor = seen if train.weights is None else seen[thin(train.weights.numpy(), rng)]
    if min(len(drawn), len(held_out), len(floor)) >= LEAST_ROWS:
        metrics |= _two_sample_metrics(drawn, held_out, floor, rng)
        metrics |= _memorisation_metrics(drawn, held_out, seen)
    found = _calibrate(model, held_out, results, whole, rng)
    if model.givens is None:
        return Judgement(metrics | _calibration_metrics(found, results), found)
    few = held_out_rows[:ROWS]
    told = forecast(model, few, options, rng)
    givens = few.context.numpy() if few.context is not None else np.zeros((len(few), 0))
    metrics |= forecast_metrics(told, results.columns, givens, results.given)
    metrics |= _quantile_metrics(found)
    places = slice(None, len(few))
    return Judgement(
        metrics,
        Calibration(
            found.row[places],
            told.density_rank,
            None if found.column_quantile is None else found.column_quantile[places],
            None if found.radial_quantile is None else found.radial_quantile[places],
            told.pit,
            told.crps,
        ),
    )


def bits_per_dim(results: Results) -> dict[str, Metric]:
    """The test NLL in bits per column, of the density in data units; categories do not count."""
    nll = -mean_of(results.scored.log_density, results.scored.weight)
    return {"bits_per_dim": Metric(nll / (len(results.columns) * np.log(2)), "bits")}


def _of_rows(results: Results, kept: NDArray[np.int64]) -> Results:
    """The results with only the scored rows in the places `kept: (k,)`, which count alike."""
    scored = results.scored
    parts = {name: part[kept] for name, part in vars(scored).items() if part is not None}
    return replace(results, scored=ScoredRows(**parts | {"weight": None}))


def _in_model_space(model: DensityModel, rows: Rows) -> Floats:
    """Rows `(n, d)`, or with their contexts behind `(n, d + c)`, in model space."""
    given = None
    if model.givens is not None and rows.context is not None:
        given = model.givens.to_model(rows.context)
    z: Floats = with_context(model.encoder.to_model(rows.x)[0], given).numpy()
    return z


def _two_sample_metrics(
    drawn: Floats, held_out: Floats, seen: Floats, rng: np.random.Generator
) -> dict[str, Metric]:
    drawn, held_out, seen = (rng.permutation(rows)[:TEST_ROWS] for rows in (drawn, held_out, seen))
    metrics = {}
    for name, test in TESTS.items():
        found, floor = test(drawn, held_out, rng), test(seen, held_out, rng)
        metrics[name] = Metric(found.statistic, "1")
        metrics[f"{name}_p_value"] = Metric(found.p_value, "1")
        metrics[f"{name}_floor"] = Metric(floor.statistic, "1")
        metrics[f"{name}_floor_p_value"] = Metric(floor.p_value, "1")
        if found.band is not None:
            metrics[f"{name}_null_low"], metrics[f"{name}_null_high"] = (Metric(e, "1") for e in found.band)
    return metrics


def _memorisation_metrics(drawn: Floats, held_out: Floats, seen: Floats) -> dict[str, Metric]:
    found = memorisation(drawn, held_out, seen)
    return {
        "memorisation_closer": Metric(found.closer, "1"),
        "memorisation_p_value": Metric(found.p_value, "1"),
        "nearest_train_row_drawn": Metric(float(np.median(found.drawn)), "model-space units"),
        "nearest_train_row_held_out": Metric(float(np.median(found.held_out)), "model-space units"),
    }


def _calibrate(
    model: DensityModel,
    held_out: Floats,
    results: Results,
    whole: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Calibration:
    """The calibration of the scored rows that are `whole: (n,)`, which are `held_out` in model space."""
    row, log_prob = results.scored.row[whole], results.scored.log_prob[whole]
    ranks = calibration.density_ranks(log_prob, results.samples.log_prob, rng)
    columns = radial = None
    if isinstance(model.flow, Flow):
        generator = torch.Generator().manual_seed(0)
        features = model.flow.features
        together = torch.from_numpy(held_out)
        given = together[:, features:] if model.givens is not None else None
        parts = [
            _base_points(model, model.flow, part, generator)
            for part in Rows(together[:, :features], given).split(model.chunk)
        ]
        z = torch.cat(parts).numpy()
        columns, radial = calibration.column_quantiles(z), calibration.radial_quantiles(z)
    return Calibration(row, ranks, columns, radial)


def _base_points(model: DensityModel, flow: Flow, rows: Rows, generator: torch.Generator) -> Tensor:
    """Points `(n, d)`, float64, that are standard normal if the n `rows`, in model space, follow the model.

    Without a `Background`, the points are the images of the rows in the base. With one, each row is assigned
    to the flow or to the background at random, by their posterior probabilities. A row of the flow keeps its
    image. A row of the background has none, and is replaced by a draw from the standard normal.
    """
    x, context = rows.x, rows.context
    given = None if context is None else context.to(flow.like)
    mapped = flow.to_base(x.to(flow.like), generator, context=given)
    z, log_det = mapped.value.cpu().double(), mapped.log_det.cpu().double()
    if model.background is None:
        return z
    log_prob = base_log_prob(z) + log_det
    share = model.background.flow_share(log_prob, model.background.mix(log_prob, x, context=context))
    is_flows = torch.rand(len(x), generator=generator, dtype=torch.float64) < share
    return torch.where(is_flows.unsqueeze(1), z, torch.randn(z.shape, generator=generator, dtype=z.dtype))


def _calibration_metrics(found: Calibration, results: Results) -> dict[str, Metric]:
    drawn = results.samples.log_prob
    metrics = {}
    for each in calibration.coverages(found.density_rank, len(drawn)):
        name = f"hdr_coverage_{each.level * 100:.0f}"
        metrics[name] = Metric(each.share, "1")
        metrics[f"{name}_low"], metrics[f"{name}_high"] = Metric(each.low, "1"), Metric(each.high, "1")
    whole = ~np.isnan(results.scored.x).any(1)
    p_value = calibration.rank_p_value(results.scored.log_prob[whole], drawn)
    metrics["density_rank_p_value"] = Metric(p_value, "1")
    return metrics | _quantile_metrics(found)


def _quantile_metrics(found: Calibration) -> dict[str, Metric]:
    """How uniform the quantiles of base points are."""
    metrics = {}
    quantiles = {
        "column_quantile": found.column_quantile,
        "radial_quantile": found.radial_quantile,
    }
    for name, values in quantiles.items():
        if values is not None:
            metrics[f"{name}_p_value"] = Metric(calibration.uniformity(values), "1")
    return metrics
