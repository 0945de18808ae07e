"""The base class of two-dimensional toy densities, which are known exactly."""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowbench.errors import DataError

Floats = NDArray[np.float64]
Box = tuple[tuple[float, float], tuple[float, float]]

# Size of temporary arrays in `log_prob`: 2^20 float64 are 8 MiB, about what a cache holds.
_TERMS_PER_CHUNK = 2**20


class ToyDensity(ABC):
    """A density on the plane that can be sampled and evaluated.

    Subclasses define `name`, `description`, `sample`, `box` and `_log_prob`. `resolution` is the shortest
    length over which the density varies, in data units. `terms` is the number of terms in the evaluation of
    one row.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    resolution: ClassVar[float]
    terms: ClassVar[int] = 8

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` independent rows: (n, 2), data units."""

    @property
    @abstractmethod
    def box(self) -> Box:
        """((x low, x high), (y low, y high)) in data units; holds all but 1e-10 of the mass."""

    @abstractmethod
    def _log_prob(self, x: Floats) -> Floats:
        """Log-density of a chunk of rows `x: (n, 2)` -> (n,), nats."""

    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-density of the rows `x: (n, 2)`, finite, in data units -> (n,), nats.

        Raises `DataError` if `x` does not have the shape (n, 2).
        """
        points = np.asarray(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise DataError(f"the density `{self.name}` takes rows of shape (n, 2); got shape {points.shape}")
        chunks = np.array_split(points, math.ceil(len(points) * self.terms / _TERMS_PER_CHUNK) or 1)
        return np.concatenate([self._log_prob(chunk) for chunk in chunks])

    @cached_property
    def entropy(self) -> float:
        """-E[log p] in nats, by the midpoint rule over `box` (error below 1e-6)."""
        # On smooth densities that vanish at the edge the midpoint rule converges exponentially.
        step = self.resolution / 2
        (x_low, x_high), (y_low, y_high) = self.box
        x = _midpoints(x_low, x_high, step)
        y = _midpoints(y_low, y_high, step)
        log_prob = self.log_prob(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2))
        cell = (x_high - x_low) * (y_high - y_low) / log_prob.size
        return float(-np.sum(np.exp(log_prob) * log_prob) * cell)


def _midpoints(low: float, high: float, step: float) -> Floats:
    edges = np.linspace(low, high, math.ceil((high - low) / step) + 1)
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def log_sum_exp(exponents: Floats, amplitudes: Floats | float = 1.0) -> Floats:
    """log(sum of `amplitudes` * exp(`exponents`)) over the last axis, (n, m) -> (n,); overwrites `exponents`.

    `amplitudes` are positive. The sum does not overflow, and its largest term never underflows.
    """
    peak = exponents.max(axis=-1, keepdims=True)
    exponents -= peak
    np.exp(exponents, out=exponents)
    exponents *= amplitudes
    return np.asarray(np.log(exponents.sum(axis=-1)) + peak[..., 0])
