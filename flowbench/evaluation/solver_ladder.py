"""The cost and the error of many solvers, each with several tolerances, on the same rows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.registry import INTEGRATORS
from flowbench.statistics.paired import compare_paired
from flowbench.store.rung import Rung

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
#: Engine, method, dtype, and the tolerances or numbers of steps to try.
LADDER: tuple[tuple[str, str, str, tuple[float, ...]], ...] = (
    ("per-row", "dopri5", "float64", TOLERANCES),
    ("per-row", "dopri5", "float32", TOLERANCES[:5]),
    ("per-row", "tsit5", "float64", TOLERANCES[:5]),
    ("native", "dopri5", "float64", TOLERANCES[:5]),
    ("native", "rk4", "float64", (5, 10, 20, 40, 80)),
    ("native", "midpoint", "float64", (10, 20, 40, 80)),
)
REFERENCE = {"name": "per-row", "atol": 1e-10, "rtol": 1e-10, "max_nfe": 100_000}


@torch.no_grad()
def climb(
    model: DensityModel, rows: Rows, on_solver: Callable[[int, int], None] = lambda done, total: None
) -> list[Rung]:
    """Score `rows`, data units, with every solver of `LADDER`, and compare each with `REFERENCE`.

    The rows are at places in their cells.

    `on_solver` gets the number of solvers that are done and of all solvers. A solver that fails has a rung
    that says so. Raises `ConfigurationError` for a model that solves no equation, and `IntegrationError` if
    the reference fails.
    """
    reference = _scores(_evaluated(model, REFERENCE, "float64"), rows)
    if reference.nfe is None:
        raise ConfigurationError("the model solves no equation, so there is nothing to trade off")
    rungs: list[Rung] = []
    solvers = list(_solvers())
    for rung in solvers:
        rungs.append(_measure(model, rows, rung, reference.log_prob))
        on_solver(len(rungs), len(solvers))
    return rungs


def _solvers() -> Iterator[Rung]:
    for engine, method, dtype, settings in LADDER:
        for setting in settings:
            yield Rung(engine, method, dtype, setting)


def _measure(model: DensityModel, rows: Rows, rung: Rung, reference: Tensor) -> Rung:
    evaluated = _evaluated(model, rung.options, rung.dtype)
    try:
        _scores(evaluated, rows[:16])  # leaves what is built once out of the measured time
        began = time.process_time()
        scores = _scores(evaluated, rows)
        spent = time.process_time() - began
    except IntegrationError as error:
        return replace(rung, failure=str(error))
    difference = compare_paired(scores.log_prob.numpy(), reference.numpy(), resample=False)
    if difference is None:
        return replace(rung, failure="a row's log-likelihood is not finite")
    return replace(
        rung,
        nfe=scores.nfe,
        rows_per_second=len(rows) / max(spent, 1e-9),
        bias=difference.mean,
        low=difference.low,
        high=difference.high,
        row_error=float(np.quantile((scores.log_prob - reference).abs().numpy(), 0.99)),
    )


def _scores(model: DensityModel, rows: Rows) -> Scores:
    return model.score_places(rows.x, context=rows.context)


def _evaluated(model: DensityModel, options: dict[str, Any], dtype: str) -> DensityModel:
    integrator = INTEGRATORS.get(options["name"]).Options(**options)
    return model.for_evaluation(integrator, dtype=getattr(torch, dtype))
