"""Log-likelihoods that are reported: float64, exact divergence, with the solver's error beside them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.flows.density_model import DensityModel
from flowbench.options import PartOptions


@dataclass(frozen=True)
class Likelihoods:
    """`log_prob: (n,)`, float64, nats, data units.

    `solver_error` is the largest change, in nats, of a row's log-likelihood among the first rows when the
    solver is refined; both it and `nfe` are None for a model that solves no equation.
    """

    log_prob: Tensor
    nfe: int | None
    solver_error: float | None


@torch.no_grad()
def reported_likelihoods(
    model: DensityModel, x: Tensor, integrator: PartOptions, error_rows: int
) -> Likelihoods:
    """Score `x: (n, d)` in data units, and the first `error_rows` again under a refined solver."""
    scores = model.for_evaluation(integrator).score(x)
    if scores.nfe is None:
        return Likelihoods(scores.log_prob, None, None)
    refined = model.for_evaluation(refine(integrator)).log_prob(x[:error_rows])
    error = (scores.log_prob[:error_rows] - refined).abs().max().item()
    return Likelihoods(scores.log_prob, scores.nfe, error)


def refine(integrator: PartOptions) -> PartOptions:
    """The same solver a hundred times tighter, or with four times the steps where its grid is fixed."""
    return _rescaled(integrator, 0.01, 4)


def coarsen(integrator: PartOptions) -> PartOptions:
    """The same solver a hundred times looser, or with half the steps: for pictures."""
    return _rescaled(integrator, 100.0, 0.5)


def _rescaled(integrator: PartOptions, tolerance: float, steps: float) -> PartOptions:
    values = integrator.model_dump()
    if values.get("steps"):
        return type(integrator)(**{**values, "steps": max(1, round(values["steps"] * steps))})
    return type(integrator)(
        **{**values, "atol": values["atol"] * tolerance, "rtol": values["rtol"] * tolerance}
    )
