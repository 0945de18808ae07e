"""The choice of step sizes: Hairer, Norsett and Wanner 1993, II.4, as in their code DOPRI5.

Everything is elementwise over float64 tensors of any shape: () for a batch that shares its steps, (m,) for
rows with steps of their own. Times and steps are positive; norms and errors are in units of the tolerance.
"""

import torch
from torch import Tensor

# h <- h * 0.9 err^-0.17 last_err^0.04, for a pair of orders 5 and 4: 0.17 = 1/5 - 3/4 * 0.04.
SAFETY, EXPONENT, LAST_EXPONENT = 0.9, 0.17, 0.04
SHRINK, GROW = 0.2, 10.0
# Stands for the last error before the first step, and is a lower bound for the last error later.
LEAST_ERROR = 1e-4
# A step ends at t1 if it would reach t1 when longer by this factor.
STRETCH = 1.01


def trial_step(size: Tensor, speed: Tensor, span: float) -> Tensor:
    """The length of a trial step from the start; `size` and `speed` are norms of the state and its slope."""
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).clamp(max=span)
    return torch.where(torch.isfinite(trial), trial, 1e-6)


def starting_step(trial: Tensor, speed: Tensor, bend: Tensor, span: float) -> Tensor:
    """The first step; `bend` is the norm of the slope's change over the `trial` step."""
    curvature = torch.nan_to_num(bend / trial, nan=torch.inf)
    step = (0.01 / torch.maximum(speed, curvature)).pow(1 / 5)
    # An infinite curvature asks for no step at all; start small and let the error control decide.
    return torch.minimum(100 * trial, step).clamp(1e-3 * trial, torch.full_like(trial, span))


def growth(error: Tensor, last_error: Tensor, accept: Tensor) -> Tensor:
    """The next step as a multiple of this one, by a proportional-integral controller."""
    factor = SAFETY * error.pow(-EXPONENT) * last_error.pow(LAST_EXPONENT)
    return torch.where(accept, factor.clamp(SHRINK, GROW), factor.clamp(SHRINK, 1.0))
