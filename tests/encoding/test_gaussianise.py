"""The marginal Gaussianiser: knots from the data, ties, tails, and a slope without jumps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from flowbench.encoding.gaussianise import Gaussianise, GaussianiseOptions
from flowbench.encoding.rational_quadratic import Spline
from flowbench.errors import DataError

SHAPES = {
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "uniform": stats.uniform(),
    "arcsine": stats.beta(0.5, 0.5),
    "t3": stats.t(3),
}


def fitted(*columns: np.ndarray, max_pieces: int = 256) -> Gaussianise:
    names = tuple(f"c{number}" for number in range(len(columns)))
    transform = Gaussianise(names, GaussianiseOptions(max_pieces=max_pieces))
    transform.fit(torch.tensor(np.stack(columns, 1)))
    return transform


def draw(shape: str, size: int, seed: int) -> np.ndarray:
    uniform = np.random.default_rng(seed).uniform(size=size)
    return np.asarray(SHAPES[shape].ppf(uniform))


def density(transform: Gaussianise, points: np.ndarray) -> np.ndarray:
    z, log_slope = transform.to_model(torch.tensor(points).reshape(-1, 1))
    return np.asarray(torch.exp(log_slope.sum(1) - 0.5 * z.square().sum(1)) / np.sqrt(2 * np.pi))


@pytest.mark.parametrize("shape", SHAPES)
def test_density_sums_to_one_and_comes_close_to_the_truth(shape: str) -> None:
    transform = fitted(draw(shape, 20_000, 0))
    # Points that are dense where the density is steep.
    normal = torch.linspace(-9, 9, 200_001, dtype=torch.float64)[:, None]
    points = transform.to_data(normal)[0].flatten().numpy()
    assert integrate.trapezoid(density(transform, points), points) == pytest.approx(1, abs=2e-3)
    fresh = draw(shape, 20_000, 1)
    truth = SHAPES[shape]
    gain = np.mean(truth.logpdf(fresh) - np.log(density(transform, fresh)))
    assert gain < 0.02


def test_slope_is_continuous_at_every_knot() -> None:
    transform = fitted(draw("exponential", 5000, 0))
    knots = transform.knots[0, : transform.last[0] + 1]
    step = 1e-9 * knots.diff().amin()
    below, above = (transform.to_model((knots + side)[:, None])[1] for side in (-step, step))
    assert (above - below).abs().max() < 1e-5


def test_a_normal_column_is_only_standardised_up_to_three_deviations() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    transform = fitted(x)
    standard = np.array([-3.0, -1.0, 0.0, 0.5, 2.9, 3.0])
    z, log_slope = transform.to_model(torch.tensor(x.mean() + x.std() * standard)[:, None])
    assert np.allclose(z.flatten(), standard, atol=1e-9)
    assert np.allclose(log_slope, -np.log(x.std()), atol=1e-9)


def test_clouds_stay_straight_and_skewed_columns_do_not() -> None:
    """Each column alone is far from normal in both tables, but only together do clouds show."""
    rng = np.random.default_rng(0)
    clouds = 4 * rng.integers(-1, 2, (5000, 1)) + rng.normal(size=(5000, 2)) @ [[1.0, 0.9], [0.0, 0.4]]
    straight, bent = fitted(*clouds.T), fitted(*np.exp(rng.normal(size=(2, 5000))))
    assert (straight.last == 2).all()
    assert (bent.last > 2).all()
    # A column by itself has no such shape.
    assert (fitted(clouds[:, 0]).last > 2).all()


def test_a_row_far_out_costs_tens_of_nats() -> None:
    """z = 3 + 2 log(1 + 97 / 2), so that log p is about -60; straight on it would be -5,000."""
    x = np.random.default_rng(0).normal(size=150)
    transform = fitted(x)
    far = np.log(density(transform, np.array([x.mean() + 100 * x.std()])))
    z = 3 + 2 * np.log(1 + 97 / 2)
    slope = 1 / (x.std() * (1 + 97 / 2))
    assert far == pytest.approx(np.log(slope) - 0.5 * z**2 - 0.5 * np.log(2 * np.pi), rel=1e-9)
    assert far > -70


def test_scale_and_shift_of_a_column_change_nothing() -> None:
    x = draw("exponential", 3000, 0)
    z, log_slope = fitted(x).to_model(torch.tensor(x)[:, None])
    moved, moved_log_slope = fitted(1e6 * x - 3e6).to_model(torch.tensor(1e6 * x - 3e6)[:, None])
    assert np.allclose(z, moved, atol=1e-6)
    assert np.allclose(log_slope, moved_log_slope + np.log(1e6), atol=1e-5)


def test_ties_are_spread_and_slopes_stay_bounded() -> None:
    generator = np.random.default_rng(0)
    whole = generator.poisson(3.0, size=5000).astype(float)
    many_zeros = np.where(generator.uniform(size=5000) < 0.5, 0.0, generator.exponential(size=5000))
    two_values = generator.integers(0, 2, size=5000).astype(float)
    columns = (whole, many_zeros, two_values)
    transform = fitted(*columns)
    x = torch.tensor(np.stack(columns, 1))
    z, log_slope = transform.to_model(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_slope).all()
    assert (transform.to_data(z)[0] - x).abs().max() < 1e-9
    assert transform.slopes.max() < 1e6


def test_rows_far_beyond_the_data_have_finite_likelihood_and_come_back() -> None:
    transform = fitted(draw("t3", 5000, 0), draw("uniform", 5000, 1))
    x = torch.tensor([[1e6, -1e6], [-1e9, 1e9], [0.0, 0.5]], dtype=torch.float64)
    z, log_slope = transform.to_model(x)
    assert torch.isfinite(log_slope).all()
    assert torch.allclose(transform.to_data(z)[0], x, rtol=1e-12)


@given(rows=arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e100, 1e100)))
def test_any_column_is_mapped_back_or_refused(rows: np.ndarray) -> None:
    try:
        transform = fitted(rows)
    except DataError:
        return
    x = torch.tensor(rows)[:, None]
    z, log_slope = transform.to_model(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_slope).all()
    assert (transform.to_data(z)[0] - x).abs().max() <= 1e-9 * x.abs().max()


@given(
    gaps=arrays(np.float64, (2, 6), elements=st.floats(0.05, 20)),
    slopes=arrays(np.float64, 7, elements=st.floats(0.05, 20)),
)
def test_spline_increases_and_inverts_for_any_knots(gaps: np.ndarray, slopes: np.ndarray) -> None:
    knots, images = (torch.tensor(np.concatenate([[0.0], np.cumsum(row)]))[None] for row in gaps)
    spline = Spline(knots, images, torch.tensor(slopes)[None], torch.tensor([6])).padded(9)
    x = torch.linspace(-10, float(knots[0, -1]) + 10, 500, dtype=torch.float64)[:, None]
    z, log_slope = spline.forward(x)
    assert (z.diff(dim=0) > 0).all()
    back, inverse_log_slope = spline.inverse(z)
    assert (back - x).abs().max() < 1e-7
    assert (log_slope + inverse_log_slope).abs().max() < 1e-5
