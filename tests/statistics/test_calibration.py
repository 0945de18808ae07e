"""Calibration of models that are right, too wide and too narrow; draws that repeat their train rows."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from flowbench.statistics.calibration import (
    column_quantiles,
    coverages,
    density_ranks,
    least_uniform,
    radial_quantiles,
    rank_p_value,
    simultaneous_band,
    uniformity,
)
from flowbench.statistics.memorisation import memorisation

CHANCE = np.random.default_rng(0)


def normal(n: int, d: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def log_prob(x: np.ndarray, scale: float) -> np.ndarray:
    found: np.ndarray = norm.logpdf(x, scale=scale).sum(1)
    return found


def test_ranks_are_shares_of_likelier_draws() -> None:
    ranks = density_ranks(np.array([-0.9, -2.5, 0.0]), np.array([-2.0, -1.0, -3.0, -0.5]), CHANCE)
    assert ranks.tolist() == [0.25, 0.75, 0.0]
    none = density_ranks(np.array([np.nan, -np.inf]), np.array([-2.0, -1.0]), CHANCE)
    assert none.tolist() == [1.0, 1.0]
    lost = density_ranks(np.array([-0.9, -2.5]), np.array([-2.0, np.nan, -3.0, -0.5]), CHANCE)
    assert lost.tolist() == [0.25, 0.5]
    assert rank_p_value(normal(50)[:, 0], np.append(normal(50, seed=1)[:, 0], np.nan)) > 0.01


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "right"), (2.0, "wide"), (0.7, "narrow")])
def test_coverage_tells_a_model_that_is_too_sure_from_one_that_is_not(scale: float, verdict: str) -> None:
    rows, draws = normal(4000), scale * normal(4000, seed=1)
    ranks = density_ranks(log_prob(rows, scale), log_prob(draws, scale), CHANCE)
    found = {each.level: each for each in coverages(ranks, 4000)}
    # The region that holds a share p of a round normal in the plane is the disc of radius^2 -2 log(1 - p).
    for level, each in found.items():
        expected = 1 - (1 - level) ** (scale**2)
        assert each.share == pytest.approx(expected, abs=0.03)
        assert each.low < each.share <= each.high
    inside = found[0.9].low <= 0.9 <= found[0.9].high
    assert inside == (verdict == "right")
    p_value = rank_p_value(log_prob(rows, scale), log_prob(draws, scale))
    assert (p_value > 0.01) == (verdict == "right")


def test_a_model_that_is_right_about_few_values_covers_what_it_should() -> None:
    classes = np.log([0.4, 0.3, 0.2, 0.1])
    rows, draws = (CHANCE.choice(classes, 4000, p=np.exp(classes)) for _ in range(2))
    for each in coverages(density_ranks(rows, draws, CHANCE), 4000):
        assert each.share == pytest.approx(each.level, abs=0.03)


def test_coverage_intervals_know_that_draws_are_few() -> None:
    outside = 0
    for seed in range(200):
        rows, draws = normal(300, seed=2 * seed), normal(200, seed=2 * seed + 1)
        ranks = density_ranks(log_prob(rows, 1), log_prob(draws, 1), CHANCE)
        found = {each.level: each for each in coverages(ranks, 200)}[0.5]
        outside += not found.low <= 0.5 <= found.high
    assert 2 <= outside <= 18


def test_coverage_of_none_and_of_all() -> None:
    assert coverages(np.ones(10), 10)[0].low == 0
    assert coverages(np.zeros(10), 10)[0].high == 1


def test_quantiles_of_a_normal_are_uniform() -> None:
    z = normal(2000, 5)
    assert uniformity(column_quantiles(z)) > 0.01
    assert uniformity(radial_quantiles(z)) > 0.01
    z[:, 3] += 0.2
    assert uniformity(column_quantiles(z)) < 1e-6
    assert uniformity(radial_quantiles(1.2 * normal(2000, 5))) < 1e-6


def test_uniformity_is_that_of_scipy_times_the_columns() -> None:
    quantiles = np.random.default_rng(0).random((100, 3))
    each = [kstest(column, "uniform").pvalue for column in quantiles.T]
    assert uniformity(quantiles) == pytest.approx(min(1, 3 * min(each)))


def test_the_column_farthest_off_is_found() -> None:
    z = normal(2000, 5)
    z[:, 3] += 0.2
    quantiles = column_quantiles(z)
    assert np.array_equal(least_uniform(quantiles), quantiles[:, 3])


def test_nineteen_in_twenty_uniform_samples_stay_in_the_band() -> None:
    random, n = np.random.default_rng(0), 200
    band = simultaneous_band(n, 3)
    out = 0
    for _ in range(500):
        ordered = np.sort(random.random((n, 3)), axis=0)
        above = np.arange(1, n + 1)[:, None] / n - ordered
        out += max(above.max(), (1 / n - above).max()) > band
    assert 0.02 <= out / 500 <= 0.07


def test_repeated_train_rows_are_noticed() -> None:
    train, held_out = normal(2000), normal(500, seed=1)
    fresh = memorisation(normal(500, seed=2), held_out, train)
    assert fresh.closer == pytest.approx(0.5, abs=0.06)
    assert fresh.p_value > 0.01
    copied = memorisation(train[:500] + 1e-3 * normal(500, seed=3), held_out, train)
    assert copied.closer > 0.9
    assert copied.p_value < 1e-6
    half = memorisation(np.concatenate([train[:250], normal(250, seed=2)]), held_out, train)
    assert 0.6 < half.closer < 0.9
    far = memorisation(normal(500, seed=2) + 5, held_out, train)
    assert far.closer < 0.1
