"""What the claims on continuous against planar flows share (Chen et al. 2018, section 5)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.training.optimizers import OptimizerName

MODELS = ("cnf", "planar")
#: The solver of training. Coarse fixed steps would be exploited: with four of rk4, the KL that they find
#: falls below zero.
SOLVER = {"name": "native", "atol": 1e-3, "rtol": 1e-3}
#: Training steps as published.
PUBLISHED = {"cnf": 10_000, "planar": 500_000}


class Recipe(NamedTuple):
    """The optimiser, its learning rate at the start, which falls to zero along a cosine, and rows a step."""

    optimizer: OptimizerName
    rate: float
    rows: int


def continuous_flow(width: int, generator: torch.Generator) -> ContinuousFlow:
    """The continuous flow of the paper in two columns, with `width` units."""
    options = ContinuousOptions(field={"name": "hypernetwork", "width": width}, integrator=SOLVER)
    return ContinuousFlow(2, options, generator)


def how_trained(times: str | None, recipes: Mapping[str, Recipe]) -> str:
    """For a table's note: the `times` of training, or None for the steps as published, and the recipes."""
    if times:
        cost = f"Each flow was trained for {times}"
    else:
        continuous, planar = (f"{PUBLISHED[model]:,}" for model in MODELS)
        cost = f"Continuous flows were trained for {continuous} steps, and planar ones for {planar}"
    each = (
        f"{model}: {recipe.optimizer}, rate {recipe.rate:g}, {recipe.rows} rows a step"
        for model, recipe in recipes.items()
    )
    return f"{cost} ({'; '.join(each)})."
