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
