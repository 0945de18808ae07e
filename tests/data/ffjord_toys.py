"""The samplers of FFJORD's toys, reimplemented from their definitions; the noise is drawn from `rng`."""

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

Rows = NDArray[np.float64]


def draw(name: str, n: int, rng: np.random.Generator) -> Rows:
    """About `n` rows (some samplers round down to whole shares)."""
    return SAMPLERS[name](n, rng)


def _state(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _swissroll(n: int, rng: np.random.Generator) -> Rows:
    x: Rows = datasets.make_swiss_roll(n, noise=1.0, random_state=_state(rng))[0]
    return x[:, [0, 2]] / 5


def _circles(n: int, rng: np.random.Generator) -> Rows:
    x: Rows = datasets.make_circles(n, factor=0.5, noise=0.08, random_state=_state(rng))[0]
    return 3 * x


def _rings(n: int, rng: np.random.Generator) -> Rows:
    angles = np.linspace(0, 2 * np.pi, n // 4, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    rings = 3.0 * np.vstack([radius * circle for radius in (1, 0.75, 0.5, 0.25)])
    return rings + rng.normal(scale=0.08, size=rings.shape)


def _moons(n: int, rng: np.random.Generator) -> Rows:
    x: Rows = datasets.make_moons(n, noise=0.1, random_state=_state(rng))[0]
    shift: Rows = np.array([-1, -0.2])
    return 2 * x + shift


def _eight_gaussians(n: int, rng: np.random.Generator) -> Rows:
    s = 1 / np.sqrt(2)
    centres: Rows = 4 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (s, s), (s, -s), (-s, s), (-s, -s)])
    return (0.5 * rng.standard_normal((n, 2)) + centres[rng.integers(8, size=n)]) / 1.414


def _pinwheel(n: int, rng: np.random.Generator) -> Rows:
    features = rng.standard_normal((5 * (n // 5), 2)) * [0.3, 0.1] + [1, 0]
    labels = np.repeat(np.arange(5), n // 5)
    angles = np.linspace(0, 2 * np.pi, 5, endpoint=False)[labels] + 0.25 * np.exp(features[:, 0])
    rotations = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)])
    turned: Rows = np.einsum("ti,tij->tj", features, rotations.T.reshape(-1, 2, 2))
    return 2 * turned


def _two_spirals(n: int, rng: np.random.Generator) -> Rows:
    t = np.sqrt(rng.random((n // 2, 1))) * 540 * (2 * np.pi) / 360
    x = -np.cos(t) * t + 0.5 * rng.random((n // 2, 1))
    y = np.sin(t) * t + 0.5 * rng.random((n // 2, 1))
    spirals = np.vstack([np.hstack([x, y]), np.hstack([-x, -y])]) / 3
    return spirals + 0.1 * rng.standard_normal(spirals.shape)


def _checkerboard(n: int, rng: np.random.Generator) -> Rows:
    x = rng.random(n) * 4 - 2
    y = rng.random(n) - 2 * rng.integers(0, 2, n) + np.floor(x) % 2
    return 2 * np.column_stack([x, y])


SAMPLERS = {
    "swissroll": _swissroll,
    "circles": _circles,
    "rings": _rings,
    "moons": _moons,
    "8gaussians": _eight_gaussians,
    "pinwheel": _pinwheel,
    "2spirals": _two_spirals,
    "checkerboard": _checkerboard,
}
