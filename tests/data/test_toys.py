import math
from dataclasses import dataclass
from functools import cache

import ffjord_toys
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from flowbench.data.toy_density import ToyDensity
from flowbench.errors import DataError
from flowbench.registry import TOYS

Floats = NDArray[np.float64]
PANELS = 48
ORDER = 5

every_toy = pytest.mark.parametrize("name", TOYS.names())
ffjords_toys = pytest.mark.parametrize("name", ffjord_toys.SAMPLERS)


@cache
def toy(name: str) -> ToyDensity:
    density: ToyDensity = TOYS.get(name)()
    return density


@dataclass(frozen=True)
class Quadrature:
    """Gauss-Legendre panels over a toy's box: mass per panel, and the entropy."""

    edges: tuple[Floats, Floats]
    masses: Floats
    entropy: float


@cache
def quadrature(name: str) -> Quadrature:
    abscissae, weights = np.polynomial.legendre.leggauss(ORDER)
    edges = [np.linspace(low, high, PANELS + 1) for low, high in toy(name).box]
    nodes = [(e[:-1, None] + np.diff(e)[:, None] * (1 + abscissae) / 2).ravel() for e in edges]
    area = np.outer(*(np.concatenate([w * weights / 2 for w in np.diff(e)]) for e in edges))
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    log_prob = toy(name).log_prob(points).reshape(area.shape)
    mass = np.exp(log_prob) * area
    surprise = np.where(mass > 0, -log_prob, 0)
    panels = mass.reshape(PANELS, ORDER, PANELS, ORDER).sum(axis=(1, 3))
    return Quadrature((edges[0], edges[1]), panels, float((mass * surprise).sum()))


def chi_square_p_value(name: str, sample: Floats) -> float:
    """Of the hypothesis that `sample` has the toy's density; sparse panels are pooled into one cell."""
    found = quadrature(name)
    counts = np.histogram2d(sample[:, 0], sample[:, 1], bins=found.edges)[0].ravel()
    expected = found.masses.ravel() * len(sample)
    full = expected >= 10
    counts = np.append(counts[full], len(sample) - counts[full].sum())
    expected = np.append(expected[full], len(sample) - expected[full].sum())
    keep = expected >= 10
    statistic = np.sum((counts[keep] - expected[keep]) ** 2 / expected[keep])
    return float(stats.chi2.sf(statistic, keep.sum() - 1))


@every_toy
def test_density_integrates_to_one(name: str) -> None:
    assert quadrature(name).masses.sum() == pytest.approx(1, abs=1e-6)


@every_toy
def test_sample_has_the_density(name: str) -> None:
    sample = toy(name).sample(60_000, np.random.default_rng(1))
    assert chi_square_p_value(name, sample) > 1e-3


@ffjords_toys
def test_ffjords_sample_has_the_density(name: str) -> None:
    sample = ffjord_toys.draw(name, 60_000, np.random.default_rng(2))
    assert chi_square_p_value(name, sample) > 1e-3


@every_toy
def test_chi_square_would_notice_a_shift(name: str) -> None:
    sample = toy(name).sample(60_000, np.random.default_rng(3)) + 0.04
    assert chi_square_p_value(name, sample) < 1e-3


@every_toy
def test_entropy_agrees_with_quadrature(name: str) -> None:
    assert toy(name).entropy == pytest.approx(quadrature(name).entropy, abs=1e-5)


@ffjords_toys
def test_entropy_agrees_with_monte_carlo_over_ffjords_sample(name: str) -> None:
    surprise = -toy(name).log_prob(ffjord_toys.draw(name, 60_000, np.random.default_rng(4)))
    standard_error = surprise.std() / math.sqrt(len(surprise))
    assert abs(toy(name).entropy - surprise.mean()) <= 3 * standard_error + 1e-12


def test_known_entropies() -> None:
    assert toy("8gaussians").entropy == pytest.approx(2.834, abs=3e-3)
    assert toy("checkerboard").entropy == math.log(32)


@every_toy
def test_box_holds_the_sample(name: str) -> None:
    x = toy(name).sample(60_000, np.random.default_rng(5))
    (x_low, x_high), (y_low, y_high) = toy(name).box
    assert ((x > (x_low, y_low)) & (x < (x_high, y_high))).all()


@every_toy
def test_same_seed_same_bytes(name: str) -> None:
    first, second, other = (toy(name).sample(500, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert first.tobytes() == second.tobytes()
    assert first.shape == (500, 2)
    assert not np.array_equal(first, other)


@every_toy
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    x = toy(name).sample(3000, np.random.default_rng(9))
    whole = toy(name).log_prob(x)
    assert whole.shape == (3000,)
    for i in (0, 1234, 2999):
        np.testing.assert_allclose(toy(name).log_prob(x[i : i + 1]), whole[i : i + 1], rtol=0, atol=1e-9)
    assert toy(name).log_prob(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("name", [name for name in TOYS.names() if name != "checkerboard"])
def test_log_prob_is_finite_and_falls_far_away(name: str) -> None:
    angles = np.linspace(0, 2 * np.pi, 25)[:, None]
    radii = np.array([10, 13.9, 14.1, 30, 1e3, 1e6])
    x = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)
    log_prob = toy(name).log_prob(x.reshape(-1, 2)).reshape(25, 6)
    assert np.isfinite(log_prob).all()
    assert (np.diff(log_prob[:, [0, 3, 4, 5]], axis=1) < 0).all()
    assert np.isfinite(toy(name).log_prob([[0.0, 0.0]])).all()


def test_checkerboard_is_minus_infinity_off_its_fields() -> None:
    x: list[list[float]] = [[1, 1], [-1, 1], [3, 1], [5, 5], [-3.9, -3.9], [-4.1, -3.9]]
    expected = [-math.log(32), -np.inf, -np.inf, -np.inf, -math.log(32), -np.inf]
    np.testing.assert_array_equal(toy("checkerboard").log_prob(x), expected)


@every_toy
@pytest.mark.parametrize("shape", [(2,), (3, 1), (3, 3), (1, 2, 2)])
def test_wrong_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"shape \(n, 2\)"):
        toy(name).log_prob(np.zeros(shape))


def test_eight_gaussians_divide_by_1_414() -> None:
    angles = np.arange(8) * np.pi / 4
    centres = 4 / 1.414 * np.column_stack([np.cos(angles), np.sin(angles)])
    x = toy("8gaussians").sample(50, np.random.default_rng(12))
    density = stats.norm.pdf(x[:, None], centres, 0.5 / 1.414).prod(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(toy("8gaussians").log_prob(x), np.log(density), rtol=0, atol=1e-12)


# --- against adaptive quadrature over the curve -----------------------------------------------------------


def moons_integrand(t: float, x: float, y: float) -> float:
    centres = np.array([[np.cos(t), np.sin(t)], [1 - np.cos(t), 0.5 - np.sin(t)]]) * 2 + [-1, -0.2]
    return float(stats.norm.pdf([x, y], centres, 0.2).prod(axis=1).mean() / np.pi)


def swissroll_integrand(t: float, x: float, y: float) -> float:
    centre = [t * np.cos(t) / 5, t * np.sin(t) / 5]
    return float(stats.norm.pdf([x, y], centre, 0.2).prod() / (3 * np.pi))


def two_spirals_integrand(t: float, x: float, y: float) -> float:
    corner = np.array([-t * np.cos(t), t * np.sin(t)]) / 3
    densities = [
        np.prod((stats.norm.cdf((z - corner) / 0.1) - stats.norm.cdf((z - corner - 1 / 6) / 0.1)) * 6)
        for z in (np.array([x, y]), np.array([-x, -y]))
    ]
    return float(np.mean(densities) * 2 * t / (3 * np.pi) ** 2)


def circles_integrand(t: float, x: float, y: float) -> float:
    centres = np.array([[1.5], [3.0]]) * [np.cos(t), np.sin(t)]
    return float(stats.norm.pdf([x, y], centres, 0.24).prod(axis=1).mean() / (2 * np.pi))


def rings_integrand(t: float, x: float, y: float) -> float:
    centres = np.array([[0.75], [1.5], [2.25], [3.0]]) * [np.cos(t), np.sin(t)]
    return float(stats.norm.pdf([x, y], centres, 0.08).prod(axis=1).mean() / (2 * np.pi))


CURVES = {
    "moons": (moons_integrand, 0, np.pi),
    "swissroll": (swissroll_integrand, 1.5 * np.pi, 4.5 * np.pi),
    "2spirals": (two_spirals_integrand, 0, 3 * np.pi),
    "circles": (circles_integrand, 0, 2 * np.pi),
    "rings": (rings_integrand, 0, 2 * np.pi),
}


@pytest.mark.parametrize("name", CURVES)
def test_log_prob_agrees_with_adaptive_quadrature(name: str) -> None:
    integrand, start, stop = CURVES[name]
    rng = np.random.default_rng(10)
    inside = toy(name).sample(6, rng)
    points = np.concatenate([inside, inside + rng.normal(0, 2 * toy(name).resolution, inside.shape)])
    for (x, y), log_prob in zip(points, toy(name).log_prob(points), strict=True):
        marks = np.linspace(start, stop, 60)[1:-1]
        density = integrate.quad(
            integrand, start, stop, (x, y), points=marks, limit=500, epsabs=0, epsrel=1e-9
        )[0]
        assert log_prob == pytest.approx(math.log(density), abs=1e-6)


# --- the pinwheel's preimages -----------------------------------------------------------------------------


def pinwheel_by_scanning(x: float, y: float) -> float:
    """Sum over the preimages that a fine scan of the blade's angle brackets, refined by the secant rule."""
    rho, phi = math.hypot(x, y) / 2, math.atan2(y, x)
    psi = np.linspace(-np.pi, np.pi, 2_000_001)
    turns = (psi - 0.25 * np.exp(rho * np.cos(psi)) - phi) * 5 / (2 * np.pi)
    before = np.flatnonzero(np.diff(np.floor(turns)))
    level = np.round((turns[before] + turns[before + 1]) / 2)
    root = psi[before] + (level - turns[before]) / (turns[before + 1] - turns[before]) * np.diff(psi)[0]
    r, t = rho * np.cos(root), rho * np.sin(root)
    blade = stats.norm.pdf(r, 1, 0.3) * stats.norm.pdf(t, 0, 0.1)
    return float(np.log(np.sum(blade / np.abs(1 + 0.25 * np.exp(r) * t)) / 5 / 4))


@pytest.mark.parametrize("radius", [0.3, 2.0, 3.5, 5.0, 6.0, 8.0, 10.0])
def test_pinwheel_sums_over_every_preimage(radius: float) -> None:
    for angle in (0.1, 1.7, -2.9):
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        found = toy("pinwheel").log_prob([[x, y]])[0]
        assert found == pytest.approx(pinwheel_by_scanning(x, y), abs=1e-6)


def test_pinwheel_is_symmetric_under_a_fifth_of_a_turn() -> None:
    x = np.random.default_rng(11).uniform(-6, 6, (500, 2))
    turn = 2 * np.pi / 5
    turned = x @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(toy("pinwheel").log_prob(x), toy("pinwheel").log_prob(turned), atol=1e-5)
