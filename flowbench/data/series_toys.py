"""Toy series: spirals, damped oscillators, and a Gaussian process whose likelihood is known."""

from typing import ClassVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from flowbench.data.series_dataset import Floats, TimeSeries
from flowbench.data.toy_series import ToySeries
from flowbench.errors import DataError


class Spirals(ToySeries):
    """The spirals of Chen et al. (2018, section 5.1), half of them clockwise, from the inside out.

    An angle runs from 0 to 6 pi in 1,000 equal steps. Each spiral starts at a random step, and its own time
    from 0. `points` of the next `steps` steps are seen. The paper gives neither the radius nor the noise; the
    formulas are those of torchdiffeq's example, where `noise` is 0.3 and `growth` 0.3.
    """

    name: ClassVar[str] = "spirals"
    description: ClassVar[str] = "spirals on the plane, half of them clockwise, seen at irregular times"
    columns: ClassVar[tuple[str, ...]] = ("x", "y")
    #: The whole of a spiral, and the steps that it is cut into.
    ANGLE, STEPS = 6 * np.pi, 1000

    def __init__(self, noise: float = 0.3, growth: float = 0.3, points: int = 60, steps: int = 200) -> None:
        self.noise = noise
        self.growth = growth
        self.points = points
        self.steps = steps

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        start = int(rng.integers(0, self.STEPS - self.steps))
        is_clockwise = bool(rng.integers(2))
        seen = np.sort(rng.choice(self.steps, self.points, replace=False))
        step = self.ANGLE / (self.STEPS - 1)
        times: Floats = seen.astype(np.float64) * step
        return times, self.path(start * step + times, is_clockwise)

    def path(self, angle: Floats, is_clockwise: bool) -> Floats:
        """Points `(m, 2)` of one of the two spirals at the angles `(m,)`."""
        if is_clockwise:
            turned = self.ANGLE + 1 - angle
            radius, centre = self.growth * 50 / turned, -5.0
        else:
            turned, radius, centre = angle, self.growth * angle, 5.0
        return np.column_stack([radius * np.cos(turned) + centre, radius * np.sin(turned)])


class Oscillators(ToySeries):
    """Damped oscillators x'' = -w^2 x - 2 g x' with amplitude, frequency, damping and phase of their own."""

    name: ClassVar[str] = "oscillators"
    description: ClassVar[str] = "damped oscillators, each with a frequency and a damping of its own"
    columns: ClassVar[tuple[str, ...]] = ("position",)

    def __init__(self, noise: float = 0.05) -> None:
        self.noise = noise

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        t = np.sort(rng.uniform(0, 10, int(rng.integers(20, 41))))
        amplitude, phase = rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)
        frequency, damping = rng.uniform(0.8, 1.6), rng.uniform(0.05, 0.25)
        x = amplitude * np.exp(-damping * t) * np.cos(frequency * t + phase)
        return t, x[:, None]


class GaussianProcessToy(ToySeries):
    """A Gaussian process of variance 1 with the Matern 3/2 kernel, seen with independent noise.

    The likelihood of a series is that of a multivariate normal (Rasmussen and Williams 2006, eq. 2.30).
    """

    name: ClassVar[str] = "gaussian-process"
    description: ClassVar[str] = "draws of a Gaussian process; the likelihood of each is known"
    columns: ClassVar[tuple[str, ...]] = ("value",)

    def __init__(self, noise: float = 0.3, length: float = 3.0) -> None:
        self.noise = noise
        self.length = length

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        t = np.sort(rng.uniform(0, 10, int(rng.integers(8, 25))))
        root = np.linalg.cholesky(self._covariance(t) + 1e-10 * np.eye(len(t)))
        return t, (root @ rng.standard_normal(len(t)))[:, None]

    def _covariance(self, t: Floats) -> Floats:
        distance = np.sqrt(3) * cdist(t[:, None], t[:, None]) / self.length
        return np.asarray((1 + distance) * np.exp(-distance))

    def log_prob(self, series: TimeSeries) -> float:
        """The exact log-likelihood of a series without missing cells, given its times, nats."""
        x = series.values[:, 0]
        if np.isnan(x).any():
            raise DataError("the likelihood of a Gaussian process is that of all cells; one is missing")
        factor = cho_factor(self._covariance(series.times) + self.noise**2 * np.eye(len(x)))
        log_det = 2 * np.log(np.diag(factor[0])).sum()
        return float(-0.5 * (x @ cho_solve(factor, x) + log_det + len(x) * np.log(2 * np.pi)))
