"""Small models of series with weights all over, and ragged series with missing cells, for tests."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.models.series.noise import SeriesNoise
from flowbench.models.series.series_model import SeriesModel
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.registry import SERIES_MODELS

#: Series, each as times `(m,)` and values `(m, d)`.
Series = list[tuple[Tensor, Tensor]]

#: Options that make each model small, and further variants of it.
SIZES: dict[str, dict[str, Any]] = {
    "latent-ode": {"latent": 2, "width": 6, "units": 5, "recognition_width": 5},
    "ode-rnn": {"units": 6, "width": 6, "dynamics": 5},
    "gp": {},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SERIES_MODELS.names()),
    ("latent-ode", {"recognition": "ode-rnn"}),
    *(("gp", {"kernel": kernel}) for kernel in ("matern12", "matern52", "rbf")),
]
EXACT = [(name, values) for name, values in VARIANTS if SERIES_MODELS.get(name).is_exact]


def fresh(name: str, features: int = 2, seed: int = 0, **values: Any) -> SeriesModel:
    """A small model with its initial weights."""
    model_class = SERIES_MODELS.get(name)
    options = model_class.Options(**{**SIZES.get(name, {"units": 6, "width": 6}), **values})
    model: SeriesModel = model_class(features, options, torch.Generator().manual_seed(seed))
    return model


def scattered(name: str, features: int = 2, **values: Any) -> SeriesModel:
    """A small model none of whose weights is zero."""
    model = fresh(name, features, **values)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def evaluated(name: str, features: int = 2, **values: Any) -> SeriesModel:
    """The same in float64, as for likelihoods that are reported."""
    return scattered(name, features, **values).for_evaluation(PerRowOptions())


def ragged(features: int = 2, seed: int = 1, dtype: torch.dtype = torch.float64) -> Series:
    """Series of 1 to 9 observations, some before 0 or beyond 1, with missing cells if there are columns."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for m, low, high in ((5, 0, 1), (9, 0, 1), (1, 0, 1), (7, -1.2, 2.3), (4, 0.2, 5.7), (3, -3.2, -0.1)):
        times = low + (high - low) * torch.rand(m, generator=generator, dtype=dtype).sort()[0]
        values = torch.randn(m, features, generator=generator, dtype=dtype)
        if features > 1:
            gone = torch.rand(m, features, generator=generator) < 0.4
            gone[torch.arange(m), torch.randint(features, (m,), generator=generator)] = False
            values[gone] = math.nan
        found.append((times, values))
    return found


def noise_of(model: SeriesModel, keys: Sequence[int], seed: int = 0) -> SeriesNoise:
    """Noise for series with these keys."""
    return SeriesNoise(np.array(keys, dtype=np.uint64), seed, model.like)
