"""Gaussian mixtures of rows with whole-numbered weights, against those of repeated rows."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from flowbench.statistics.gaussian_mixtures import fit_components, refine_components, search_components


def clouds(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two clouds, (n, 2), and weights from 1 to 4 that follow the second column."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 2)) + 5 * rng.integers(2, size=n)[:, None]
    return rows, 1.0 + np.clip(np.rint(rows[:, 1] / 2), 0, 3)


def start() -> GaussianMixture:
    mixture = GaussianMixture(2)
    mixture.weights_ = np.array([0.5, 0.5])
    mixture.means_ = np.array([[1.0, 0.0], [4.0, 6.0]])
    mixture.precisions_ = np.stack([np.eye(2), np.eye(2)])
    return mixture


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_a_weighted_step_is_that_of_repeated_rows(scale: float) -> None:
    rows, weights = clouds()
    for steps in (1, 4):
        # As many rows as these get the same, largest, variance added.
        found = refine_components(start(), rows, steps, threads=1, weights=scale * weights)
        expected = refine_components(start(), np.repeat(rows, weights.astype(int), 0), steps, threads=1)
        assert found.weights_ == pytest.approx(expected.weights_)
        assert found.means_ == pytest.approx(expected.means_)
        assert found.covariances_ == pytest.approx(expected.covariances_, abs=1e-4)
        assert found.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-3)


def test_one_component_has_the_weighted_moments() -> None:
    rows, weights = clouds()
    found = fit_components(rows, 1, threads=1, added=1e-9, weights=weights)
    assert found.means_[0] == pytest.approx(np.average(rows, axis=0, weights=weights))
    covariance = np.cov(rows.T, aweights=weights, ddof=0) + 1e-9 * np.eye(2)
    assert found.covariances_[0] == pytest.approx(covariance)


def test_the_search_finds_the_shares_of_weighted_clouds() -> None:
    rows, _ = clouds(2000)
    upper = rows.sum(1) > 5
    weights = np.where(upper, 3.0, 1.0)
    found = search_components(rows, range(1, 5), threads=1, weights=weights)
    assert found.n_components == 2
    share = weights[upper].sum() / weights.sum()
    assert found.weights_[found.means_.sum(1).argmax()] == pytest.approx(share, abs=0.01)


def test_equal_weights_give_the_mixture_without_weights() -> None:
    rows, _ = clouds()
    plain = search_components(rows, range(1, 4), threads=1)
    found = search_components(rows, range(1, 4), threads=1, weights=np.full(len(rows), 7.0))
    assert found.means_ == pytest.approx(plain.means_)
    assert found.covariances_ == pytest.approx(plain.covariances_)
