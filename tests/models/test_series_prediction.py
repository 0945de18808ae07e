"""Mixtures of normals that are predicted, against scipy, quadrature and draws."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from flowbench.models.series.prediction import Prediction

N, K, D = 2, 3, 2


def mixture(components: int) -> Prediction:
    generator = torch.Generator().manual_seed(components)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (components, N, K, D)
    return Prediction(2 * normal(*shape), normal(*shape).exp(), normal(components, N).log_softmax(0))


def parts(found: Prediction, cell: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and scales of the components of one cell."""
    weights = found.log_weights[:, cell[0]].exp().numpy()
    return weights, found.means[:, *cell].numpy(), found.scales[:, *cell].numpy()


@pytest.fixture(params=[1, 2, 7], ids=["one", "two", "seven"])
def found(request: pytest.FixtureRequest) -> Prediction:
    return mixture(request.param)


CELLS = list(np.ndindex(N, K, D))
AT = torch.linspace(-4, 4, N * K * D, dtype=torch.float64).view(N, K, D)


def test_moments_densities_and_levels(found: Prediction) -> None:
    for cell in CELLS:
        weights, means, scales = parts(found, cell)
        x = float(AT[cell])
        assert float(found.mean[cell]) == pytest.approx(weights @ means)
        assert float(found.log_prob(AT)[cell]) == pytest.approx(np.log(weights @ norm.pdf(x, means, scales)))
        assert float(found.cdf(AT)[cell]) == pytest.approx(weights @ norm.cdf(x, means, scales))


@pytest.mark.parametrize("probability", [1e-6, 0.05, 0.5, 0.95, 1 - 1e-9])
def test_quantiles_invert_levels(found: Prediction, probability: float) -> None:
    quantiles = found.quantile(probability)
    for cell in CELLS:
        weights, means, scales = parts(found, cell)
        level = weights @ norm.cdf(float(quantiles[cell]), means, scales)
        assert level == pytest.approx(probability, abs=1e-12, rel=1e-9)


def test_quantiles_of_single_precision_are_no_less_precise(found: Prediction) -> None:
    rough = Prediction(found.means.float(), found.scales.float(), found.log_weights.float())
    for probability in (0.05, 0.5, 0.95):
        found_at, rough_at = found.quantile(probability), rough.quantile(probability)
        assert rough_at.dtype == torch.float32
        torch.testing.assert_close(rough_at.double(), found_at, rtol=1e-4, atol=1e-4)


def test_the_ranked_probability_score_is_its_integral(found: Prediction) -> None:
    """The integral of (F(y) - [y >= x])^2 over y."""
    scores = found.crps(AT)
    for cell in CELLS[::3]:
        weights, means, scales = parts(found, cell)
        x = float(AT[cell])

        def below(y: float, w: np.ndarray = weights, m: np.ndarray = means, s: np.ndarray = scales) -> float:
            return float(w @ norm.cdf(y, m, s)) ** 2

        def above(y: float, w: np.ndarray = weights, m: np.ndarray = means, s: np.ndarray = scales) -> float:
            return float(w @ norm.sf(y, m, s)) ** 2

        expected = quad(below, x - 60, x, limit=200)[0] + quad(above, x, x + 60, limit=200)[0]
        assert float(scores[cell]) == pytest.approx(expected, rel=1e-5)


def test_draws_belong_to_their_components(found: Prediction) -> None:
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(*found.means.shape, generator=generator, dtype=torch.float64)
    drawn = found.draw(noise)
    torch.testing.assert_close((drawn - found.means) / found.scales, noise)


def test_scores_are_those_of_draws(found: Prediction) -> None:
    """E|X - x| - E|X - X'| / 2 by Monte Carlo, with components chosen by their weights."""
    rng = np.random.default_rng(0)
    cell, n = (1, 2, 0), 40_000
    weights, means, scales = parts(found, cell)
    chosen = rng.choice(len(weights), 2 * n, p=weights)
    drawn = rng.normal(means[chosen], scales[chosen])
    x = float(AT[cell])
    terms = np.abs(drawn[:n] - x) - np.abs(drawn[:n] - drawn[n:]) / 2
    assert float(found.crps(AT)[cell]) == pytest.approx(terms.mean(), abs=5 * terms.std() / n**0.5)
    assert float(found.mean[cell]) == pytest.approx(drawn.mean(), abs=5 * drawn.std() / (2 * n) ** 0.5)
