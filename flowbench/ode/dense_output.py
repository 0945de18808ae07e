"""The solution within a Runge-Kutta step, from the slopes that the step has taken."""

import torch
from torch import Tensor

from flowbench.ode.tableau import Tableau


def needs_end_slope(method: Tableau) -> bool:
    """Whether the slope at the step's end is needed besides those of the method's stages."""
    return len(method.interpolant) > len(method.solution)


def weights(method: Tableau, theta: Tensor) -> Tensor:
    """What each of s slopes counts at the fractions `theta: (m,)` of a step, float64, (m, s).

    The solution at t + theta h is y(t) + h sum_i weights_i k_i. The s slopes are those of the stages, then
    the one at the step's end where it is none of them (`needs_end_slope`).
    """
    coefficients = torch.tensor(method.interpolant, dtype=torch.float64, device=theta.device)
    powers = theta.double()[:, None].expand(-1, coefficients.shape[1]).cumprod(1)
    return powers @ coefficients.T
