"""The background of a density, against scikit-learn, scipy and quadrature."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch import Tensor

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.models.background import Background
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.density import Flow
from flowbench.models.density_model import DensityModel
from flowbench.models.mixture import Mixture
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.training.state import from_arrays, to_arrays


def iris() -> Tensor:
    x = load_iris().data
    return torch.tensor((x - x.mean(0)) / x.std(0))


def background(share: float, normal_share: float = 0.0) -> Background:
    found = Background(4)
    found.mixture.fit(iris())
    found.share.fill_(share)
    found.normal_share.fill_(normal_share)
    return found


def narrow_flow() -> GaussianFlow:
    """A normal a tenth as wide as the rows, and so wrong about nearly all of them."""
    flow = GaussianFlow(4, GaussianOptions(), torch.Generator())
    with torch.no_grad():
        flow.log_diagonal.fill_(math.log(0.1))
    return flow


def model(share: float) -> DensityModel:
    flow = narrow_flow()
    return DensityModel(TableEncoder("abcd"), flow, background(share)).for_evaluation(PerRowOptions())


def test_a_mixture_of_many_rows_is_as_good_as_all_of_them_make_it() -> None:
    """The 741 numbers of two covariances in 18 columns cost 0.04 nat on the rows of the search alone."""
    generator = torch.Generator().manual_seed(0)

    def clouds(n: int) -> Tensor:
        z = torch.randn(n, 18, generator=generator, dtype=torch.float64)
        return z + 3 * torch.randint(2, (n, 1), generator=generator)

    mixture, held_out = Mixture(18).double(), clouds(20_000)
    mixture.fit(clouds(50_000))
    assert len(mixture.means) == 2
    offset = held_out[..., None] - torch.tensor([0.0, 3.0], dtype=torch.float64)
    true = torch.logsumexp(-0.5 * offset.square().sum(1), 1) - 9 * math.log(2 * math.pi) - math.log(2)
    divergence = true - mixture.log_prob(held_out)
    error = divergence.std() / len(held_out) ** 0.5
    # Half a parameter a row; a divergence below zero would be that of no density.
    assert -4 * error < divergence.mean() < 2 * 379 / (2 * 50_000)


def test_a_mixture_against_scikit_learn(as_sklearn: Callable[[Mixture], GaussianMixture]) -> None:
    mixture = Mixture(4).double()
    mixture.fit(iris())
    oracle = as_sklearn(mixture)
    expected = oracle.score_samples(iris().numpy())
    assert len(mixture.means) > 1
    assert np.abs(mixture.log_prob(iris()).numpy() - expected).max() < 1e-9
    drawn = mixture.sample(100_000, torch.Generator().manual_seed(0)).numpy()
    assert np.abs(np.cov(drawn.T) - np.cov(oracle.sample(100_000)[0].T)).max() < 0.03
    assert drawn.mean(0) == pytest.approx(oracle.weights_ @ oracle.means_, abs=0.02)


def test_three_densities_are_mixed() -> None:
    found = background(0.5, 0.1)
    x = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1).exp()  # type: ignore[no-untyped-call]
    flow = narrow_flow().double().log_prob(x).detach()
    expected = 0.45 * flow.exp() + 0.45 * found.mixture.log_prob(x).exp() + 0.1 * normal
    assert torch.allclose(found.mix(flow, x).exp(), expected, rtol=1e-9)
    assert torch.allclose(found.flow_share(flow, found.mix(flow, x)), 0.45 * flow.exp() / expected, rtol=1e-9)


def test_no_row_is_worth_less_than_the_background_gives_it() -> None:
    x = iris()
    bounded = model(0.01)
    assert bounded.background is not None
    bounded.background.normal_share.fill_(0.02)
    floor = math.log(0.01 * 0.98) + bounded.background.mixture.log_prob(x)
    scores = bounded.log_prob(x)
    assert (bounded.flow.log_prob(x) < floor - 10).any()
    assert (scores >= floor).all()
    assert (scores >= math.log(0.99 * 0.98) + bounded.flow.log_prob(x)).all()


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_the_share_is_the_best_there_is(shift: float) -> None:
    x, found = iris(), background(0.5)
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own = found.mixture.log_prob(x)
    flow = own + shift + 2 * noise

    def loss(share: float) -> float:
        likelihood = torch.logaddexp(math.log1p(-share) + flow, math.log(share) + own).sum().item()
        return -likelihood - 0.5 * math.log(share) - 0.5 * math.log1p(-share)

    best = minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-9})
    found.weigh(flow, x)
    assert found.share.item() == pytest.approx(best.x, rel=1e-3)


def test_the_normal_holds_the_rows_that_both_leave_empty() -> None:
    x = torch.cat([iris(), torch.full((3, 4), 2.0, dtype=torch.float64)])
    x[-3:, 0] = -4.0
    found = background(0.5)
    flow = found.mixture.log_prob(x)
    found.weigh(flow[:-3], iris())
    assert found.normal_share.item() < 0.005
    found.weigh(flow, x)
    # Other rows at the edge take a part of it too.
    assert 3.05 / 153.55 < found.normal_share.item() < 0.03


def test_both_shares_are_the_best_there_are() -> None:
    x, found = iris(), background(0.5)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)  # type: ignore[no-untyped-call]
    mixture = normal + 1 + torch.randn(len(x), generator=torch.Generator().manual_seed(1)).double()
    flow = mixture + 2
    # Rows that only the normal holds: the mixture is no better off for being less wrong than the flow.
    mixture[:5], flow[:5] = -300, -5000
    found.mixture.log_prob = lambda x, context=None: mixture  # type: ignore[method-assign]

    def loss(shares: np.ndarray) -> float:
        share, normal_share = np.exp(shares)
        parts = torch.stack([flow, mixture, normal])
        weights = torch.tensor([(1 - share) * (1 - normal_share), share * (1 - normal_share), normal_share])
        prior = (
            0.5 * np.log(share * (1 - share)) + 0.05 * np.log(normal_share) + 0.5 * np.log1p(-normal_share)
        )
        return -torch.logsumexp(parts + weights.log()[:, None], 0).sum().item() - float(prior)

    best = minimize(loss, np.log([0.1, 0.1]), bounds=[(-15, -1e-6)] * 2, method="L-BFGS-B", tol=1e-14)
    found.weigh(flow, x)
    assert found.share.item() == pytest.approx(np.exp(best.x[0]), rel=1e-2)
    assert found.normal_share.item() == pytest.approx(np.exp(best.x[1]), rel=1e-2)
    assert found.share.item() < 0.01


def test_the_share_counts_the_rows_that_the_flow_misses() -> None:
    x, found = iris(), background(0.5)
    flow = found.mixture.log_prob(x) + 50
    found.weigh(flow, x)
    assert found.share.item() == pytest.approx(0.5 / 151, rel=0.01)
    flow[:15] -= 5000
    found.weigh(flow, x)
    assert found.share.item() == pytest.approx(15.5 / 151, rel=0.01)


def test_samples_come_from_all_and_carry_their_density() -> None:
    mixed = model(0.2)
    assert mixed.background is not None
    mixed.background.normal_share.fill_(0.125)
    x, log_prob = mixed.sample_and_log_prob(5000, torch.Generator().manual_seed(2))
    assert torch.allclose(mixed.log_prob(x), log_prob, atol=1e-9)
    # Nearly all of the flow's rows lie within 0.5 of the middle, and few of the background's.
    outside = (x.norm(dim=1) > 0.5).double().mean().item()
    assert outside == pytest.approx(0.3, abs=0.03)


def test_it_integrates_to_one() -> None:
    found = Background(2)
    found.mixture.fit(iris()[:, :2])
    found.share.fill_(0.2)
    flow: Flow = GaussianFlow(2, GaussianOptions(), torch.Generator())
    mixed = DensityModel(TableEncoder("ab"), flow, found).for_evaluation(PerRowOptions())
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    mass = mixed.log_prob(torch.cartesian_prod(axis, axis)).exp().sum().item() * 0.05**2
    assert mass == pytest.approx(1, abs=1e-6)


def test_saved_and_loaded_with_its_components(tmp_path: Path) -> None:
    mixed = DensityModel(TableEncoder("abcd"), narrow_flow(), background(0.2))
    write_tensors(tmp_path / "model.safetensors", to_arrays(mixed.state_dict()), {})
    loaded = DensityModel(TableEncoder("abcd"), narrow_flow(), Background(4))
    loaded.load_state_dict(from_arrays(read_tensors(tmp_path / "model.safetensors")[0]))
    assert torch.equal(loaded.log_prob(iris()), mixed.log_prob(iris()))


def test_a_flow_that_breaks_down_is_not_hidden() -> None:
    found = background(0.1)
    flow = torch.full((150,), math.nan, dtype=torch.float64)
    found.weigh(flow, iris())
    assert not torch.isfinite(found.mix(flow, iris())).any()
