"""Predicted densities of one column, and how well draws of them suit what came."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

Floats = NDArray[np.float64]

#: Levels of the quantiles of which a density is made.
LEVELS: Floats = np.arange(1, 20) / 20


class Prediction(Protocol):
    """One density for each of n rows, in the units of the target."""

    def log_prob(self, y: Floats) -> Floats:
        """Log-densities `(n,)`, nats, of `y: (n,)`."""
        ...

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithms `(n,)` of the mass between `low: (n,)` and `high: (n,)`."""
        ...

    def sample(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` draws of each, `(n, m)`."""
        ...


@dataclass(frozen=True)
class Normals:
    """A normal for each row, by `mean: (n,)` and standard `deviation: (n,)`."""

    mean: Floats
    deviation: Floats

    def log_prob(self, y: Floats) -> Floats:
        """Log-densities `(n,)`, nats, of `y: (n,)`."""
        z = (y - self.mean) / self.deviation
        return np.asarray(-0.5 * z**2 - np.log(self.deviation) - 0.5 * np.log(2 * np.pi))

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithms `(n,)` of the mass between `low: (n,)` and `high: (n,)`."""
        a, b = (low - self.mean) / self.deviation, (high - self.mean) / self.deviation
        # Both on the lower side, where the distribution function keeps its digits.
        a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)
        upper = log_ndtr(b)
        return np.asarray(upper + np.log1p(-np.exp(log_ndtr(a) - upper)))

    def sample(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` draws of each, `(n, m)`."""
        noise = rng.standard_normal((len(self.mean), m))
        return np.asarray(self.mean[:, None] + self.deviation[:, None] * noise)


@dataclass(frozen=True)
class QuantileDensities:
    """A density for each row that has these `quantiles: (n, k)` at `levels: (k,)`, both increasing.

    It is even between two quantiles. Beyond the outer ones it falls off exponentially, from the height of
    the piece beside it.
    """

    quantiles: Floats
    levels: Floats

    @classmethod
    def of_predictions(cls, predicted: Floats, levels: Floats, least: float) -> "QuantileDensities":
        """Those of quantiles `predicted: (n, k)` one by one, which may cross or be equal.

        They are sorted, and moved away from the middle one until they lie `least` apart.
        """
        ordered = np.sort(predicted, axis=1)
        gaps = np.maximum(np.diff(ordered, axis=1), least)
        middle = ordered.shape[1] // 2
        from_first = np.concatenate([np.zeros((len(gaps), 1)), np.cumsum(gaps, axis=1)], axis=1)
        return cls(ordered[:, [middle]] + from_first - from_first[:, [middle]], levels)

    def log_prob(self, y: Floats) -> Floats:
        """Log-densities `(n,)`, nats, of `y: (n,)`."""
        piece = (self.quantiles <= y[:, None]).sum(1)
        inner = np.clip(piece - 1, 0, len(self.levels) - 2)
        heights = np.log(np.diff(self.levels) / np.diff(self.quantiles, axis=1))
        below, above = self._beyond(y)
        return np.asarray(np.take_along_axis(heights, inner[:, None], 1)[:, 0] - below - above)

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithms `(n,)` of the mass between `low: (n,)` and `high: (n,)`."""
        starts, ends = self.quantiles[:, :-1], self.quantiles[:, 1:]
        overlap = np.clip(np.minimum(high[:, None], ends) - np.maximum(low[:, None], starts), 0, None)
        inner = (overlap / (ends - starts) * np.diff(self.levels)).sum(1)
        (low_below, low_above), (high_below, high_above) = self._beyond(low), self._beyond(high)
        below = self.levels[0] * (np.exp(-high_below) - np.exp(-low_below))
        above = (1 - self.levels[-1]) * (np.exp(-low_above) - np.exp(-high_above))
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(inner + below + above))

    def sample(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` draws of each, `(n, m)`."""
        level = rng.uniform(size=(len(self.quantiles), m))
        first, last = self.levels[0], self.levels[-1]
        lower, upper = self._rates()
        rows = zip(level, self.quantiles, strict=True)
        inner = np.stack([np.interp(each, self.levels, quantiles) for each, quantiles in rows])
        below = np.log(np.minimum(level / first, 1)) / lower[:, None]
        above = -np.log(np.minimum((1 - level) / (1 - last), 1)) / upper[:, None]
        return np.asarray(inner + below + above)

    def _rates(self) -> tuple[Floats, Floats]:
        """How fast the density falls off below the first quantile, and above the last, (n,) each."""
        masses, widths = np.diff(self.levels), np.diff(self.quantiles, axis=1)
        lower, upper = masses[0] / widths[:, 0], masses[-1] / widths[:, -1]
        return np.asarray(lower / self.levels[0]), np.asarray(upper / (1 - self.levels[-1]))

    def _beyond(self, y: Floats) -> tuple[Floats, Floats]:
        """By how many nats the density has fallen at `y: (n,)`, (n,): below the first and above the last."""
        lower, upper = self._rates()
        below = lower * np.clip(self.quantiles[:, 0] - y, 0, None)
        above = upper * np.clip(y - self.quantiles[:, -1], 0, None)
        return np.asarray(below), np.asarray(above)


def squared_errors(draws: Floats, y: Floats) -> Floats:
    """Estimates `(n,)` of the squared error of the mean, from `draws: (n, m)` for `y: (n,)`; not biased."""
    return np.asarray((draws.mean(1) - y) ** 2 - draws.var(1, ddof=1) / draws.shape[1])


def is_central(draws: Floats, y: Floats, share: float = 0.9) -> NDArray[np.bool_]:
    """Which of `y: (n,)` lie in the central interval with this `share` of the mass, by `draws: (n, m)`.

    Of m draws of its own density y has any of the m + 1 ranks with the same probability. The share is exact
    where it makes an even number of ranks.
    """
    rank = (draws < y[:, None]).sum(1)
    left_out = round((1 - share) / 2 * (draws.shape[1] + 1))
    return np.asarray((rank >= left_out) & (rank <= draws.shape[1] - left_out))


def score(prediction: Prediction, y: Floats, low: Floats, high: Floats) -> Floats:
    """Log-densities `(n,)`, nats, of `y: (n,)`.

    Where `y` stands for the cell from `low: (n,)` to `high: (n,)`, it is the log of the mean density there.
    """
    width = high - low
    if (width == 0).all():
        return prediction.log_prob(y)
    return np.asarray(prediction.log_mass(low, high) - np.log(width))


def log_mean_exp(values: Sequence[Floats]) -> Floats:
    """The logarithm `(n,)` of the mean of several densities whose logarithms are `values`, `(n,)` each."""
    return np.asarray(np.logaddexp.reduce(np.stack(values)) - np.log(len(values)))
