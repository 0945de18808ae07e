"""Densities in any number of columns that are known exactly: what a model should recover."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, ortho_group

Floats = NDArray[np.float64]

ROWS = 200_000


class Known(Protocol):
    """A density that can be drawn from."""

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` rows `(n, d)`."""
        ...

    def log_prob(self, x: Floats) -> Floats:
        """Log-density `(n,)` of `x: (n, d)`, nats."""
        ...


@dataclass(frozen=True)
class Gaussians:
    """A mixture of equal parts, each with a mean of `means: (k, d)` and a factor of `factors: (k, d, d)`."""

    means: Floats
    factors: Floats

    @classmethod
    def draw(cls, count: int, features: int, rng: np.random.Generator) -> "Gaussians":
        """`count` parts with full covariances, some standard deviations apart."""
        factors = rng.standard_normal((count, features, features)) / features**0.5
        means = 2 * rng.standard_normal((count, features)) if count > 1 else np.zeros((1, features))
        return cls(means, factors + 0.3 * np.eye(features))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` rows `(n, d)`."""
        chosen = rng.integers(len(self.means), size=n)
        noise = rng.standard_normal((n, self.means.shape[1]))
        return np.asarray(self.means[chosen] + np.einsum("nij,nj->ni", self.factors[chosen], noise))

    def log_prob(self, x: Floats) -> Floats:
        """Log-density `(n,)` of `x: (n, d)`, nats."""
        parts = [
            multivariate_normal(mean, factor @ factor.T).logpdf(x)
            for mean, factor in zip(self.means, self.factors, strict=True)
        ]
        return np.asarray(logsumexp(parts, axis=0) - np.log(len(parts)))


@dataclass(frozen=True)
class Bananas:
    """Every second column bent by the one before it, then all turned by `rotation: (d, d)`."""

    rotation: Floats

    @classmethod
    def draw(cls, features: int, rng: np.random.Generator) -> "Bananas":
        """As many bananas as there are pairs of columns."""
        return cls(np.asarray(ortho_group(features, seed=rng).rvs()))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` rows `(n, d)`."""
        y = rng.standard_normal((n, len(self.rotation)))
        y[:, 1::2] = 0.5 * y[:, 1::2] + 0.5 * (y[:, ::2] ** 2 - 1)
        return y @ self.rotation.T

    def log_prob(self, x: Floats) -> Floats:
        """Log-density `(n,)` of `x: (n, d)`, nats."""
        y = x @ self.rotation
        straight = y.copy()
        straight[:, 1::2] = (y[:, 1::2] - 0.5 * (y[:, ::2] ** 2 - 1)) / 0.5
        pairs = straight.shape[1] // 2
        base = -0.5 * (straight**2).sum(1) - straight.shape[1] / 2 * np.log(2 * np.pi)
        return np.asarray(base + pairs * np.log(2))


def known(name: str) -> Known:
    """The density called "gaussian-8", "banana-2", "mixture-32", ..."""
    kind, _, features = name.partition("-")
    rng = np.random.default_rng([int(features), len(kind)])
    if kind == "banana":
        return Bananas.draw(int(features), rng)
    return Gaussians.draw(1 if kind == "gaussian" else 5, int(features), rng)


def write_known_tables(folder: Path, features: int) -> dict[str, Path]:
    """Write rows of each density in so many columns as Parquet; returns them by name."""
    paths = {}
    for kind in ("gaussian", "banana", "mixture"):
        name = f"{kind}-{features}"
        rows = known(name).sample(ROWS, np.random.default_rng(7))
        paths[name] = folder / f"{name}.parquet"
        pd.DataFrame(rows, columns=[f"x{i}" for i in range(features)]).to_parquet(paths[name])
    return paths


@dataclass(frozen=True)
class ConditionalPair:
    """Two normals in d = 1 or 2 columns of y, all of which depends smoothly on x: `context` c columns.

    With a the first column of x and b the second, or a itself where there is one: the shares are
    logistic(1.5 b) and the rest, the centres 2 sin(a + j) -+ (1 + 0.5 cos(2 b)) in column j, and the standard
    deviations exp(-1 +- 0.5 sin(2 a)). The two columns of y have the correlations +-0.8 tanh(b). Further
    columns of x say nothing.
    """

    features: int
    context: int

    def sample_context(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` rows x `(n, c)`, standard normal."""
        return rng.standard_normal((n, self.context))

    def sample(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Draw y `(n, d)` for each row of `x: (n, c)`."""
        share, means, deviations, correlations = self._parts(x)
        chosen = (rng.uniform(size=len(x)) >= share).astype(np.intp)
        each = np.arange(len(x))
        noise = rng.standard_normal((len(x), self.features))
        if self.features == 2:
            correlation = correlations[each, chosen]
            noise[:, 1] = correlation * noise[:, 0] + np.sqrt(1 - correlation**2) * noise[:, 1]
        return np.asarray(means[each, chosen] + deviations[each, chosen, None] * noise)

    def log_prob(self, y: Floats, x: Floats) -> Floats:
        """Log-density `(n,)`, nats, of `y: (n, d)` given `x: (n, c)`."""
        share, means, deviations, correlations = self._parts(x)
        z = (y[:, None] - means) / deviations[:, :, None]
        log_det = self.features * np.log(deviations)
        if self.features == 2:
            z[:, :, 1] = (z[:, :, 1] - correlations * z[:, :, 0]) / np.sqrt(1 - correlations**2)
            log_det = log_det + 0.5 * np.log(1 - correlations**2)
        parts = -0.5 * (z**2).sum(2) - log_det - self.features / 2 * np.log(2 * np.pi)
        return np.asarray(np.logaddexp(np.log(share) + parts[:, 0], np.log1p(-share) + parts[:, 1]))

    def _parts(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """The share (n,) of the first normal; means (n, 2, d), deviations (n, 2), correlations (n, 2)."""
        a, b = x[:, 0], x[:, min(1, self.context - 1)]
        signs = np.array([-1.0, 1.0])
        share = 1 / (1 + np.exp(-1.5 * b))
        centres = 2 * np.sin(a[:, None] + np.arange(self.features))
        means = centres[:, None] + (signs * (1 + 0.5 * np.cos(2 * b))[:, None])[:, :, None]
        deviations = np.exp(-1 - signs * 0.5 * np.sin(2 * a)[:, None])
        return share, means, deviations, -signs * 0.8 * np.tanh(b)[:, None]


def known_conditional(name: str) -> ConditionalPair:
    """The density called "2 given 5": so many columns of y, and so many of x."""
    features, _, context = name.partition(" given ")
    return ConditionalPair(int(features), int(context))
