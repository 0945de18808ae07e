"""What a model predicts for cells of series: a mixture of normals for each."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.models.series.noise import Noise


@dataclass(frozen=True)
class Prediction:
    """For each of n series, k times and d columns the mixture of m normals that a cell is drawn from.

    `means` and `scales`, standard deviations, are `(m, n, k, d)`. Component j of all cells of a series
    belongs to one draw j of what the model does not know, so cells are dependent. `log_weights: (m, n)` are
    those of the draws; their exponentials sum to 1. `joint: (r, n, k, d)` are draws of all cells together, of
    equal weight, where cells depend on one another given their component too. All in model space.
    """

    means: Tensor
    scales: Tensor
    log_weights: Tensor
    joint: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """The mean of each cell: `(n, k, d)`."""
        return (self._weights * self.means).sum(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each cell of `x: (n, k, d)` by itself: `(n, k, d)`, nats, model space."""
        terms = normal_log_prob(x, self.means, self.scales)
        return torch.logsumexp(self.log_weights[..., None, None] + terms, 0)

    def cdf(self, x: Tensor) -> Tensor:
        """The probability of each cell to be below `x: (n, k, d)`."""
        below: Tensor = torch.special.ndtr((x - self.means) / self.scales)
        return (self._weights * below).sum(0)

    def quantile(self, probability: float) -> Tensor:
        """The quantile of each cell, `(n, k, d)`, by bisection to float precision of its interval."""
        reach = float(
            torch.special.ndtri(torch.tensor(max(probability, 1 - probability), dtype=torch.float64))
        )
        ends = reach * self.scales
        low, high = (self.means - ends).amin(0), (self.means + ends).amax(0)
        for _ in range(60 if low.dtype == torch.float64 else 30):
            middle = (low + high) / 2
            below = self.cdf(middle) < probability
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def resampled(self, draws: int, noise: Noise) -> Tensor:
        """`draws` draws of all cells, of equal weight: `(draws, n, k, d)`.

        Each takes a component by its weight: the numbers of a component differ by less than 1 from their
        expectation (systematic resampling; Carpenter, Clifford and Fearnhead 1999). Where there are `joint`
        draws, they are these.
        """
        if self.joint is not None:
            return self.joint[:draws]
        m, n, k, d = self.means.shape
        place = (torch.arange(draws, dtype=self.means.dtype) + 0.5) / draws
        ends = self.log_weights.exp().cumsum(0).T.contiguous()
        chosen = torch.searchsorted(ends, place.expand(n, -1).contiguous()).clamp(max=m - 1)
        epsilon = noise.normal(draws, k, d).transpose(0, 1)
        index = chosen.T[..., None, None].expand(-1, -1, k, d)
        return self.means.gather(0, index) + self.scales.gather(0, index) * epsilon

    @property
    def _weights(self) -> Tensor:
        return self.log_weights.exp()[..., None, None]


def normal_log_prob(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Log-density of normals, nats; the shapes broadcast."""
    return -0.5 * ((x - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
