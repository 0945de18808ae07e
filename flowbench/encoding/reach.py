"""A transform that brings values extremely far from the rest of their column near, before any other fit."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowbench.statistics.weighting import quantile_of

Floats = NDArray[np.float64]

#: A value is extremely far if its distance from the column's median is more than this many times the span
#: between the 5th and the 95th percentile. Measured: benchmarks/DEFAULTS.md#far-values.
FAR = 1e4
#: The farthest value is brought to this many spans beyond the farthest of the values that stay.
NEAR = 2.0
#: The largest exponent of e that a float64 holds, with some to spare.
LARGEST = 700.0
TINY = 1e-300


class Reach(nn.Module):
    """For each column x itself from `low` to `high`, and beyond an end a logarithm of the distance.

    A value at the distance u `unit` beyond an end goes to the distance log(1 + `bend` u) / `bend`, also in
    units of `unit`. That maps the whole line onto itself with a continuous slope, so likelihoods stay exact.
    A single value of 1e36 then neither dominates the mean and the standard deviation nor overflows. A column
    whose training rows are all within `FAR` spans has infinite ends, and stays as it is.
    """

    low: Tensor
    high: Tensor
    unit: Tensor
    bend: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        for name, value in self._unbent(features).items():
            self.register_buffer(name, value)

    @staticmethod
    def _unbent(features: int) -> dict[str, Tensor]:
        values = {"low": -math.inf, "high": math.inf, "unit": 1.0, "bend": 1.0}
        return {name: torch.full((features,), each, dtype=torch.float64) for name, each in values.items()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, value in self._unbent(len(self.low)).items():
            state_dict.setdefault(prefix + name, value)  # runs from before there was any
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Find each column's ends in the training rows `x: (n, d)`; returns the transformed rows.

        The rows count by their `weights: (n,)`, equal ones if None.
        """
        counts = None if weights is None else weights.cpu().numpy()
        for number, column in enumerate(x.T.cpu().numpy()):
            found = _ends(column, counts)
            for buffer, value in zip((self.low, self.high, self.unit, self.bend), found, strict=True):
                buffer[number] = value
        return self.to_near(x)[0]

    def to_near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform `x: (n, d)`; returns it and the logarithms of the slopes, both (n, d)."""
        if self._leaves_all():
            return x, x.new_zeros(()).expand_as(x)
        distance, end, sign = self._beyond(x)
        steep = torch.logaddexp(torch.zeros_like(x), self._log_rate() + distance.log())
        inside = sign == 0
        near = end + sign * self.unit * steep / self.bend
        return torch.where(inside, x, near), torch.where(inside, 0.0, -steep)

    def to_far(self, near: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_near`; returns rows and the logarithms of the inverse's slopes, both (n, d)."""
        if self._leaves_all():
            return near, near.new_zeros(()).expand_as(near)
        distance, end, sign = self._beyond(near)
        # No draw can be beyond the largest float64.
        steep = (self.bend * distance / self.unit).minimum(LARGEST + self._log_rate().clamp(max=0))
        inside = sign == 0
        far = end + sign * (self.unit / self.bend) * torch.expm1(steep)
        return torch.where(inside, near, far), torch.where(inside, 0.0, steep)

    def _leaves_all(self) -> bool:
        return bool(torch.isinf(self.low).all() and torch.isinf(self.high).all())

    def _log_rate(self) -> Tensor:
        return self.bend.log() - self.unit.log()

    def _beyond(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far `x: (n, d)` is beyond the nearer end, that end, and the side: 0 between the ends."""
        above, below = x - self.high, self.low - x
        sign = (above > 0).to(x) - (below > 0).to(x)
        # Between the ends the distance and its gradient are not used, but both have to be finite.
        distance = torch.maximum(above, below).clamp(TINY, torch.finfo(x.dtype).max)
        return distance, torch.where(sign > 0, self.high, torch.where(sign < 0, self.low, 0.0)), sign


def _ends(column: Floats, weights: Floats | None) -> tuple[float, float, float, float]:
    """Low and high end, unit and bend of a `column: (n,)` whose rows have `weights: (n,)`."""
    low, middle, high = _quantiles(column) if weights is None else _weighted_quantiles(column, weights)
    if not low < high:  # nearly all values are equal, so only distinct ones count
        low, middle, high = _quantiles(np.unique(column))
    span = high - low
    if not 0 < span < math.inf:
        return -math.inf, math.inf, 1.0, 1.0
    with np.errstate(over="ignore"):
        absurd = np.abs(column - middle) > FAR * span
    if not absurd.any():
        return -math.inf, math.inf, 1.0, 1.0
    others = column[~absurd]
    least, most = float(others.min()), float(others.max())
    # In logarithms, since the largest distances overflow.
    farthest = np.log(max(column.max() / 2 - most / 2, least / 2 - column.min() / 2)) + math.log(2)
    return least, most, span, max(1.0, (float(farthest) - math.log(span)) / NEAR)


def _quantiles(column: Floats) -> tuple[float, float, float]:
    """The 5th, 50th and 95th percentile, each an existing value; between two, the one nearer the middle."""
    low, middle = np.quantile(column, (0.05, 0.5), method="higher")
    return float(low), float(middle), float(np.quantile(column, 0.95, method="lower"))


def _weighted_quantiles(column: Floats, weights: Floats) -> tuple[float, float, float]:
    """As `_quantiles`, by the `weights: (n,)` of the values."""
    low, middle = (quantile_of(column, level, weights) for level in (0.05, 0.5))
    return low, middle, -quantile_of(-column, 0.05, weights)
