"""A continuous flow whose weights were never trained, and so bends everything."""

import torch

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions


def bent_flow() -> ContinuousFlow:
    generator = torch.Generator().manual_seed(0)
    flow = ContinuousFlow(2, ContinuousOptions(field={"width": 16, "scales": 2}), generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return flow
