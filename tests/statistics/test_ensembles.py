"""Scores of draws against closed forms of the density that they are drawn from."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from flowbench.statistics.ensembles import coverages_by_tercile, crps, pit

RNG = np.random.default_rng


def closed_form(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """The score of a normal density (Gneiting et al. 2005, eq. 5)."""
    z = (values - mean) / scale
    found: np.ndarray = scale * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return found


def test_the_score_of_many_draws_is_that_of_the_density() -> None:
    values = np.linspace(-3, 5, 9)
    draws = 1.0 + 2.0 * RNG(0).standard_normal((9, 200_000))
    assert crps(draws, values) == pytest.approx(closed_form(values, 1.0, 2.0), abs=0.02)


def test_the_score_of_few_draws_has_the_same_mean() -> None:
    """Fair: the mean over many sets of three draws is the score of the density, to its standard error."""
    draws = RNG(1).standard_normal((200_000, 3))
    found = crps(draws, np.full(200_000, 0.7))
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - closed_form(np.array([0.7]), 0.0, 1.0)[0]) < 4 * error


def test_the_score_is_the_sum_over_all_pairs() -> None:
    draws, values = RNG(2).standard_normal((5, 7)), RNG(3).standard_normal(5)
    pairs = np.abs(draws[:, :, None] - draws[:, None, :]).sum((1, 2)) / (7 * 6)
    assert crps(draws, values) == pytest.approx(np.abs(draws - values[:, None]).mean(1) - pairs / 2)


def test_one_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="two draws"):
        crps(np.zeros((3, 1)), np.zeros(3))


def test_the_transform_of_the_right_density_is_uniform() -> None:
    scale = RNG(4).uniform(0.5, 3, 2000)
    values = scale * RNG(5).standard_normal(2000)
    right = scale[:, None] * RNG(6).standard_normal((2000, 50))
    assert kstest(pit(right, values, RNG(7)), "uniform").pvalue > 0.01
    wide = 1.5 * right
    assert kstest(pit(wide, values, RNG(7)), "uniform").pvalue < 1e-6


def test_equal_values_are_placed_by_chance() -> None:
    found = pit(np.zeros((20_000, 4)), np.zeros(20_000), RNG(8))
    assert kstest(found, "uniform").pvalue > 0.01


def test_coverage_tells_where_a_density_is_too_narrow() -> None:
    """Regions that are right where the given is low and hold too little where it is high."""
    given = np.linspace(0, 1, 3000)[:, None]
    ranks = RNG(9).random(3000)
    ranks[given[:, 0] > 2 / 3] = ranks[given[:, 0] > 2 / 3] ** 0.3
    found = {
        (each.part, each.coverage.level): each.coverage for each in coverages_by_tercile(ranks, given, ("a",))
    }
    assert found[0, 0.9].low < 0.9 < found[0, 0.9].high
    assert found[2, 0.9].high < 0.9


def test_a_given_of_two_values_has_no_terciles() -> None:
    given = np.repeat([0.0, 1.0], 50)[:, None]
    assert coverages_by_tercile(RNG(0).random(100), given, ("a",)) == []
