"""The density of one or two columns at single contexts, for pictures of a conditional density."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.evaluation.grid import grid_axes, tabulate
from flowbench.models.conditioned import Conditioned
from flowbench.models.density_model import DensityModel
from flowbench.store import SlicePlanes, Slices

Floats = NDArray[np.float64]

#: The pictured rows are those at these quantiles of the first column: a low, a middle and a high one.
QUANTILES = (1 / 6, 1 / 2, 5 / 6)
#: Draws at each context, which tell where its density is.
DRAWS = 200
#: Points at which a density is tabulated.
POINTS = 400
#: Points along each side at which a density of two columns is tabulated.
SIDE = 60
#: A side covers the draws without this share at each end. It reaches beyond by `SIDE_MARGIN` of its length.
TAIL = 0.05
SIDE_MARGIN = 0.5
#: The points reach beyond the draws by this share of their range.
MARGIN = 0.25


def tabulate_slices(
    model: DensityModel,
    x: Tensor,
    context: Tensor,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> Slices:
    """The density of the only column at the contexts of three held-out rows, data units.

    The rows are among `x: (n, 1)` with their `context: (n, c)`. Half of the points at which the density is
    tabulated are even over the range of draws. The others are at quantiles of the draws, so that a narrow
    peak beside a broad one has points of its own. Raises `IntegrationError` if a solve fails.
    """
    chosen, given = _pick(x, context, model.absent(context))
    coarse = _coarse(model, options)
    drawn = coarse.sample_places_for_each(DRAWS, generator, context=given)[:, :, 0].numpy()
    low, high = drawn.min(1), drawn.max(1)
    reach = MARGIN * (high - low)
    low, high = low - reach, high + reach
    if period := list(model.encoder.circle.periods.values()):
        low, high = low.clip(min=period[0].low), high.clip(max=period[0].high)
    even = np.linspace(low, high, POINTS // 2, axis=1)
    levels = (np.arange(POINTS // 2) + 0.5) / (POINTS // 2)
    y = np.sort(np.hstack([even, np.quantile(drawn, levels, axis=1).T]), axis=1)
    scores = coarse.score_places(
        torch.from_numpy(y.reshape(-1, 1)), context=given.repeat_interleave(POINTS, 0)
    )
    own = model.encoder.wrap(x[chosen])[:, 0].numpy()
    return Slices(given.numpy(), own, y, scores.log_prob.double().numpy().reshape(y.shape))


def tabulate_slice_planes(
    model: DensityModel,
    x: Tensor,
    context: Tensor,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> SlicePlanes:
    """The density of the only two columns at the contexts of three held-out rows, data units.

    The rows are among `x: (n, 2)` with their `context: (n, c)`. The grid covers most of the draws at a
    context and the row itself. Raises `IntegrationError` if a solve fails.
    """
    chosen, given = _pick(x, context, model.absent(context))
    coarse = _coarse(model, options)
    drawn = coarse.sample_places_for_each(DRAWS, generator, context=given).numpy()
    own = model.encoder.wrap(x[chosen]).numpy()
    low = np.minimum(np.quantile(drawn, TAIL, axis=1), own)
    high = np.maximum(np.quantile(drawn, 1 - TAIL, axis=1), own)
    reach = SIDE_MARGIN * (high - low)
    boxes = [
        model.encoder.whole_box(tuple(zip(*ends, strict=True)))
        for ends in zip((low - reach).tolist(), (high + reach).tolist(), strict=True)
    ]
    sides = np.array([grid_axes(box, SIDE) for box in boxes])

    def log_density(points: Floats, model: Conditioned) -> Floats:
        return model.score_places(torch.from_numpy(points)).log_prob.double().numpy()

    models = [Conditioned(coarse, each) for each in given]
    log_prob = [
        tabulate(partial(log_density, model=each), *side) for each, side in zip(models, sides, strict=True)
    ]
    return SlicePlanes(given.numpy(), own, sides[:, 0], sides[:, 1], np.stack(log_prob))


def _pick(x: Tensor, context: Tensor, absent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which of the rows are pictured, by their first column, and their contexts.

    `absent: (n, d)` are cells that hold an atom, if there are such cells.
    """
    # Of a cell that holds an atom there is no density.
    whole = (~absent.any(1)).nonzero().squeeze(1) if absent is not None else torch.arange(len(x))
    whole = whole if len(whole) else torch.arange(len(x))
    places = dict.fromkeys(round(level * (len(whole) - 1)) for level in QUANTILES)
    chosen = whole[x[whole, 0].argsort(stable=True)[list(places)]]
    return chosen, context[chosen]


def _coarse(model: DensityModel, options: EvaluationOptions) -> DensityModel:
    """The model for a picture, which needs no sixth digit."""
    return model.for_evaluation(options.integrator.coarsened(COARSE), dtype=torch.float32)
