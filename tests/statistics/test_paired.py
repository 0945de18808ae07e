import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flowbench.errors import DataError
from flowbench.statistics.paired import CONFIDENCE, adjust, compare_paired, estimate_mean, spread


@given(
    st.integers(2, 60), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e4), st.floats(-100, 100), st.floats(0, 1)
)
def test_paired_interval_is_that_of_the_paired_t_test(
    rows: int, seed: int, scale: float, shift: float, shared: float
) -> None:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(rows)
    first = scale * (shared * common + rng.standard_normal(rows)) + shift
    second = scale * (shared * common + rng.standard_normal(rows))
    difference = compare_paired(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(CONFIDENCE)
    assert difference is not None
    tolerance = 1e-9 * (scale + abs(shift))
    assert difference.low == pytest.approx(expected.low, rel=1e-9, abs=tolerance)
    assert difference.high == pytest.approx(expected.high, rel=1e-9, abs=tolerance)
    assert difference.rows == rows
    # Of few rows nothing is resampled.
    agrees = not difference.bootstrap_low <= 0 <= difference.bootstrap_high
    assert difference.is_resolved == (agrees and (expected.low > 0 or expected.high < 0))
    assert difference.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-6, abs=1e-12)


def correlated_pair(rng: np.random.Generator, rows: int, difference: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods of two models: hard rows are hard for both, and the differences are skewed."""
    hardness = 3 * rng.gamma(1.0, size=rows)
    noise = 0.2 * (rng.gamma(2.0, size=(2, rows)) - 2)
    return -hardness + noise[0] + difference, -hardness + noise[1]


def test_the_bootstrap_agrees_with_t_where_rows_are_many() -> None:
    difference = compare_paired(*correlated_pair(np.random.default_rng(0), 2000, 0.1))
    assert difference is not None
    assert difference.bootstrap_low == pytest.approx(difference.low, abs=0.1 * difference.half_width)
    assert difference.bootstrap_high == pytest.approx(difference.high, abs=0.1 * difference.half_width)


def test_a_difference_of_a_few_heavy_rows_is_not_resolved_by_t_alone() -> None:
    by_t = []
    for seed in range(40):
        skewed = 1.0 - np.random.default_rng(seed).gamma(0.1, 8.0, size=100)
        difference = compare_paired(skewed, np.zeros(100))
        assert difference is not None
        agrees = not difference.bootstrap_low <= 0 <= difference.bootstrap_high
        assert difference.is_resolved == (agrees and difference.p_value < 0.05)
        by_t.append(difference.p_value < 0.05 and not agrees)
    assert any(by_t)


def test_few_rows_are_not_resampled() -> None:
    difference = compare_paired(np.arange(5.0), np.zeros(5))
    assert difference is not None
    assert math.isnan(difference.bootstrap_low)


def test_holm_divides_by_what_is_left() -> None:
    assert adjust([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjust([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert adjust([]) == []


def test_a_difference_that_never_varies_needs_rows_to_be_believed() -> None:
    for rows, resolved in ((2, False), (50, True)):
        difference = compare_paired(np.arange(float(rows)) + 0.5, np.arange(float(rows)))
        assert difference is not None
        assert difference.is_resolved == resolved


def test_many_rows_are_resampled_in_parts() -> None:
    difference = compare_paired(*correlated_pair(np.random.default_rng(0), 60_000, 0.1))
    assert difference is not None
    assert difference.bootstrap_low == pytest.approx(difference.low, abs=0.1 * difference.half_width)


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_resamples_that_do_not_vary_tell_nothing(constant: float) -> None:
    differences = np.full(50, constant)
    differences[7] += 1
    difference = compare_paired(differences, np.zeros(50))
    assert difference is not None
    assert math.isnan(difference.bootstrap_low)
    assert math.isnan(difference.bootstrap_high)


def test_the_bootstrap_reaches_further_to_the_side_of_the_tail() -> None:
    differences = np.random.default_rng(0).gamma(0.5, size=50)
    difference = compare_paired(differences, np.zeros(50))
    assert difference is not None
    assert difference.bootstrap_high - difference.mean > 1.2 * (difference.mean - difference.bootstrap_low)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [50, 500])
def test_intervals_hold_the_true_difference_95_times_in_100(rows: int) -> None:
    true, inside = 0.05, np.zeros(2)
    for seed in range(1000):
        found = compare_paired(*correlated_pair(np.random.default_rng(seed), rows, true))
        assert found is not None
        inside += [found.low <= true <= found.high, found.bootstrap_low <= true <= found.bootstrap_high]
    print(f"{rows} rows: t {inside[0] / 10:.1f}%, bootstrap {inside[1] / 10:.1f}%")
    assert ((inside >= 930) & (inside <= 970)).all()


def test_pairing_is_sharper_than_two_separate_errors() -> None:
    rng = np.random.default_rng(0)
    hardness = 5 * rng.standard_normal(500)
    first, second = hardness + 0.1 * rng.standard_normal(500) + 0.1, hardness
    difference = compare_paired(first, second)
    assert difference is not None
    assert difference.is_resolved
    separate = math.hypot(*(estimate_mean(each).standard_error or 0.0 for each in (first, second)))
    assert difference.standard_error < separate / 20


def test_rows_that_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="3 rows with 2"):
        compare_paired(np.zeros(3), np.zeros(2))
    assert compare_paired(np.zeros(1), np.ones(1)) is None
    assert compare_paired(np.array([0.0, -np.inf]), np.zeros(2)) is None
    assert compare_paired(np.zeros(2), np.array([np.nan, 0.0])) is None


def test_models_that_say_the_same_differ_by_exactly_nothing() -> None:
    difference = compare_paired(np.arange(5.0), np.arange(5.0))
    assert difference is not None
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
    assert not difference.is_resolved


def test_standard_error_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=40)
    estimate = estimate_mean(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(stats.sem(values))
    assert estimate.rows == 40


@pytest.mark.parametrize("values", [[1.0], [1.0, np.inf], [np.inf, -np.inf], [np.nan, 1.0]])
def test_standard_error_is_unknown(values: list[float]) -> None:
    assert estimate_mean(np.array(values)).standard_error is None


def test_mean_of_nothing() -> None:
    with pytest.raises(DataError, match="no test rows"):
        estimate_mean(np.empty(0))


def test_spread_needs_two_finite_repeats() -> None:
    assert spread([1.0, 2.0, 4.0]) == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert spread([1.0]) is None
    assert spread([1.0, math.inf]) is None
