"""Dense output: the solution within a Runge-Kutta step, from the slopes of the step."""

import torch
from torch import Tensor

from flowbench.ode.tableau import Tableau


def needs_end_slope(method: Tableau) -> bool:
    """Whether the slope at the step's end is needed besides those of the method's stages."""
    return len(method.interpolant) > len(method.solution)


def weights(method: Tableau, theta: Tensor) -> Tensor:
    """The weights (m, s) of the s slopes at the fractions `theta: (m,)` of a step, float64.

    The solution at t + theta h is y(t) + h sum_i weights_i k_i. The slopes are those of the stages. The slope
    at the step's end follows if it is none of them (`needs_end_slope`).
    """
    coefficients = torch.tensor(method.interpolant, dtype=torch.float64, device=theta.device)
    powers = theta.double()[:, None].expand(-1, coefficients.shape[1]).cumprod(1)
    return powers @ coefficients.T
