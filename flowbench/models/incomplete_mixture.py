"""A mixture of numbers and categories that is fitted to rows with missing cells, and fills these."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.encoding.one_hot import Levels
from flowbench.models.growing import GrowingBuffers
from flowbench.statistics.gaussian_mixtures import Tell, silent

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
_Pattern = tuple[Integers, Bools, Bools]

#: Numbers of components that are tried; the Bayesian information criterion chooses.
COMPONENTS = (1, 2, 4, 8, 16, 32)
#: Rows that the mixture is fitted to at most, and steps of expectation maximisation.
MOST_ROWS, STEPS = 10_000, 60
#: A fit ends where a step gains less, nats a row.
LEAST_GAIN = 1e-4
#: Added to the variances along the axes, and to the counts of each level.
RIDGE, COUNTED = 1e-3, 0.5
#: Draws that stand for missing numbers in a likelihood come from wider normals, by this factor.
WIDER = 1.2
#: The share of an even distribution in those from which such categories come: no level is left out then.
EVEN = 0.2


@dataclass(frozen=True)
class Cells:
    """Rows whose cells may be missing: numbers `z: (n, d)`, NaN where missing, and `places: (n, m)`.

    The latter are those of levels among those of their column, -1 where missing. `absent: (n, d)` marks cells
    that are NaN because they hold no number: nothing is to be filled in.
    """

    z: Floats
    places: Integers
    absent: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.z)

    def at(self, rows: Integers) -> "Cells":
        """The cells of these `rows: (k,)`."""
        return Cells(self.z[rows], self.places[rows], self.absent[rows])


class IncompleteMixture(GrowingBuffers):
    """sum_k w_k N(z; m_k, S_k) prod_j p_kj(a_j) of d numbers z and m categories a.

    It is fitted by expectation maximisation to the cells that are there (Ghahramani and Jordan 1994; Little
    and Rubin 2002), as if which cells are missing said nothing about their values. Given the cells that are
    there, the missing ones follow a mixture of the same kind, in closed form.

    `levels` are those of the categories. Buffers are float64.
    """

    log_weights: Tensor
    means: Tensor
    covariances: Tensor
    log_shares: Tensor

    def __init__(self, features: int, levels: Mapping[str, Sequence[float]] | None = None) -> None:
        super().__init__()
        self.features, self.levels = features, Levels(levels or {})
        self.growing = ("log_weights", "means", "covariances", "log_shares")
        shapes = ((), (features,), (features, features), (sum(self.levels.sizes),))
        for name, shape in zip(self.growing, shapes, strict=True):
            self.register_buffer(name, torch.zeros(0, *shape, dtype=torch.float64))

    def fit(self, cells: Cells, tell: Tell = silent) -> None:
        """Fit the mixture to the first `MOST_ROWS` rows of `cells`, which are in random order."""
        cells = cells.at(np.arange(min(len(cells), MOST_ROWS)))
        best, best_score = None, math.inf
        for components in COMPONENTS:
            if components > 1 and components * 10 * (self.features + 1) > len(cells):
                break
            tell(f"fitting a mixture of {components} to the cells that are there")
            found, log_prob = _maximise(cells, components, self.levels.sizes)
            free = components * (1 + self.features * (self.features + 3) / 2 + sum(self.levels.sizes))
            score = -2 * log_prob.sum() + free * math.log(len(cells))
            if score >= best_score:
                break
            best, best_score = found, score
        if best is not None:
            parts = (np.log(best.weights), best.means, best.covariances, np.log(best.shares))
            for name, part in zip(self.growing, parts, strict=True):
                self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(part)))

    @property
    def draws(self) -> int:
        """How many random numbers `complete` needs for a row."""
        return 1 + self.features + len(self.levels.sizes)

    def complete(self, cells: Cells, uniform: Floats, *, wider: bool = False) -> tuple[Cells, Floats]:
        """Draw the missing cells of n rows given the others; and log q: `(n,)`, nats, their log-density.

        `uniform: (n, draws)` are random numbers in (0, 1). It counts a probability for a category. With
        `wider`, numbers are drawn from wider normals, and categories more evenly.
        """
        from scipy.special import ndtri

        mixture = self._mixture()
        z, places = cells.z.copy(), cells.places.copy()
        log_q = np.zeros(len(cells))
        factor = WIDER if wider else 1.0
        for rows, there, absent in _patterns(cells):
            missing = ~(there | absent)
            log_parts, conditional = _posterior(mixture, cells.at(rows), there, missing, self.levels.sizes)
            log_post = log_parts - _log_sum(log_parts)
            component = _choose(np.exp(log_post), uniform[rows, 0])
            normal = ndtri(uniform[rows, 1 : 1 + self.features].clip(1e-12, 1 - 1e-12))[:, missing]
            means, roots = conditional
            if missing.any():
                drawn = np.empty_like(normal)
                for k in range(len(mixture.weights)):
                    own = component == k
                    drawn[own] = means[own, k] + factor * normal[own] @ roots[k].T
                z[np.ix_(rows, np.flatnonzero(missing))] = drawn
                offset = drawn[:, None, :] - means
                for k, root in enumerate(roots):
                    at = np.linalg.solve(factor * root, offset[:, k].T).T
                    log_post[:, k] += -0.5 * (at**2).sum(1) - np.log(np.diag(factor * root)).sum()
                log_post -= 0.5 * missing.sum() * math.log(2 * math.pi)
            start = 0
            for column, size in enumerate(self.levels.sizes):
                gone = cells.places[rows, column] < 0
                shares = mixture.shares[:, start : start + size]
                if wider:
                    shares = (1 - EVEN) * shares + EVEN / size
                drawn_level = _choose(shares[component], uniform[rows, 1 + self.features + column])
                places[rows[gone], column] = drawn_level[gone]
                log_post[gone] += np.log(shares[:, drawn_level[gone]].T)
                start += size
            log_q[rows] = _log_sum(log_post)[:, 0]
        return Cells(z, places, cells.absent), log_q

    def _mixture(self) -> "_Mixture":
        return _Mixture(
            self.log_weights.exp().numpy(),
            self.means.numpy(),
            self.covariances.numpy(),
            self.log_shares.exp().numpy(),
        )


@dataclass
class _Mixture:
    """Weights (k,), means (k, d), covariances (k, d, d), and shares (k, s) of all levels of all columns."""

    weights: Floats
    means: Floats
    covariances: Floats
    shares: Floats


def _maximise(cells: Cells, components: int, sizes: tuple[int, ...]) -> tuple[_Mixture, Floats]:
    """The mixture of so many components with the highest likelihood of `cells`, and log-densities (n,)."""
    mixture = _start(cells, components, sizes)
    patterns = _patterns(cells)
    last = np.full(len(cells), -np.inf)
    for _ in range(STEPS):
        mixture, log_prob = _step(mixture, cells, patterns, sizes)
        if log_prob.mean() - last.mean() < LEAST_GAIN:
            return mixture, log_prob
        last = log_prob
    return mixture, last


def _start(cells: Cells, components: int, sizes: tuple[int, ...]) -> _Mixture:
    """A first mixture, of clusters of the rows with other rows' numbers in missing cells."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    filled = fill_by_others(cells.z, rng)
    n, d = filled.shape
    labels: Integers = np.zeros(n, dtype=np.int64)
    if d and components > 1:
        labels = KMeans(components, n_init=1, random_state=0).fit(filled).labels_.astype(np.int64)
    elif components > 1:
        labels = np.asarray(rng.integers(0, components, n), dtype=np.int64)
    spread = np.cov(filled.T).reshape(d, d) if d else np.zeros((0, 0))
    means, covariances = np.zeros((components, d)), np.zeros((components, d, d))
    shares = np.empty((components, sum(sizes)))
    for k in range(components):
        own = labels == k
        means[k] = filled[own].mean(0) if own.any() else filled.mean(0)
        covariances[k] = spread if own.sum() <= d + 1 else np.cov(filled[own].T).reshape(d, d)
        covariances[k] += RIDGE * np.eye(d)
        start = 0
        for column, size in enumerate(sizes):
            known = cells.places[own, column]
            counts = np.bincount(known[known >= 0], minlength=size) + COUNTED
            shares[k, start : start + size] = counts / counts.sum()
            start += size
    weights = (np.bincount(labels, minlength=components) + 1.0) / (n + components)
    return _Mixture(weights, means, covariances, shares)


def _step(
    mixture: _Mixture, cells: Cells, patterns: list[_Pattern], sizes: tuple[int, ...]
) -> tuple[_Mixture, Floats]:
    """One step of expectation maximisation; and the log-densities (n,) before it."""
    components, d = mixture.means.shape
    counts, sums = np.zeros(components), np.zeros((components, d))
    squares = np.zeros((components, d, d))
    levels = np.full_like(mixture.shares, COUNTED)
    log_prob = np.empty(len(cells))
    for rows, there, _ in patterns:
        own = cells.at(rows)
        log_parts, (means, roots) = _posterior(mixture, own, there, ~there, sizes)
        total = _log_sum(log_parts)
        log_prob[rows] = total[:, 0]
        shares = np.exp(log_parts - total)
        counts += shares.sum(0)
        missing = np.flatnonzero(~there)
        for k in range(components):
            z = own.z.copy()
            z[:, missing] = means[:, k]
            sums[k] += shares[:, k] @ z
            squares[k] += (shares[:, k, None] * z).T @ z
            squares[k][np.ix_(missing, missing)] += shares[:, k].sum() * (roots[k] @ roots[k].T)
        start = 0
        for column, size in enumerate(sizes):
            places = own.places[:, column]
            known = (places >= 0) & (places < size)
            for k in range(components):
                held = np.bincount(places[known], shares[known, k], minlength=size)
                # A missing category is expected to be as it was.
                held = held + shares[~known, k].sum() * mixture.shares[k, start : start + size]
                levels[k, start : start + size] += held
            start += size
    counts = np.maximum(counts, 1e-10)
    means = sums / counts[:, None]
    covariances = squares / counts[:, None, None] - np.einsum("ki,kj->kij", means, means)
    covariances = (covariances + covariances.transpose(0, 2, 1)) / 2 + RIDGE * np.eye(d)
    start = 0
    for size in sizes:
        part = levels[:, start : start + size]
        levels[:, start : start + size] = part / part.sum(1, keepdims=True)
        start += size
    return _Mixture(counts / counts.sum(), means, covariances, levels), log_prob


def _posterior(
    mixture: _Mixture, cells: Cells, there: Bools, missing: Bools, sizes: tuple[int, ...]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Log of each component's weighted density (n, k) of the cells that are `there: (d,)` and the categories.

    Also the means (n, k, f) of the f numbers that are `missing: (d,)` given the others, and lower triangular
    square roots (k, f, f) of their covariances.
    """
    n, components = len(cells), len(mixture.weights)
    known = cells.z[:, there]
    log_parts = np.empty((n, components))
    means = np.empty((n, components, int(missing.sum())))
    roots = np.empty((components, int(missing.sum()), int(missing.sum())))
    for k in range(components):
        covariance = mixture.covariances[k]
        root = np.linalg.cholesky(covariance[np.ix_(there, there)])
        at = np.linalg.solve(root, (known - mixture.means[k, there]).T)
        log_parts[:, k] = -0.5 * (at**2).sum(0) - np.log(np.diag(root)).sum()
        gain = np.linalg.solve(root, covariance[np.ix_(there, missing)])
        means[:, k] = mixture.means[k, missing] + at.T @ gain
        left = covariance[np.ix_(missing, missing)] - gain.T @ gain
        roots[k] = np.linalg.cholesky(left + 1e-9 * np.eye(len(left)))
    log_parts += np.log(mixture.weights) - 0.5 * there.sum() * math.log(2 * math.pi)
    start = 0
    for column, size in enumerate(sizes):
        places = cells.places[:, column]
        # A level that no row of the fit holds tells nothing.
        held = (places >= 0) & (places < size)
        log_parts[held] += np.log(mixture.shares[:, start : start + size][:, places[held]].T)
        start += size
    return log_parts, (means, roots)


def _patterns(cells: Cells) -> list[_Pattern]:
    """The rows of each pattern, which numbers are there, and which there need not be."""
    both = np.hstack([~np.isnan(cells.z), cells.absent])
    distinct, which = np.unique(both, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(distinct)))
    d = cells.z.shape[1]
    parts = zip(np.split(order, ends[:-1]), distinct, strict=True)
    return [(rows, pattern[:d], pattern[d:]) for rows, pattern in parts]


def fill_by_others(x: Floats, rng: np.random.Generator) -> Floats:
    """Rows `x: (n, d)` with numbers of other rows, drawn at random, in cells that are NaN."""
    x = x.copy()
    for column in x.T:
        gone = np.isnan(column)
        if gone.any() and not gone.all():
            column[gone] = rng.choice(column[~gone], int(gone.sum()))
    return x


def _choose(shares: Floats, uniform: Floats) -> Integers:
    """One index for each row of `shares: (n, k)`, with these probabilities, by `uniform: (n,)`."""
    below = np.cumsum(shares, axis=1)
    drawn = (uniform[:, None] * below[:, -1:] >= below).sum(1)
    return np.asarray(drawn.clip(max=shares.shape[1] - 1), dtype=np.int64)


def _log_sum(log_parts: Floats) -> Floats:
    """The logarithm of the sum of each row's parts: `(n, 1)`."""
    most = log_parts.max(1, keepdims=True)
    return np.asarray(most + np.log(np.exp(log_parts - most).sum(1, keepdims=True)))
