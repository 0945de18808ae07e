"""Mixtures of normals that are predicted, against scipy, quadrature and draws."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from flowbench.models.series.noise import Noise
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


def test_draws_take_each_component_by_its_weight(found: Prediction) -> None:
    """Systematic resampling: the counts are off by less than one, and the rest is the normal noise."""

    class Zero(Noise):
        def normal(self, *shape: int) -> torch.Tensor:
            return torch.zeros(found.means.shape[1], *shape, dtype=torch.float64)

    drawn = found.resampled(40, Zero())
    assert drawn.shape == (40, *found.means.shape[1:])
    for cell in CELLS:
        weights, means, _ = parts(found, cell)
        own = drawn[(slice(None), *cell)].numpy()
        for weight, mean in zip(weights, means, strict=True):
            assert abs((own == mean).sum() - 40 * weight) < 1
