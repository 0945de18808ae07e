"""The density of one column at single contexts, for a picture of a conditional density with many givens."""

import numpy as np
import torch
from torch import Tensor

from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.models.density_model import DensityModel
from flowbench.store import Slices

#: The rows that are pictured are those at these quantiles of the column: a low, a middle and a high one.
QUANTILES = (1 / 6, 1 / 2, 5 / 6)
#: Draws at each context, which tell where its density is.
DRAWS = 200
#: Points at which a density is tabulated.
POINTS = 400
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
    values = x[:, 0]
    chosen = values.argsort(stable=True)[[round(level * (len(x) - 1)) for level in QUANTILES]]
    given = context[chosen]
    coarse = model.for_evaluation(options.integrator.coarsened(COARSE), dtype=torch.float32)
    drawn = coarse.sample_places_for_each(DRAWS, generator, context=given)[:, :, 0].numpy()
    low, high = drawn.min(1), drawn.max(1)
    reach = MARGIN * (high - low)
    even = np.linspace(low - reach, high + reach, POINTS // 2, axis=1)
    levels = (np.arange(POINTS // 2) + 0.5) / (POINTS // 2)
    y = np.sort(np.hstack([even, np.quantile(drawn, levels, axis=1).T]), axis=1)
    scores = coarse.score_places(
        torch.from_numpy(y.reshape(-1, 1)), context=given.repeat_interleave(POINTS, 0)
    )
    return Slices(given.numpy(), values[chosen].numpy(), y, scores.log_prob.double().numpy().reshape(y.shape))
