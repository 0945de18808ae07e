"""zuko's continuous flow: its `FreeFormJacobianTransform`, exact, around flowbench's field and weights.

zuko lets the log-determinant's tolerance be a hundred times looser than the one it is given.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from zuko.transforms import FreeFormJacobianTransform

from benchmarks.problem import carried, gradients, load_problem
from benchmarks.worker import Answer, Contender


class Counted:
    """The velocity as zuko calls it, and the number of its calls."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.velocity = velocity
        self.nfe = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.nfe += 1
        return self.velocity(t, x)


def gradient(problem: str, tolerance: float = 1e-5, dtype: str = "float32") -> Contender:
    """The gradient of the mean negative log-likelihood by zuko's checkpointed adjoint."""
    flow, x = load_problem(problem, dtype)
    field = Counted(flow.field.velocity)
    transform = FreeFormJacobianTransform(field, 1.0, 0.0, flow.field.parameters(), tolerance, tolerance)

    def once() -> Answer:
        flow.zero_grad(set_to_none=True)
        field.nfe = 0
        z, log_det = transform.call_and_ladj(x)
        forward = field.nfe
        loss = (0.5 * z.square().sum(1) - log_det).mean()
        loss.backward()
        return Answer(gradients(flow.field), {"nfe": forward, "backward_nfe": field.nfe - forward})

    return once


def carry(problem: str, direction: str, dtype: str, tolerance: float) -> Contender:
    """The log-likelihoods of the rows (`to_base`), or what they are the base of (`to_data`)."""
    flow, rows = load_problem(problem, dtype)
    field = Counted(flow.field.velocity)
    ends = (1.0, 0.0) if direction == "to_base" else (0.0, 1.0)
    transform = FreeFormJacobianTransform(field, *ends, flow.field.parameters(), tolerance, tolerance)

    @torch.no_grad()
    def once() -> Answer:
        field.nfe = 0
        value, log_det = transform.call_and_ladj(rows)
        return Answer(carried(direction, rows, value, log_det), {"nfe": field.nfe})

    return once
