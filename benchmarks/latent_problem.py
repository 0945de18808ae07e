"""A latent ODE, a batch of series and the noise of its draws, in one file that every contender reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.latent_ode import LatentOde, LatentOdeOptions
from flowbench.models.series.noise import Noise

WEIGHT = "model."


class GivenNoise(Noise):
    """Numbers that are given, `epsilon: (n, draws, latent)`."""

    def __init__(self, epsilon: Tensor) -> None:
        self._epsilon = epsilon

    def normal(self, *shape: int) -> Tensor:
        """The numbers, of the one shape that they have."""
        return self._epsilon.view(-1, *shape)


def save_latent_problem(path: Path, model: LatentOde, times: Tensor, values: Tensor) -> None:
    """Write the model and the series, `times: (L,)` and `values: (n, L, d)`, none missing, as `.npz`."""
    weights = {WEIGHT + name: value.numpy() for name, value in model.state_dict().items()}
    options = json.dumps(model.options.model_dump(mode="json"))
    generator = torch.Generator().manual_seed(1)
    epsilon = torch.randn(len(values), 1, model.latent, generator=generator)
    np.savez(
        path,
        times=times.numpy(),
        values=values.numpy(),
        epsilon=epsilon.numpy(),
        options=np.array(options),
        **weights,
    )


def load_latent_problem(
    path: str | Path, integrator: dict[str, Any], dtype: str = "float32"
) -> tuple[LatentOde, SeriesBatch, GivenNoise]:
    """The model with another `integrator`, the series, and the noise, in `dtype`."""
    with np.load(path, allow_pickle=False) as file:
        options = LatentOdeOptions(**{**json.loads(str(file["options"])), "integrator": integrator})
        kind = getattr(torch, dtype)
        times, values, epsilon = (
            torch.from_numpy(file[name]).to(kind) for name in ("times", "values", "epsilon")
        )
        model = LatentOde(values.shape[2], options, torch.Generator())
        weights = {name.removeprefix(WEIGHT): file[name] for name in file if name.startswith(WEIGHT)}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    n, longest, _ = values.shape
    batch = SeriesBatch(
        times.expand(n, -1).contiguous(),
        values,
        torch.ones_like(values, dtype=torch.bool),
        torch.full((n,), longest),
    )
    return model.to(kind), batch, GivenNoise(epsilon)
