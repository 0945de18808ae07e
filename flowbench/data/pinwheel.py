"""The pinwheel density: normal blades, bent by a rotation that depends on the first coordinate."""

import math
from typing import ClassVar

import numpy as np
from scipy.optimize.elementwise import find_root

from flowbench.data.toy_density import Box, Floats, ToyDensity


class Pinwheel(ToyDensity):
    """Five normal blades, each bent into an arm.

    A row is 2 R(-a) (r, t), with r normal(1, 0.3) and t normal(0, 0.1). The angle is a = rate exp(r) + 2 pi k
    / 5 for a blade k drawn uniformly, and R(a) is the rotation by a. In polar coordinates (r, t) = rho (cos
    psi, sin psi). The map keeps rho and takes psi to h(psi) - 2 pi k / 5, with h(psi) = psi - rate exp(rho
    cos psi). Its Jacobian determinant is |h'| = |1 + rate exp(r) t|. In the far tail h is not monotone, so
    the density is a sum over every psi that is mapped to the row. Where h folds back, at 2e-8 of the peak
    density and less, the density has integrable singularities along curves.
    """

    name = "pinwheel"
    description = "five bent normal blades"
    resolution = 0.1
    terms = 24
    radial_mean: ClassVar[float] = 1.0
    radial_std: ClassVar[float] = 0.3
    tangential_std: ClassVar[float] = 0.1
    rate: ClassVar[float] = 0.25
    scale: ClassVar[float] = 2.0
    blades: ClassVar[int] = 5
    # Beyond this rho the preimages are so dense that their sum equals an average over all angles; the
    # log-density there is below -200. Below it a row has at most about 450 of them.
    _dense: ClassVar[float] = 7.0

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        r = self.radial_mean + self.radial_std * rng.standard_normal(n)
        t = self.tangential_std * rng.standard_normal(n)
        a = self.rate * np.exp(r) + self._spacing * rng.integers(self.blades, size=n)
        cos, sin = np.cos(a), np.sin(a)
        return self.scale * np.column_stack([r * cos + t * sin, t * cos - r * sin])

    @property
    def box(self) -> Box:
        half = self.scale * (self.radial_mean + 7 * self.radial_std)
        return (-half, half), (-half, half)

    @property
    def _spacing(self) -> float:
        return 2 * math.pi / self.blades

    def _log_prob(self, x: Floats) -> Floats:
        rho = np.hypot(x[:, 0], x[:, 1]) / self.scale
        near = rho <= self._dense
        log_prob = np.empty(len(x))
        log_prob[~near] = self._log_angular_average(rho[~near])
        log_prob[near] = self._log_sum_over_preimages(rho[near], np.arctan2(x[near, 1], x[near, 0]))
        return log_prob - 2 * math.log(self.scale)

    def _log_sum_over_preimages(self, rho: Floats, phi: Floats) -> Floats:
        """Log-density (n,) of the unscaled pinwheel at polar coordinates `rho, phi: (n,)`."""
        row, psi = self._preimages(rho, phi)
        terms = self._log_blade(rho[row], psi) - np.log(np.abs(self._slope(psi, rho[row])))
        peak = np.full(len(rho), -np.inf)
        np.maximum.at(peak, row, terms)
        sums = np.bincount(row, np.exp(terms - peak[row]), minlength=len(rho))
        return np.asarray(peak + np.log(sums / self.blades))

    def _preimages(self, rho: Floats, phi: Floats) -> tuple[np.ndarray, Floats]:
        """Every psi in [-pi, pi) with h(psi) = phi modulo the blades' spacing.

        Returns `(row, psi)`, both (m,): psi is a preimage of the row with that index.
        """
        ends = self._monotone_pieces(rho)
        h = self._h(ends, rho[:, None])
        low, high = np.minimum(h[:, :-1], h[:, 1:]), np.maximum(h[:, :-1], h[:, 1:])
        first, stop = (np.ceil((level - phi[:, None]) / self._spacing).ravel() for level in (low, high))
        counts = (stop - first).astype(np.int64)
        piece = np.repeat(np.arange(counts.size), counts)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        row = piece // 3
        target = phi[row] + self._spacing * (first[piece] + nth)
        # Rounding may put a level at the end of its piece outside the bracket.
        target = np.clip(target, low.ravel()[piece], high.ravel()[piece])
        brackets = ends[:, :-1].ravel()[piece], ends[:, 1:].ravel()[piece]
        roots = find_root(self._excess, brackets, args=(rho[row], target))
        return row, np.asarray(roots.x)

    def _monotone_pieces(self, rho: Floats) -> Floats:
        """Ends (n, 4) of the three intervals of psi on which h is monotone; some may be empty."""
        # h' = 1 + f(psi) with f = rate rho exp(rho cos psi) sin psi, whose only minimum in (-pi, 0) has
        # rho sin^2 = cos; h folds where f < -1 there.
        ends = np.full((len(rho), 4), -math.pi)
        ends[:, 3] = math.pi
        cos = 2 * rho / (1 + np.sqrt(1 + 4 * np.square(rho)))
        lowest = -np.arccos(cos)
        folds = self._slope(lowest, rho) < 0
        middle, radius = lowest[folds], rho[folds]
        for column, far in ((1, -math.pi), (2, 0.0)):
            bracket = np.full_like(middle, far), middle
            ends[folds, column] = find_root(self._slope, bracket, args=(radius,)).x
        return ends

    def _h(self, psi: Floats, rho: Floats) -> Floats:
        return np.asarray(psi - self.rate * np.exp(rho * np.cos(psi)))

    def _excess(self, psi: Floats, rho: Floats, level: Floats) -> Floats:
        return self._h(psi, rho) - level

    def _slope(self, psi: Floats, rho: Floats) -> Floats:
        """h'(psi)."""
        return np.asarray(1 + self.rate * rho * np.exp(rho * np.cos(psi)) * np.sin(psi))

    def _log_blade(self, rho: Floats, psi: Floats) -> Floats:
        """Log-density of (r, t) at polar coordinates."""
        z_r = (rho * np.cos(psi) - self.radial_mean) / self.radial_std
        z_t = rho * np.sin(psi) / self.tangential_std
        return np.asarray(-0.5 * (z_r**2 + z_t**2)) - math.log(
            2 * math.pi * self.radial_std * self.tangential_std
        )

    def _log_angular_average(self, rho: Floats) -> Floats:
        """Log of the mean over psi of the blade's density, by Laplace's method about psi = 0."""
        curvature = np.square(rho / self.tangential_std) - rho * (rho - self.radial_mean) / self.radial_std**2
        return np.asarray(self._log_blade(rho, np.zeros_like(rho)) - 0.5 * np.log(2 * math.pi * curvature))
