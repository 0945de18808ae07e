"""How well a conditional density foretells the rows that came: one set of draws for each held-out row."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.statistics import calibration
from flowbench.statistics.ensembles import coverages_by_tercile, crps, pit
from flowbench.store import Metric

Floats = NDArray[np.float64]

#: Held-out rows that are foretold, at most, and draws for each of them.
ROWS, DRAWS = 500, 100
#: Tolerance of these draws: their scatter is far larger than such a solve is off.
LOOSE = 1e-3


@dataclass(frozen=True)
class Forecast:
    """What draws of a conditional density say of n held-out rows.

    `density_rank: (n,)` is the share of a row's own draws that are likelier than the row; `pit: (n, d)` are
    the probability integral transforms of its columns. Both are uniform on [0, 1] where the density is right.
    `crps: (n, d)` are the ranked probability scores of the columns, in their own units. A periodic column is
    cut at the low end of its period for `pit`, and has distances along the circle in `crps`.
    """

    density_rank: Floats
    pit: Floats
    crps: Floats


@torch.no_grad()
def forecast(
    model: DensityModel,
    rows: Rows,
    options: EvaluationOptions,
    rng: np.random.Generator,
) -> Forecast:
    """Foretell held-out `rows`, data units, from their contexts.

    Where columns are dequantised, a row counts as a random place in its cell, as its draws do. Raises
    `IntegrationError` if a solve fails.
    """
    n, d = rows.x.shape
    loose = model.for_evaluation(options.integrator.coarsened(LOOSE), dtype=torch.float32)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    context = None if rows.context is None else rows.context.repeat_interleave(DRAWS, 0)
    drawn, scores = loose.draw_places(n * DRAWS, generator, context=context)
    placed = model.encoder.jitter(rows.x, rng)
    own = loose.score_places(placed, context=rows.context).log_prob
    # In a column's own units an atom is itself, and not its stand-in.
    draws, told = (each.numpy().reshape(n, DRAWS, d) for each in (drawn, model.put_atoms(drawn, context)))
    periods = model.encoder.circle.periods
    lengths = [periods[name].length if name in periods else None for name in model.columns]
    likelier = (scores.log_prob.view(n, DRAWS) > own[:, None]).sum(1).numpy()
    return Forecast(
        (likelier + rng.random(n)) / (DRAWS + 1),
        np.stack([pit(draws[..., i], placed[:, i].numpy(), rng) for i in range(d)], 1),
        np.stack([crps(told[..., i], rows.x[:, i].numpy(), lengths[i]) for i in range(d)], 1),
    )


def forecast_metrics(
    found: Forecast, columns: tuple[str, ...], givens: Floats, names: tuple[str, ...]
) -> dict[str, Metric]:
    """The metrics of a forecast of rows with these `givens: (n, c)`: score, calibration and coverage."""
    metrics = {}
    for number, name in enumerate(columns, start=1):
        scores = found.crps[:, number - 1]
        metrics[f"crps_{number}"] = Metric(float(scores.mean()), f"units of {name}")
        error = float(scores.std(ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else float("nan")
        metrics[f"crps_{number}_standard_error"] = Metric(error, f"units of {name}")
    metrics["pit_p_value"] = Metric(calibration.uniformity(found.pit), "1")
    metrics["density_rank_p_value"] = Metric(calibration.uniformity(found.density_rank[:, None]), "1")
    for each in calibration.coverages(found.density_rank):
        _add_coverage(metrics, f"hdr_coverage_{each.level * 100:.0f}", each)
    for part in coverages_by_tercile(found.density_rank, givens, names):
        given = names.index(part.given) + 1
        name = f"hdr_coverage_{part.coverage.level * 100:.0f}_given_{given}_tercile_{part.part + 1}"
        _add_coverage(metrics, name, part.coverage)
    return metrics


def _add_coverage(metrics: dict[str, Metric], name: str, each: calibration.Coverage) -> None:
    metrics[name] = Metric(each.share, "1")
    metrics[f"{name}_low"], metrics[f"{name}_high"] = Metric(each.low, "1"), Metric(each.high, "1")
