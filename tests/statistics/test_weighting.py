"""Weighted means, errors and quantiles against repeated rows, numpy and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from flowbench.statistics.paired import compare_paired, estimate_mean
from flowbench.statistics.weighting import effective_size, mean_of, quantile_of, standard_error_of, thin

VALUES = arrays(np.float64, st.shared(st.integers(1, 30), key="n"), elements=st.floats(-1e6, 1e6))
COUNTS = arrays(np.int64, st.shared(st.integers(1, 30), key="n"), elements=st.integers(1, 6))


@given(VALUES, COUNTS, st.floats(0.01, 1))
def test_a_quantile_is_that_of_repeated_values(values: np.ndarray, counts: np.ndarray, level: float) -> None:
    weights = counts.astype(float)
    repeated = np.repeat(values, counts)
    # Away from the steps of the distribution, where rounding decides.
    level = (min(int(level * len(repeated)), len(repeated) - 1) + 0.5) / len(repeated)
    expected = np.quantile(repeated, level, method="inverted_cdf")
    assert quantile_of(values, level, weights) == expected
    assert quantile_of(values, level, 1e300 * weights) == expected


@given(VALUES, COUNTS)
def test_a_mean_is_that_of_repeated_values(values: np.ndarray, counts: np.ndarray) -> None:
    for scale in (1.0, 1e-200, 1e305):
        found = mean_of(values, scale * counts)
        assert found == pytest.approx(np.repeat(values, counts).mean(), rel=1e-9, abs=1e-6)


@given(COUNTS)
def test_the_effective_size_lies_between_one_and_n(counts: np.ndarray) -> None:
    size = effective_size(counts.astype(float))
    assert 1 - 1e-9 <= size <= len(counts) + 1e-9
    assert size == pytest.approx(counts.sum() ** 2 / (counts**2).sum())
    assert size == pytest.approx(effective_size(1e-300 * counts))


def test_equal_weights_give_the_figures_without_weights() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 60))
    ones = np.full(60, 3.0)
    plain, weighted = estimate_mean(first), estimate_mean(first, ones)
    assert weighted.mean == pytest.approx(plain.mean)
    assert weighted.standard_error == pytest.approx(plain.standard_error)
    assert weighted.effective_rows == pytest.approx(60)
    alike, other = compare_paired(first, second), compare_paired(first, second, weights=ones)
    assert alike is not None and other is not None
    for name, value in vars(alike).items():
        assert getattr(other, name) == (value if value is None else pytest.approx(value)), name


def test_an_interval_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    difference, weights = rng.normal(0.2, 1, 80), rng.exponential(size=80)
    found = compare_paired(difference, np.zeros(80), weights=weights)
    mean = np.average(difference, weights=weights)
    size = weights.sum() ** 2 / (weights**2).sum()
    error = np.sqrt((weights**2 * (difference - mean) ** 2).sum()) / weights.sum()
    error *= np.sqrt(size / (size - 1))
    assert found is not None
    assert found.mean == pytest.approx(mean)
    assert found.standard_error == pytest.approx(error)
    low, high = stats.t(size - 1, mean, error).interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    # The bootstrap draws rows with their weights, and has about the same ends.
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_standard_error_is_the_scatter_of_weighted_means() -> None:
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=(2000, 300)), rng.exponential(size=(2000, 300))
    means = [mean_of(*each) for each in zip(values, weights, strict=True)]
    errors = [standard_error_of(*each) for each in zip(values, weights, strict=True)]
    # The standard deviation of 2000 means is known to 1.6%.
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.06)


def test_one_row_with_all_weight_has_no_error_and_no_comparison() -> None:
    weights = np.array([1.0, 1e-300, 1e-300])
    assert estimate_mean(np.arange(3.0), weights).standard_error is None
    assert compare_paired(np.arange(3.0), np.ones(3), weights=weights) is None


def test_kept_rows_are_draws_from_the_weighted_distribution() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-3, 3, 20_000)
    kept = thin(stats.norm.pdf(x), rng)
    assert len(np.unique(kept)) == len(kept)
    assert len(kept) == pytest.approx(20_000 * np.sqrt(2 * np.pi) / 6, rel=0.03)
    truth = stats.truncnorm(-3, 3)
    assert stats.kstest(x[kept], truth.cdf).pvalue > 1e-3


def test_the_rows_of_the_largest_weight_are_kept() -> None:
    weights = np.array([2.0, 1e-12, 2.0, 1e-12])
    assert thin(weights, np.random.default_rng(0)).tolist() == [0, 2]
