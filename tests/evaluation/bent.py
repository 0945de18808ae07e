"""A continuous flow whose weights were never trained, and so bends everything; draws of a model."""

import torch

from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.reported import Likelihoods, Restore, draw_rows
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density_model import DensityModel


def bent_flow() -> ContinuousFlow:
    generator = torch.Generator().manual_seed(0)
    flow = ContinuousFlow(2, ContinuousOptions(field={"width": 16, "scales": 2}), generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return flow


def drawn_likelihoods(
    model: DensityModel,
    n: int,
    options: EvaluationOptions,
    generator: torch.Generator,
    restore: Restore | None = None,
) -> tuple[torch.Tensor, Likelihoods]:
    """Draws `(n, d)` with their likelihoods, under an error budget of their own."""
    return draw_rows(ErrorBudget(model, options), n, generator, restore)
