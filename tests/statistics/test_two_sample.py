"""Two-sample tests against analytic values, direct sums and scipy; their level and their power."""

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import wasserstein_distance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from flowbench.evaluation.suite import TESTS
from flowbench.statistics.two_sample import (
    WIDTHS,
    c2st,
    energy_distance,
    mmd,
    sliced_wasserstein,
)

SHIFT = np.array([0.8, -0.6, 0.0])


def normal(n: int, seed: int, d: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_c2st_is_the_accuracy_of_the_best_classifier_on_normals() -> None:
    """Two unit normals a distance D apart can be told at an accuracy of Phi(D / 2)."""
    x, y = normal(2000, 1), normal(2000, 2) + SHIFT
    found = c2st(x, y, rng(), LinearDiscriminantAnalysis())
    assert found.statistic == pytest.approx(0.6915, abs=0.02)
    assert found.p_value < 1e-6
    assert c2st(x, y, rng()).statistic == pytest.approx(0.6915, abs=0.04)


def test_the_band_of_c2st_is_that_of_a_fair_coin() -> None:
    found = c2st(normal(1000, 1), normal(1000, 2), rng(), LogisticRegression())
    assert found.band is not None
    low, high = found.band
    # Four fifths of the rows, but for 90 in 2,000 that the coin may need.
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / (0.8 * 1910) ** 0.5, rel=0.02)
    assert low + high == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(20, 20), (20, 700), (700, 20)])
def test_c2st_of_unequal_samples(sizes: tuple[int, int]) -> None:
    n, m = sizes
    found = c2st(normal(n, 1), normal(m, 2) + 9, rng(), LogisticRegression())
    assert found.statistic > 0.8
    assert found.p_value < 0.01


def test_mmd_against_direct_sums() -> None:
    x, y = normal(30, 1), normal(40, 2) + SHIFT
    pooled = np.concatenate([x, y])
    squares = ((pooled[:, None] - pooled) ** 2).sum(-1)
    median = np.median(squares[np.triu_indices(70, 1)])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * w**2 * median)) for w in WIDTHS]))

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd(x, y, rng()).statistic == pytest.approx(within_x + within_y - 2 * across, abs=1e-12)


def test_energy_distance_against_scipy_in_one_dimension() -> None:
    x, y = normal(300, 1, 1), normal(200, 2, 1) + 0.5
    # scipy gives the root of the statistic with equal rows counted in.
    biased = scipy_energy_distance(x[:, 0], y[:, 0]) ** 2
    within = [np.abs(a - a.T).sum() / len(a) ** 2 / (len(a) - 1) for a in (x, y)]
    assert energy_distance(x, y, rng()).statistic == pytest.approx(biased - sum(within), abs=1e-9)


def test_sliced_wasserstein_against_scipy_and_a_shift() -> None:
    x, y = normal(300, 1, 1), normal(200, 2, 1) + 0.5
    one = sliced_wasserstein(x, y, rng(), directions=1)
    assert one.statistic == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), abs=1e-9)
    # Of one sample and itself shifted, the mean of |direction . shift|, which is |shift| / 2 in space.
    many = normal(500, 1)
    found = sliced_wasserstein(many, many + SHIFT, rng(), directions=2000)
    assert found.statistic == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", TESTS)
def test_a_shifted_mean_is_found_and_equal_samples_are_not(name: str) -> None:
    test = TESTS[name]
    assert test(normal(300, 1), normal(300, 2) + SHIFT, rng()).p_value < 0.01
    assert test(normal(300, 3), normal(300, 4), rng()).p_value > 0.01


@pytest.mark.parametrize("name", TESTS)
def test_the_same_seed_gives_the_same_answer(name: str) -> None:
    x, y = normal(60, 1), normal(60, 2)
    assert TESTS[name](x, y, rng(7)) == TESTS[name](x, y, rng(7))


def test_p_values_are_never_zero_and_ties_count() -> None:
    x = np.zeros((30, 2))
    assert mmd(x, x, rng()).p_value == 1
    assert mmd(normal(50, 1), normal(50, 2) + 9, rng()).p_value == pytest.approx(1 / 501)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TESTS, "c2st, another classifier"])
def test_each_keeps_its_level_over_a_thousand_repetitions(name: str) -> None:
    rejected = 0
    for seed in range(1000):
        random = rng(seed)
        x, y = random.standard_normal((2, 40, 2))
        if name == "c2st, another classifier":
            found = c2st(x, y, random, LogisticRegression())
        elif name == "c2st":
            found = c2st(x, y, random)
        else:
            found = TESTS[name](x, y, random, 199)  # type: ignore[call-arg]
        rejected += found.p_value <= 0.05
    print(f"{name}: {rejected / 10:.1f}% rejected at 5%")
    assert 35 <= rejected <= 65
