"""A mixture fitted to rows with missing cells, against closed forms of a normal."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from flowbench.models.incomplete_mixture import Cells, IncompleteMixture, fill_by_others

Floats = NDArray[np.float64]

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, -0.1], [0.3, -0.1, 1.0]])
MEAN = np.array([0.5, -1.0, 2.0])


def normal(n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).multivariate_normal(MEAN, COVARIANCE, n)


def holes(x: Floats, share: float, seed: int) -> Floats:
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def cells(z: Floats, places: NDArray[np.int64] | None = None) -> Cells:
    places = np.zeros((len(z), 0), dtype=np.int64) if places is None else places
    return Cells(z, places, np.zeros(z.shape, dtype=bool))


def uniform(mixture: IncompleteMixture, n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((n, mixture.draws))


@pytest.fixture(scope="module")
def fitted() -> IncompleteMixture:
    mixture = IncompleteMixture(3)
    mixture.fit(cells(holes(normal(6000, 0), 0.3, 1)))
    return mixture


def test_a_normal_is_found_from_a_third_less_cells(fitted: IncompleteMixture) -> None:
    assert len(fitted.means) == 1
    np.testing.assert_allclose(fitted.means[0], MEAN, atol=0.06)
    np.testing.assert_allclose(fitted.covariances[0], COVARIANCE, atol=0.06)


def test_complete_rows_give_the_moments_of_the_rows() -> None:
    mixture, x = IncompleteMixture(3), normal(500, 3)
    mixture.fit(cells(x))
    np.testing.assert_allclose(mixture.means[0], x.mean(0), atol=1e-9)
    np.testing.assert_allclose(mixture.covariances[0], np.cov(x.T, ddof=0), atol=2e-3)


def test_missing_numbers_are_drawn_from_the_conditional_normal(fitted: IncompleteMixture) -> None:
    n = 20_000
    row = np.array([1.5, np.nan, 1.0])
    done, log_q = fitted.complete(cells(np.tile(row, (n, 1))), uniform(fitted, n))
    mean, covariance = fitted.means[0].numpy(), fitted.covariances[0].numpy()
    known = [0, 2]
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known, 1])
    centre = mean[1] + gain @ (row[known] - mean[known])
    spread = np.sqrt(covariance[1, 1] - gain @ covariance[known, 1])
    drawn = done.z[:, 1]
    assert stats.kstest(drawn, "norm", args=(centre, spread)).pvalue > 1e-3
    np.testing.assert_allclose(log_q, stats.norm.logpdf(drawn, centre, spread), atol=1e-6)
    np.testing.assert_array_equal(done.z[:, known], np.tile(row[known], (n, 1)))


def test_wider_draws_have_the_density_that_they_say(fitted: IncompleteMixture) -> None:
    n = 40_000
    row = np.array([np.nan, -1.0, np.nan])
    done, log_q = fitted.complete(cells(np.tile(row, (n, 1))), uniform(fitted, n), wider=True)
    # Importance weights of the normal itself, given the number that is there, have the mean 1.
    mean, covariance = fitted.means[0].numpy(), fitted.covariances[0].numpy()
    joint = stats.multivariate_normal(mean, covariance).logpdf(done.z)
    weights = np.exp(joint - stats.norm.logpdf(-1.0, mean[1], covariance[1, 1] ** 0.5) - log_q)
    assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / n**0.5)
    assert weights.std() > 0.05


def test_cells_without_a_number_are_not_filled_nor_counted(fitted: IncompleteMixture) -> None:
    z = np.array([[1.0, np.nan, np.nan]])
    absent = np.array([[False, False, True]])
    places = np.zeros((1, 0), dtype=np.int64)
    done, log_q = fitted.complete(Cells(z, places, absent), uniform(fitted, 1))
    assert np.isnan(done.z[0, 2]) and np.isfinite(done.z[0, 1])
    alone, other = fitted.complete(cells(z[:, :]), uniform(fitted, 1))
    assert np.isfinite(alone.z).all() and other[0] != log_q[0]


def test_categories_and_numbers_tell_of_one_another() -> None:
    rng = np.random.default_rng(0)
    n = 6000
    level = rng.integers(0, 3, n)
    z = (3.0 * level + rng.normal(size=n))[:, None]
    places = np.where(rng.random(n) < 0.3, -1, level)[:, None]
    mixture = IncompleteMixture(1, {"a": [0.0, 1.0, 2.0]})
    mixture.fit(cells(np.where(rng.random((n, 1)) < 0.2, np.nan, z), places))
    unknown = np.full((3000, 1), -1)
    done, log_q = mixture.complete(cells(np.full((3000, 1), 6.0), unknown), uniform(mixture, 3000))
    # Bayes: 6 is the mean of the last level, 3 away from the middle one.
    share = 1 / (1 + np.exp(-4.5))
    assert (done.places[:, 0] == 2).mean() == pytest.approx(share, abs=0.05)
    np.testing.assert_allclose(np.exp(log_q[done.places[:, 0] == 2]), (done.places == 2).mean(), atol=0.05)
    given = np.ones((3000, 1), dtype=np.int64)
    numbers = mixture.complete(cells(np.full((3000, 1), np.nan), given), uniform(mixture, 3000))[0].z
    assert numbers.mean() == pytest.approx(3, abs=0.2)


def test_a_row_is_completed_alike_alone_and_among_others(fitted: IncompleteMixture) -> None:
    z, chosen = holes(normal(60, 5), 0.4, 6), uniform(fitted, 60)
    done, log_q = fitted.complete(cells(z), chosen)
    for row in (0, 17, 59):
        alone, own = fitted.complete(cells(z[[row]]), chosen[[row]])
        np.testing.assert_allclose(alone.z[0], done.z[row], atol=1e-12)
        np.testing.assert_allclose(own[0], log_q[row], atol=1e-9)


def test_other_rows_numbers_fill_gaps() -> None:
    x = holes(normal(300, 0), 0.3, 1)
    filled = fill_by_others(x, np.random.default_rng(0))
    there = ~np.isnan(x)
    np.testing.assert_array_equal(filled[there], x[there])
    assert all(np.isin(filled[:, j], x[there[:, j], j]).all() for j in range(3))
