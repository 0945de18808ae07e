"""Couplings of flow matching: which draw of the base is paired with which row of data."""

import torch
from torch import Tensor


def optimal_transport(base: Tensor, data: Tensor, size: int) -> Tensor:
    """The order `(n,)` in which rows of `base: (n, d)` are paired with those of `data: (n, d)`.

    `base[order]` and `data` are an optimal transport for the cost |x_0 - x_1|^2 within each sub-batch of
    `size` consecutive rows; the last sub-batch may be smaller. This approximates the optimal coupling of the
    two distributions (Tong et al. 2024; Pooladian et al. 2023). Both samples have equal weights, so the
    optimal plan is a permutation, and a linear assignment finds it exactly. The time grows with the cube of
    `size`.
    """
    from scipy.optimize import linear_sum_assignment

    orders = []
    for start, rows in zip(range(0, len(data), size), torch.split(data, size), strict=True):
        # Only the inner product in the squared distance depends on the pairing.
        cost = -rows @ base[start : start + size].T
        _, partner = linear_sum_assignment(cost.detach().double().cpu().numpy())
        orders.append(start + torch.from_numpy(partner))
    return torch.cat(orders).to(data.device)
