"""The eight toy densities of FFJORD (Grathwohl et al. 2019), with their exact log-densities.

Each is the population from which the sampler of FFJORD's code draws. Its evenly spaced angles become uniform
angles, and its equal shares become equal probabilities. Densities are closed forms where these exist. The
density of a noisy curve is an integral over the curve's parameter, by Gauss-Legendre panels that resolve the
noise. The error of the log-density is below 1e-9 near the mass, and stays small relative to the log-density
far away.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from scipy.special import erfcx, i0e

from flowbench.data.pinwheel import Pinwheel
from flowbench.data.toy_density import Box, Floats, ToyDensity, log_sum_exp

__all__ = [
    "Checkerboard",
    "Circles",
    "EightGaussians",
    "Moons",
    "Pinwheel",
    "Rings",
    "SwissRoll",
    "TwoSpirals",
]

# A normal variable is further than this many standard deviations from its mean with probability 3e-12.
_REACH = 7.0


class EightGaussians(ToyDensity):
    """Eight equal isotropic normals, evenly spaced on a circle."""

    name = "8gaussians"
    description = "eight equal normals on a circle"
    # FFJORD divides by 1.414 rather than by the square root of two.
    radius: ClassVar[float] = 4 / 1.414
    noise: ClassVar[float] = 0.5 / 1.414
    resolution = noise

    def __init__(self) -> None:
        angles = np.arange(8) * (np.pi / 4)
        self._centres = self.radius * np.column_stack([np.cos(angles), np.sin(angles)])

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        return np.asarray(self._centres[rng.integers(8, size=n)] + self.noise * rng.standard_normal((n, 2)))

    @property
    def box(self) -> Box:
        return _square(self.radius + _REACH * self.noise)

    def _log_prob(self, x: Floats) -> Floats:
        squares = np.square(x[:, None, :] - self._centres).sum(axis=-1)
        return log_sum_exp(squares / (-2 * self.noise**2)) - math.log(8 * 2 * math.pi * self.noise**2)


class Checkerboard(ToyDensity):
    """Uniform on the eight squares of side 2 that make the black fields of a 4 x 4 board."""

    name = "checkerboard"
    description = "uniform on eight squares of a 4 x 4 board"
    resolution = 2.0

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        x = rng.uniform(-2, 2, n)
        y = rng.uniform(0, 1, n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
        return np.column_stack([2 * x, 2 * y])

    @property
    def box(self) -> Box:
        return _square(4.0)

    @property
    def entropy(self) -> float:
        """ln 32 nats: the density is uniform on an area of 32."""
        return math.log(32)

    def _log_prob(self, x: Floats) -> Floats:
        field = np.floor(x / 2)
        on_board = ((field >= -2) & (field < 2)).all(axis=1)
        black = field[:, 0] % 2 == field[:, 1] % 2
        return np.where(on_board & black, -self.entropy, -np.inf)


class _NoisyCircles(ToyDensity):
    """Equal shares of points spread uniformly over concentric circles, plus isotropic normal noise.

    A circle of radius R convolved with a normal of standard deviation s has the density
    exp(-(r^2 + R^2) / 2s^2) I0(r R / s^2) / (2 pi s^2) at the radius r.
    """

    radii: ClassVar[tuple[float, ...]]
    noise: ClassVar[float]

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        radius = np.asarray(self.radii)[rng.integers(len(self.radii), size=n)]
        angle = rng.uniform(0, 2 * np.pi, n)
        circle = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        return np.asarray(circle + self.noise * rng.standard_normal((n, 2)))

    @property
    def box(self) -> Box:
        return _square(max(self.radii) + _REACH * self.noise)

    def _log_prob(self, x: Floats) -> Floats:
        r = np.hypot(x[:, 0], x[:, 1])[:, None]
        radii = np.asarray(self.radii)
        variance = self.noise**2
        log_kernel = -np.square(r - radii) / (2 * variance)
        return log_sum_exp(log_kernel, i0e(r * radii / variance)) - math.log(
            len(radii) * 2 * math.pi * variance
        )


class Rings(_NoisyCircles):
    """Four concentric circles with noise added after scaling."""

    name = "rings"
    description = "four concentric circles with noise 0.08"
    radii = (0.75, 1.5, 2.25, 3.0)
    noise = 0.08
    resolution = noise


class Circles(_NoisyCircles):
    """Two concentric circles with noise added before scaling by three."""

    name = "circles"
    description = "two concentric circles with noise 0.24"
    radii = (1.5, 3.0)
    noise = 3 * 0.08
    resolution = noise


class Moons(ToyDensity):
    """Two interleaved half circles plus isotropic normal noise."""

    name = "moons"
    description = "two interleaved half circles with noise 0.2"
    noise: ClassVar[float] = 0.2
    resolution = noise
    terms = 400

    def __init__(self) -> None:
        angles, weights = _panels(lambda angle: self._arc(angle, 0), 0, math.pi, self.noise)
        self._centres = np.concatenate([self._arc(angles.ravel(), moon) for moon in (0, 1)])
        self._log_weights = np.log(np.tile(weights.ravel() / (2 * math.pi), 2))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        arc = self._arc(rng.uniform(0, np.pi, n), rng.integers(2, size=n))
        return np.asarray(arc + self.noise * rng.standard_normal((n, 2)))

    @property
    def box(self) -> Box:
        margin = _REACH * self.noise
        return (-3 - margin, 3 + margin), (-1.2 - margin, 1.8 + margin)

    def _log_prob(self, x: Floats) -> Floats:
        return _log_normal_mixture(x, self._centres, self._log_weights, self.noise)

    @staticmethod
    def _arc(angle: Floats, moon: np.ndarray | int) -> Floats:
        """The upper half circle (moon 0) or the lower one (moon 1) at `angle` in [0, pi]."""
        side = 1 - 2 * np.asarray(moon)
        arc = np.stack([2 * np.cos(angle) - 1, 2 * np.sin(angle) - 0.5], axis=-1)
        return np.asarray(arc * side[..., None] + [0.0, 0.3])


class SwissRoll(ToyDensity):
    """A spiral whose radius grows with its angle, uniform in the angle, plus isotropic normal noise."""

    name = "swissroll"
    description = "a spiral of one and a half turns with noise 0.2"
    noise: ClassVar[float] = 1 / 5
    resolution = noise
    terms = 550
    _angles: ClassVar[tuple[float, float]] = (1.5 * math.pi, 4.5 * math.pi)

    def __init__(self) -> None:
        start, stop = self._angles
        angles, weights = _panels(self._spiral, start, stop, self.noise)
        self._centres = self._spiral(angles.ravel())
        self._log_weights = np.log(weights.ravel() / (stop - start))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        spiral = self._spiral(rng.uniform(*self._angles, n))
        return np.asarray(spiral + self.noise * rng.standard_normal((n, 2)))

    @property
    def box(self) -> Box:
        return _square(self._angles[1] / 5 + _REACH * self.noise)

    def _log_prob(self, x: Floats) -> Floats:
        return _log_normal_mixture(x, self._centres, self._log_weights, self.noise)

    @staticmethod
    def _spiral(angle: Floats) -> Floats:
        return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=-1) / 5


class TwoSpirals(ToyDensity):
    """Two spirals, each blurred over a small square and by isotropic normal noise.

    A row is +-((-t cos t, t sin t) + u / 2) / 3 + 0.1 e, with t = 3 pi sqrt(uniform), u uniform on the unit
    square and e standard normal. Given t, its two coordinates are independent. Each is the sum of a uniform
    and a normal variable, whose density is a difference of normal distribution functions.
    """

    name = "2spirals"
    description = "two interleaved spirals with noise 0.1"
    noise: ClassVar[float] = 0.1
    resolution = noise
    terms = 160
    _end: ClassVar[float] = 3 * math.pi
    _half_width: ClassVar[float] = 0.5 / 3 / 2

    def __init__(self) -> None:
        t, weights = _panels(self._spiral, 0, self._end, self.noise)
        centres = self._spiral(t) + self._half_width
        # By panel: (panels, nodes, 2) and (panels, nodes).
        self._centres = np.concatenate([centres, -centres])
        self._weights = np.tile(weights * t / self._end**2, (2, 1))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        spiral = self._spiral(self._end * np.sqrt(rng.random(n)))
        spiral += 2 * self._half_width * rng.random((n, 2))
        spiral *= rng.choice([-1.0, 1.0], size=(n, 1))
        return np.asarray(spiral + self.noise * rng.standard_normal((n, 2)))

    @property
    def box(self) -> Box:
        return _square(self._end / 3 + 2 * self._half_width + _REACH * self.noise)

    def _log_prob(self, x: Floats) -> Floats:
        log_prob = np.full(len(x), -np.inf)
        for panel, matters in enumerate(self._panels_that_matter(x).T):
            rows = np.flatnonzero(matters)
            if len(rows):
                log_prob[rows] = np.logaddexp(log_prob[rows], self._log_panel(x[rows], panel))
        return log_prob - 2 * math.log(4 * self._half_width)

    def _panels_that_matter(self, x: Floats) -> np.ndarray:
        """(n, panels) bool: false for a panel that adds less than 1e-10 of what the nearest one does."""
        middles = self._centres.mean(axis=1)
        radii = np.linalg.norm(self._centres - middles[:, None], axis=-1).max(axis=1)
        radii += self._half_width * math.sqrt(2)
        distance = np.hypot(*(x[:, axis, None] - middles[:, axis] for axis in (0, 1)))
        furthest = (distance + radii).min(axis=1, keepdims=True)
        nearest = np.maximum(distance - radii, 0)
        excess: np.ndarray = (nearest - furthest) * (nearest + furthest) / (2 * self.noise**2)
        return excess < -math.log(1e-10)

    def _log_panel(self, x: Floats, panel: int) -> Floats:
        """Log of a panel's part of the integral at `x: (n, 2)`, up to a constant factor."""
        # z is the distance from the square's centre and c the half width, both divided by sqrt(2) noise. The
        # density of a coordinate is (erfc(z - c) - erfc(z + c)) / (8 half_width). erfcx(z) = exp(z^2) erfc(z)
        # has the exponent taken out, so that nothing underflows.
        scale = self.noise * math.sqrt(2)
        c = self._half_width / scale
        exponents, amplitudes = np.zeros(1), self._weights[panel]
        for axis in (0, 1):
            z = np.abs(x[:, axis, None] - self._centres[panel, :, axis]) / scale
            exponents = exponents - np.square(z - c)
            amplitudes = amplitudes * (erfcx(z - c) - np.exp(-4 * c * z) * erfcx(z + c))
        return log_sum_exp(exponents, amplitudes)

    @staticmethod
    def _spiral(t: Floats) -> Floats:
        return np.stack([-t * np.cos(t), t * np.sin(t)], axis=-1) / 3


def _square(half: float) -> Box:
    return (-half, half), (-half, half)


def _log_normal_mixture(x: Floats, centres: Floats, log_weights: Floats, noise: float) -> Floats:
    """Log-density (n,) at `x: (n, 2)` of isotropic normals at `centres: (m, 2)`."""
    precision = noise**-2
    # x - c|^2 is expanded: a matrix product is far faster than (n, m, 2) differences.
    exponents = precision * (x @ centres.T)
    exponents += log_weights - 0.5 * precision * np.square(centres).sum(axis=1)
    log_norm = math.log(2 * math.pi * noise**2) + 0.5 * precision * np.square(x).sum(axis=1)
    return np.asarray(log_sum_exp(exponents) - log_norm)


def _panels(
    curve: Callable[[Floats], Floats], start: float, stop: float, noise: float
) -> tuple[Floats, Floats]:
    """A Gauss-Legendre rule over the parameter of `curve: (...) -> (..., 2)`, in panels of even length.

    A panel covers at most two standard deviations of the noise. Returns the parameter and the weights,
    both (panels, 12); the weights sum to `stop - start`.
    """
    fine = np.linspace(start, stop, 10_001)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve(fine), axis=0), axis=1))])
    count = math.ceil(length[-1] / (2 * noise))
    ends = np.interp(np.linspace(0, length[-1], count + 1), length, fine)
    half = np.diff(ends)[:, None] / 2
    abscissae, weights = np.polynomial.legendre.leggauss(12)
    return ends[:-1, None] + half * (1 + abscissae), half * weights
