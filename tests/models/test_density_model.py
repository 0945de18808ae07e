"""A density over rows of a table: likelihoods of cells, draws, and conditioning on columns."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from flowbench.data.lattice import Lattice
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.background import Background
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.density_model import CHUNK, DensityModel
from flowbench.models.givens import Givens

COLUMNS = ("count", "x")


def normal(features: int = 2) -> GaussianFlow:
    """The standard normal."""
    return GaussianFlow(features, GaussianOptions(), torch.Generator()).double().requires_grad_(False)


def of_cells(step: float = 1.0) -> DensityModel:
    """The standard normal of a column of multiples of `step` and a continuous one."""
    return DensityModel(TableEncoder(COLUMNS, [], Dequantiser(COLUMNS, {"count": Lattice(step)})), normal())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n: int) -> Tensor:
    random = np.random.default_rng(0)
    return torch.tensor(np.stack([random.normal(0, 1, n).round(), random.normal(0, 1, n)], 1))


def test_a_row_is_as_likely_as_its_cell_is_in_the_mean() -> None:
    x = table(2000)
    found = of_cells().score(x).log_prob
    # The mean of (v + u)^2 over a cell of width 1 is v^2 + 1 / 12.
    expected = -0.5 * (x.square().sum(1) + 1 / 12) - np.log(2 * np.pi)
    assert (found - expected).abs().max() < 0.02
    assert (found - expected).mean().abs() < 1e-3
    low, high = (stats.norm.cdf(x[:, 0] + side) for side in (-0.5, 0.5))
    mass = np.log(high - low) + stats.norm.logpdf(x[:, 1])
    # A lower bound of the mass of the cell by its volume.
    assert (found.numpy() <= mass + 0.02).all()


def test_no_method_gives_another_quantity() -> None:
    model, x = of_cells(), table(50)
    expected = torch.stack(
        [model.score_places(model.encoder.spread(x, place, 8)).log_prob for place in range(8)]
    ).mean(0)
    assert torch.equal(model.score(x).log_prob, expected)
    assert torch.equal(model.log_prob(x), expected)
    distribution = model.as_distribution(seeded())
    assert torch.equal(distribution.log_prob(x.reshape(5, 10, 2)), expected.reshape(5, 10))
    assert not torch.allclose(model.score_places(x).log_prob, expected)


def test_draws_are_rows_of_the_table_with_their_own_likelihoods() -> None:
    model = of_cells(0.5)
    n = CHUNK + 7
    places, at_places = model.draw_places(n, seeded())
    assert torch.equal(model.score_places(places).log_prob, at_places.log_prob)
    x, scores = model.draw(n, seeded())
    assert torch.equal(x, model.encoder.restore(places)) and torch.equal(x[:, 1], places[:, 1])
    assert torch.equal(2 * x[:, 0], (2 * x[:, 0]).round()) and not torch.equal(x, places)
    assert torch.equal(scores.log_prob, model.log_prob(x))
    assert torch.equal(model.sample(n, seeded()), x)
    for one, other in zip(model.sample_and_log_prob(n, seeded()), (x, scores.log_prob), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model.as_distribution(seeded()).sample((n,)), x)


def test_where_all_columns_are_continuous_a_place_is_a_row() -> None:
    model, x = DensityModel(TableEncoder(COLUMNS), normal()), table(20) + 0.3
    assert torch.equal(model.log_prob(x), model.score_places(x).log_prob)
    (drawn, scores), (places, at_places) = model.draw(9, seeded()), model.draw_places(9, seeded())
    assert torch.equal(drawn, places) and torch.equal(scores.log_prob, at_places.log_prob)


def conditional(background: Background | None = None) -> DensityModel:
    """A normal of (count, x) whose means are those of two givens, standardised."""
    names = ("dose", "age")
    standardise = Standardise(names, StandardiseOptions())
    encoder = TableEncoder(names, [standardise])
    contexts = torch.tensor(np.random.default_rng(1).normal([5, 40], [2, 10], (500, 2)))
    givens = Givens(encoder)
    givens.fit(contexts)
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator(), 2).double().requires_grad_(False)
    flow.slopes.copy_(torch.eye(2))
    cells = Dequantiser(COLUMNS, {"count": Lattice(0.5)})
    return DensityModel(TableEncoder(COLUMNS, [], cells), flow, background, givens)


def test_what_is_given_reaches_the_flow_and_its_units_cost_nothing() -> None:
    model, n = conditional(), CHUNK + 5
    context = torch.tensor(np.random.default_rng(2).normal([5, 40], [2, 10], (n, 2)))
    assert model.givens is not None
    means = model.givens.to_model(context)
    x = table(n)
    # Only the distance to the means counts: no log-determinant of the givens' own units.
    expected = stats.norm.logpdf(x - means).sum(1)
    assert model.score_places(x, context=context).log_prob.numpy() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(model.log_prob(x, context=context), model.score(x, context=context).log_prob)
    drawn, scores = model.draw(n, seeded(), context=context)
    assert torch.equal(scores.log_prob, model.log_prob(drawn, context=context))
    noise = normal().draw(CHUNK, seeded())[0]
    places = model.draw_places(n, seeded(), context=context)[0]
    assert torch.allclose(places[:CHUNK], noise + means[:CHUNK])
    evaluated = conditional().for_evaluation(StandardiseOptions())
    assert torch.equal(evaluated.log_prob(x, context=context), model.log_prob(x, context=context))


def test_rows_of_the_background_keep_what_they_are_given() -> None:
    background = Background(2, 2)
    background.mixture.fit(table(50), context=torch.randn(50, 2, generator=seeded()).double())
    background.share.fill_(0.5)
    model = conditional(background)
    context = 10 * torch.tensor(np.random.default_rng(2).normal(size=(200, 2)))
    places, scores = model.draw_places(200, seeded(), context=context)
    assert torch.allclose(scores.log_prob, model.score_places(places, context=context).log_prob)


def test_draws_for_each_context_share_their_random_numbers_over_all_chunks() -> None:
    background = Background(2, 2)
    background.mixture.fit(table(50), context=torch.randn(50, 2, generator=seeded()).double())
    background.share.fill_(0.3)
    background.normal_share.fill_(0.2)
    model, m = conditional(background), CHUNK // 2 + 1
    context = torch.tensor(np.random.default_rng(2).normal([5, 40], [2, 10], (6, 2)))
    together = model.sample_places_for_each(m, seeded(), context=context)
    assert together.shape == (6, m, 2)
    for own, draws in zip(context, together, strict=True):
        assert torch.equal(model.sample_places_for_each(m, seeded(), context=own[None])[0], draws)
        # Draws that are independent have the same density.
        others = model.draw_places(2000, seeded(7), context=own.expand(2000, -1))[0]
        for column in range(2):
            assert stats.ks_2samp(draws[:, column].numpy(), others[:, column].numpy()).pvalue > 1e-4
    rows = model.sample_for_each(m, seeded(), context=context)
    assert torch.equal(rows[..., 1], together[..., 1]) and torch.equal(rows[..., 0] % 0.5, 0 * rows[..., 0])
    assert model.sample_for_each(3, seeded(), context=context[:0]).shape == (0, 3, 2)
    with pytest.raises(ConfigurationError, match="given no columns"):
        of_cells().sample_for_each(3, seeded(), context=context)


def test_a_model_that_still_has_gradients_can_be_drawn_from() -> None:
    """As `load_model` gives it, in the middle of training."""
    background = Background(2, 2)
    background.mixture.fit(table(50), context=torch.randn(50, 2, generator=seeded()).double())
    background.share.fill_(0.3)
    model = conditional(background).requires_grad_(True)
    context = torch.tensor(np.random.default_rng(2).normal([5, 40], [2, 10], (6, 2)))
    assert not model.sample_for_each(50, seeded(), context=context).requires_grad
    assert not model.sample(6, seeded(), context=context).requires_grad


def test_a_context_is_refused_where_there_are_no_givens_and_asked_for_where_there_are() -> None:
    x, context = table(4), torch.zeros(4, 2)
    with pytest.raises(ConfigurationError, match="given no columns, so it takes no `context`"):
        of_cells().log_prob(x, context=context)
    model = conditional()
    for attempt in (
        lambda: model.log_prob(x),
        lambda: model.draw(4, seeded()),
        lambda: model.sample(4, seeded()),
    ):
        with pytest.raises(
            ConfigurationError, match="needs a `context`: the values of dose, age for each row"
        ):
            attempt()
    with pytest.raises(ConfigurationError, match=r"must have shape \(4, 2\), .* got \(3, 2\)"):
        model.log_prob(x, context=context[:3])
    with pytest.raises(ConfigurationError, match="that a density is given are not dequantised"):
        DensityModel(TableEncoder(COLUMNS), normal(), givens=Givens(of_cells().encoder))


def test_no_rows_have_no_likelihoods() -> None:
    for model in (of_cells(), DensityModel(TableEncoder(COLUMNS), normal())):
        assert model.log_prob(torch.zeros(0, 2)).shape == (0,)
