"""Values absurdly far from the rest of their column, brought near before anything is fitted to it."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]

#: Spans between the 5th and the 95th percentile that a value may be from its column's median. The tables of
#: the benchmarks stay within 30; of a Cauchy distribution one value in 200,000 is farther out, of one with a
#: variance hardly any. From there on a single row multiplies the standard deviation of 10,000 by 300.
FAR = 1e4
#: Spans beyond the farthest of the others that the farthest of all is brought to.
NEAR = 2.0
#: Powers of e that a double holds, with some to spare.
LARGEST = 700.0
TINY = 1e-300


class Reach(nn.Module):
    """x itself from `low` to `high`, and a logarithm of the distance beyond, for each column.

    Beyond an end, at the distance u `unit` from it, x goes to log(1 + `bend` u) / `bend` units beyond. That
    maps the whole line onto itself with a continuous slope, so likelihoods stay exact; one value of 1e36 no
    longer decides a mean and a standard deviation, and overflows nowhere. A column whose train rows are all
    within `FAR` spans has infinite ends, and is left as it is.
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

    def fit(self, x: Tensor) -> Tensor:
        """Find each column's ends in the train rows `x: (n, d)`, and return the rows, brought near."""
        for number, column in enumerate(x.T.cpu().numpy()):
            found = _ends(column)
            for buffer, value in zip((self.low, self.high, self.unit, self.bend), found, strict=True):
                buffer[number] = value
        return self.to_near(x)[0]

    def to_near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bring `x: (n, d)` near; returns it and the logarithms of the slopes, both (n, d)."""
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
        # Further than any double a draw cannot be put.
        steep = (self.bend * distance / self.unit).minimum(LARGEST + self._log_rate().clamp(max=0))
        inside = sign == 0
        far = end + sign * (self.unit / self.bend) * torch.expm1(steep)
        return torch.where(inside, near, far), torch.where(inside, 0.0, steep)

    def _leaves_all(self) -> bool:
        return bool(torch.isinf(self.low).all() and torch.isinf(self.high).all())

    def _log_rate(self) -> Tensor:
        return self.bend.log() - self.unit.log()

    def _beyond(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far `x: (n, d)` is beyond the nearer end, that end, and the side: 0 between them."""
        above, below = x - self.high, self.low - x
        sign = (above > 0).to(x) - (below > 0).to(x)
        # Between the ends neither the distance nor its gradient is of use, but both have to be numbers.
        distance = torch.maximum(above, below).clamp(TINY, torch.finfo(x.dtype).max)
        return distance, torch.where(sign > 0, self.high, torch.where(sign < 0, self.low, 0.0)), sign


def _ends(column: Floats) -> tuple[float, float, float, float]:
    """Low and high end, unit and bend of a `column: (n,)`."""
    low, middle, high = _quantiles(column)
    if not low < high:  # nearly all values are the same: the others tell
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
    """The 5th, 50th and 95th percentile, each a value that is there, and of few the inner one."""
    low, middle = np.quantile(column, (0.05, 0.5), method="higher")
    return float(low), float(middle), float(np.quantile(column, 0.95, method="lower"))
