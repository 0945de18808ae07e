"""Models without gradients, fitted to rows with weights, against repeated rows and formulas."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from flowbench.models.background import Background, best_share
from flowbench.models.classical.boosted_trees import BoostedTrees, BoostedTreesOptions
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.classical.gaussian_mixture import MixtureDensity, MixtureOptions
from flowbench.models.classical.kernel import KernelDensity, KernelOptions
from flowbench.models.mixture import Mixture


def rows(n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (n, 2), a context (n, 1) that moves them, and weights from 1 to 4 that follow the rows."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) + context
    return x, context, 1 + x[:, 0].clamp(0, 3).round()


@pytest.mark.parametrize("is_given", [False, True])
def test_a_gaussian_is_that_of_repeated_rows(is_given: bool) -> None:
    x, context, weights = rows()
    repeats = weights.long()
    found, expected = (
        GaussianFlow(2, GaussianOptions(), torch.Generator(), int(is_given)).double() for _ in range(2)
    )
    found.initialise(x, context=context if is_given else None, weights=0.1 * weights)
    given = context.repeat_interleave(repeats, 0) if is_given else None
    expected.initialise(x.repeat_interleave(repeats, 0), context=given)
    for name, value in expected.state_dict().items():
        assert found.state_dict()[name].numpy() == pytest.approx(value.numpy(), abs=1e-10), name


def test_a_mixture_follows_the_weights() -> None:
    x, _, weights = rows()
    density = MixtureDensity(2, MixtureOptions(max_components=1), torch.Generator())
    density.initialise(x, weights=weights)
    mean, covariance = np.average(x, axis=0, weights=weights), np.cov(x.T, aweights=weights, ddof=0)
    expected = multivariate_normal(mean, covariance).logpdf(x)
    assert density.log_prob(x).numpy() == pytest.approx(expected, abs=2e-3)
    mixture = Mixture(2)
    mixture.fit(x, weights=weights)
    mass = mixture.log_weights.exp() @ mixture.means
    assert mass.numpy() == pytest.approx(mean, abs=1e-3)


def test_a_kernel_density_sums_kernels_by_weights() -> None:
    x, _, weights = rows()
    density = KernelDensity(2, KernelOptions(), torch.Generator()).double()
    density.initialise(x, weights=weights)
    covariance = (density.factor @ density.factor.T).numpy()
    kernels = np.stack([multivariate_normal(row, covariance).logpdf(x.numpy()) for row in x.numpy()], 1)
    expected = logsumexp(kernels, axis=1, b=weights.numpy() / weights.sum().item())
    assert density.log_prob(x).numpy() == pytest.approx(expected, abs=1e-6)
    drawn = density.sample(20_000, torch.Generator().manual_seed(1))
    assert drawn.mean(0).numpy() == pytest.approx(np.average(x, axis=0, weights=weights), abs=0.04)


def test_a_conditional_kernel_density_weighs_near_contexts() -> None:
    x, context, weights = rows()
    density = KernelDensity(2, KernelOptions(), torch.Generator(), 1).double()
    density.initialise(x, context=context, weights=weights)
    at = torch.tensor([[0.3]], dtype=torch.float64)
    apart = (at - context).squeeze(1).numpy() / density.context_width.item()
    near = weights.numpy() * np.exp(-0.5 * apart**2)
    covariance = (density.factor @ density.factor.T).numpy()
    kernels = [multivariate_normal(row, covariance).logpdf(np.ones(2)) for row in x.numpy()]
    expected = logsumexp(kernels, b=near / near.sum())
    point = torch.ones(1, 2, dtype=torch.float64)
    assert density.log_prob(point, context=at).item() == pytest.approx(expected, abs=1e-6)


def test_kernel_widths_are_those_of_rows_that_count() -> None:
    """Rows with next to no weight change nothing, wherever they are."""
    x, _, _ = rows()
    among = torch.cat([x, 30 * x])[torch.randperm(800, generator=torch.Generator().manual_seed(2))]
    far = among.abs().amax(1) > 6
    few = torch.where(far, 1e-12, 1.0).double()
    found, expected = (KernelDensity(2, KernelOptions(), torch.Generator()).double() for _ in range(2))
    found.initialise(among, weights=few)
    expected.initialise(among[~far])
    assert found.log_prob(x).mean().item() == pytest.approx(expected.log_prob(x).mean().item(), abs=0.05)


def test_kernel_densities_from_before_weights_are_loaded() -> None:
    x, _, _ = rows()
    density, again = (KernelDensity(2, KernelOptions(), torch.Generator()).double() for _ in range(2))
    density.initialise(x)
    state = density.state_dict()
    del state["log_weights"]
    again.load_state_dict(state)
    assert torch.equal(again.log_prob(x), density.log_prob(x))


def test_boosted_trees_follow_the_weights() -> None:
    """Two values of y at each of two contexts: their weighted means are known."""
    side = torch.tensor([-1.0, 1.0]).repeat(400)[:, None]
    y = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(200)[:, None]
    noise = 0.1 * torch.randn(800, 1, generator=torch.Generator().manual_seed(0))
    weights = torch.where((y == 1) == (side == 1), 3.0, 1.0).squeeze(1)
    trees = BoostedTrees(
        1, BoostedTreesOptions(stages=200, learning_rate=0.1), torch.Generator().manual_seed(0), 1
    )
    trees.initialise(y + noise, context=side, weights=weights)
    mean = trees.to_data(torch.zeros(2, 1), context=torch.tensor([[-1.0], [1.0]])).value.squeeze(1)
    assert mean.tolist() == pytest.approx([0.25, 0.75], abs=0.08)
    marginal = BoostedTrees(1, BoostedTreesOptions(), torch.Generator())
    marginal.initialise(y, weights=1 + 2 * y.squeeze(1))
    assert marginal.initial[0].exp().tolist() == pytest.approx([np.exp(0.75), (3 / 16) ** 0.5])


def test_the_share_of_a_background_counts_rows_by_weights() -> None:
    first, second = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.arange(50) % 3 + 1
    repeated = best_share(first.repeat_interleave(counts), second.repeat_interleave(counts), 0.5)
    assert best_share(first, second, 0.5, counts.double()) == pytest.approx(repeated)
    x, _, _ = rows(200)
    background = Background(2)
    background.mixture.fit(x)
    flow = torch.full((200,), -3.0)
    equal = background.best_shares(flow, x, None, torch.full((200,), 5.0))
    assert equal == pytest.approx(background.best_shares(flow, x))
    # Where the flow is good on the heavy rows, the background needs less.
    at_heavy = torch.where(x[:, 0] > 0, 0.0, -8.0)
    heavy = torch.where(x[:, 0] > 0, 9.0, 1.0)
    assert background.best_shares(at_heavy, x, None, heavy)[0] < background.best_shares(at_heavy, x)[0]
