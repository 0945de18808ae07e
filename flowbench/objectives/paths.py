"""The paths of flow matching, from a draw of the base at t = 0 to a row of data at t = 1."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

PathName = Literal["linear", "variance-preserving"]

#: Maps `(t: (n, 1), base: (n, d), data: (n, d))` to the position at t and its derivative in t, each (n, d).
Path = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def linear(t: Tensor, base: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = (1 - t) x_0 + t x_1 (Lipman et al. 2023, eq. 22, with no noise left at the data)."""
    return torch.lerp(base, data, t), data - base


def variance_preserving(t: Tensor, base: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = cos(pi t / 2) x_0 + sin(pi t / 2) x_1, the trigonometric path of Albergo et al. (2023).

    The squares of the two weights sum to 1. So x_t has unit variance at every t if x_0 and x_1 are
    independent and have unit variance (Lipman et al. 2023, section 4.1).
    """
    speed = math.pi / 2
    cosine, sine = torch.cos(speed * t), torch.sin(speed * t)
    return cosine * base + sine * data, speed * (cosine * data - sine * base)


PATHS: dict[PathName, Path] = {"linear": linear, "variance-preserving": variance_preserving}
