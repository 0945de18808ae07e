"""The autoregressive mixture against parts of torch.distributions, and against what its masks promise."""

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from flowbench.models.density import base_log_prob
from flowbench.models.discrete.masked_mixture import MADEOptions, MaskedMixture

COMPONENTS = 3


def moved(features: int, givens: int = 0, scales: int = 2) -> MaskedMixture:
    """A model with other weights than those at the start, float64."""
    generator = torch.Generator().manual_seed(0)
    options = MADEOptions(components=COMPONENTS, hidden=(24, 24), scales=scales)
    model = MaskedMixture(features, options, generator, givens).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def conditional(model: MaskedMixture, x: Tensor, context: Tensor | None) -> MixtureSameFamily:
    """The conditional densities of all columns, by torch.distributions."""
    log_weights, means, deviations = model._normals(x, context)
    return MixtureSameFamily(Categorical(logits=log_weights), Normal(means, deviations))


@pytest.mark.parametrize(("features", "givens"), [(1, 0), (1, 2), (4, 0), (4, 2)])
def test_the_density_is_the_product_of_mixtures(features: int, givens: int) -> None:
    model = moved(features, givens)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, features, dtype=torch.float64, generator=generator)
    context = torch.randn(50, givens, dtype=torch.float64, generator=generator) if givens else None
    expected = conditional(model, x, context).log_prob(x).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.log_prob(x, context=context), expected, rtol=1e-12, atol=1e-12)


def test_a_column_depends_on_those_before_it_alone() -> None:
    model = moved(4, 2)
    x, context = torch.randn(4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    def parameters(x: Tensor, context: Tensor) -> Tensor:
        return torch.stack(model._normals(x[None], context[None]))[:, 0].sum(2)

    by_x, by_context = torch.func.jacrev(parameters, argnums=(0, 1))(x, context)  # (3, d, d), (3, d, c)
    for i in range(4):
        assert (by_x[:, i, i:] == 0).all()
        # The logarithms of weights add up to a number that moves too, as all three parameters do.
        assert (by_x[:, i, :i] != 0).all()
        assert (by_context[:, i] != 0).all()


def test_columns_are_almost_standard_normal_at_the_start() -> None:
    for components in (1, 4, 16):
        options = MADEOptions(components=components)
        model = MaskedMixture(3, options, torch.Generator().manual_seed(0))
        x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
        gap = base_log_prob(x) - model.log_prob(x)
        assert -0.01 < gap.mean().item() < 0.15


@pytest.mark.parametrize("givens", [0, 2])
def test_draws_follow_the_conditionals(givens: int) -> None:
    model = moved(3, givens)
    n = 4000
    context = torch.tensor([[0.4, -1.0]], dtype=torch.float64).expand(n, -1) if givens else None
    with torch.no_grad():
        x, scores = model.draw(n, torch.Generator().manual_seed(2), context=context)
        # The quantile of each value in its own conditional density is uniform (Rosenblatt 1952).
        quantiles = conditional(model, x, context).cdf(x)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(scores.log_prob, model.log_prob(x, context=context))
    for column in quantiles.T:
        assert kstest(column.numpy(), "uniform").pvalue > 0.001


def test_contexts_share_their_random_numbers() -> None:
    model = moved(2, 2)
    context = torch.tensor([[0.0, 1.0], [0.5, -1.0], [0.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        drawn = model.sample_for_each(20, torch.Generator().manual_seed(3), context=context)
        alone = model.sample_for_each(20, torch.Generator().manual_seed(3), context=context[1:2])
    assert torch.equal(drawn[0], drawn[2])
    torch.testing.assert_close(drawn[1:2], alone)


def test_no_octaves_leave_the_columns_themselves() -> None:
    model = moved(2, scales=0)
    assert isinstance(model.network, nn.Module)
    assert next(model.network.parameters()).shape[1] == 2
