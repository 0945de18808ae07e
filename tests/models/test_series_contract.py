"""What holds for every model of series in the registry."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from small_series import EXACT, VARIANTS, Series, evaluated, fresh, noise_of, ragged, scattered
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.noise import BatchNoise
from flowbench.models.series.series_model import SeriesModel
from flowbench.registry import OBJECTIVES

DRAWS = 4
#: Rounding, which weights of a model and small scales make larger.
RTOL, ATOL = 1e-10, 1e-9
every_model = pytest.mark.parametrize(("name", "values"), VARIANTS, ids=str)
every_exact_model = pytest.mark.parametrize(("name", "values"), EXACT, ids=str)
TIMES = torch.tensor([[-0.5, 0.3, 1.0, 2.5]], dtype=torch.float64)


def bits(*tensors: Tensor) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@every_model
def test_shapes_and_finite_numbers(name: str, values: dict[str, Any]) -> None:
    """Also before time 0 and beyond 1, and for a single column and a single series."""
    for features in (1, 3):
        model = evaluated(name, features, **values)
        for series in (ragged(features), ragged(features)[2:3]):
            n = len(series)
            batch = SeriesBatch.of(series)
            scores = model.score(batch, noise_of(model, range(n)), DRAWS)
            assert scores.log_prob.shape == (n,)
            assert scores.log_prob.isfinite().all()
            assert (scores.standard_error is None) == model.is_exact
            found = model.predict(batch, TIMES.expand(n, -1), noise_of(model, range(n)), DRAWS)
            assert found.mean.shape == (n, 4, features)
            assert found.log_weights.logsumexp(0).numpy() == pytest.approx(np.zeros(n))
            assert found.mean.isfinite().all() and (found.scales > 0).all()
            assert found.log_prob(found.mean).isfinite().all()
            drawn = model.sample(TIMES.expand(n, -1), noise_of(model, range(n)))
            assert drawn.shape == (n, 4, features)
            assert drawn.isfinite().all()


@every_model
def test_a_series_does_not_depend_on_the_others(name: str, values: dict[str, Any]) -> None:
    """Scored and predicted alone, among others, in another order, or in a batch that is longer."""
    check_independence(evaluated(name, **values), ragged())


@pytest.mark.parametrize("name", ["ode-rnn", "latent-ode"])
def test_nor_does_it_with_an_adaptive_solver(name: str) -> None:
    """Its steps depend on all rows of a batch in training, which likelihoods that are reported must not."""
    adaptive = {"name": "native", "method": "dopri5", "atol": 1e-6, "rtol": 1e-6}
    values: dict[str, Any] = {"integrator": adaptive}
    if name == "latent-ode":
        values = {"recognition": "ode-rnn", "recognition_integrator": adaptive}
    check_independence(evaluated(name, **values), [ragged()[i] for i in (0, 2, 3)])


def check_independence(model: SeriesModel, series: Series) -> None:
    n = len(series)
    every = TIMES.expand(n, -1)
    whole = SeriesBatch.of(series)
    scores = model.score(whole, noise_of(model, range(n)), DRAWS).log_prob
    found = model.predict(whole, every, noise_of(model, range(n)), DRAWS)
    order = list(np.random.default_rng(0).permutation(n))
    turned = SeriesBatch.of([series[i] for i in order])
    again = model.score(turned, noise_of(model, order), DRAWS).log_prob
    torch.testing.assert_close(again, scores[order], rtol=RTOL, atol=ATOL)
    longer = padded(whole, 4)
    again = model.score(longer, noise_of(model, range(n)), DRAWS).log_prob
    torch.testing.assert_close(again, scores, rtol=RTOL, atol=ATOL)
    after = model.predict(longer, every, noise_of(model, range(n)), DRAWS)
    torch.testing.assert_close(after.means, found.means, rtol=RTOL, atol=ATOL)
    for i, each in enumerate(series):
        alone = SeriesBatch.of([each])
        own = model.score(alone, noise_of(model, [i]), DRAWS).log_prob
        torch.testing.assert_close(own, scores[i : i + 1], rtol=RTOL, atol=ATOL)
        its = model.predict(alone, TIMES, noise_of(model, [i]), DRAWS)
        torch.testing.assert_close(its.means, found.means[:, i : i + 1], rtol=RTOL, atol=ATOL)
        torch.testing.assert_close(its.scales, found.scales[:, i : i + 1], rtol=RTOL, atol=ATOL)


def padded(batch: SeriesBatch, more: int) -> SeriesBatch:
    """The same series in tensors that are longer."""
    n, _, d = batch.values.shape
    return SeriesBatch(
        torch.cat([batch.times, batch.times[:, -1:].expand(-1, more)], 1),
        torch.cat([batch.values, batch.values.new_zeros(n, more, d)], 1),
        torch.cat([batch.observed, torch.zeros(n, more, d, dtype=torch.bool)], 1),
        batch.lengths,
    )


@every_model
def test_draws_of_a_series_do_not_depend_on_the_others(name: str, values: dict[str, Any]) -> None:
    model = evaluated(name, **values)
    times = torch.stack([TIMES[0], TIMES[0] / 2 + 0.1, TIMES[0] * 3])
    drawn = model.sample(times, noise_of(model, range(3)))
    for i in range(3):
        alone = model.sample(times[i : i + 1], noise_of(model, [i]))
        torch.testing.assert_close(alone, drawn[i : i + 1], rtol=RTOL, atol=ATOL)


@every_model
def test_cells_that_were_not_observed_have_no_part(name: str, values: dict[str, Any]) -> None:
    """What stands beyond the end of a series does not matter, and a missing cell is not a zero."""
    model, series = evaluated(name, **values), ragged()
    whole = SeriesBatch.of(series)
    n = len(series)
    scores = model.score(whole, noise_of(model, range(n)), DRAWS).log_prob
    beyond = ~whole.present[..., None] & torch.ones_like(whole.observed)
    spoilt = copy.copy(whole)
    object.__setattr__(spoilt, "values", torch.where(beyond, 1e3, whole.values))
    again = model.score(spoilt, noise_of(model, range(n)), DRAWS).log_prob
    torch.testing.assert_close(again, scores, rtol=RTOL, atol=ATOL)
    zeros = SeriesBatch.of([(times, cells.nan_to_num(0.0)) for times, cells in series])
    other = model.score(zeros, noise_of(model, range(n)), DRAWS).log_prob
    assert (other - scores)[0].abs() > 1e-3


@every_model
def test_gradients_are_those_of_finite_differences(name: str, values: dict[str, Any]) -> None:
    steps = {"name": "native", "method": "rk4", "steps": 6}
    fixed = {"integrator": steps} if name in ("latent-ode", "ode-rnn") else {}
    model = scattered(name, **{**values, **fixed}).double()
    batch = SeriesBatch.of(ragged())

    def loss() -> Tensor:
        noise = BatchNoise(len(batch), torch.Generator().manual_seed(5), model.like)
        return model.score(batch, noise, 2).log_prob.sum()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(6)
    directions = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in parameters]
    slope = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
    ends = []
    for sign in (1e-5, -2e-5):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * direction)
            ends.append(float(loss()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@every_model
def test_every_parameter_gets_a_gradient_from_the_default_objective(
    name: str, values: dict[str, Any]
) -> None:
    model = fresh(name, **values)
    (phase,) = model.default_phases
    objective_class = OBJECTIVES.get(phase["objective"])
    objective = objective_class(objective_class.Options())
    objective.check(model)
    batch = SeriesBatch.of(ragged(dtype=torch.float32))
    objective(model, batch, torch.Generator().manual_seed(1)).total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key
        assert parameter.grad.isfinite().all(), key


@every_model
def test_the_generator_alone_decides(name: str, values: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    one, same, other = (fresh(name, seed=seed, **values) for seed in (1, 1, 2))
    assert bits(*one.parameters()) == bits(*same.parameters())
    if name != "gp":  # starts at fixed hyperparameters
        assert bits(*one.parameters()) != bits(*other.parameters())
    batch = SeriesBatch.of(ragged(dtype=torch.float32))
    n = len(batch)
    times = TIMES.float().expand(n, -1)
    with torch.no_grad():
        for model in (one, same):
            model.score(batch, noise_of(model, range(n)), 2)
        drawn = [model.sample(times, noise_of(model, range(n))) for model in (one, same)]
        seen = [model.predict(batch, times, noise_of(model, range(n)), 3).means for model in (one, same)]
    assert bits(drawn[0], seen[0]) == bits(drawn[1], seen[1])
    assert drawn[0].dtype == torch.float32
    assert torch.equal(state, torch.get_rng_state())


@every_model
def test_a_state_dict_holds_the_whole_model(name: str, values: dict[str, Any]) -> None:
    model, other = scattered(name, **values), fresh(name, seed=9, **values)
    other.load_state_dict(model.state_dict())
    batch = SeriesBatch.of(ragged(dtype=torch.float32))
    with torch.no_grad():
        scores = [each.score(batch, noise_of(each, range(len(batch))), 2).log_prob for each in (model, other)]
    assert bits(scores[0]) == bits(scores[1])


@every_model
def test_a_copy_for_evaluation_leaves_the_model_as_it_is(name: str, values: dict[str, Any]) -> None:
    model = scattered(name, **values)
    weights, options = bits(*model.parameters()), copy.deepcopy(model.options)
    batch = SeriesBatch.of(ragged(dtype=torch.float32))
    with torch.no_grad():
        before = model.score(batch, noise_of(model, range(len(batch)))).log_prob
        exact = evaluated(name, **values)
        precise = exact.score(batch.each(Tensor.double), noise_of(exact, range(len(batch)))).log_prob
        after = model.score(batch, noise_of(model, range(len(batch)))).log_prob
    assert bits(before, *model.parameters()) == bits(after, *model.parameters())
    assert bits(*model.parameters()) == weights and model.options == options
    # The solver of training is a rough one.
    torch.testing.assert_close(before.double(), precise, rtol=0.1, atol=0.1)


@every_model
def test_what_does_not_fit_is_refused(name: str, values: dict[str, Any]) -> None:
    model = evaluated(name, 3, **values)
    batch = SeriesBatch.of(ragged(2))
    with pytest.raises(ConfigurationError, match="of 3 columns, and the series have 2"):
        model.score(batch, noise_of(model, range(6)))
    with pytest.raises(ConfigurationError, match="a row for each of 6 series"):
        model.predict(SeriesBatch.of(ragged(3)), TIMES, noise_of(model, range(6)))
    with pytest.raises(ConfigurationError, match="at least one column"):
        fresh(name, 0, **values)


# Exact likelihoods.

GRID = torch.linspace(-15, 15, 151, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])


def log_density(model: SeriesModel, times: list[float], cells: Tensor) -> Tensor:
    """log p of n series `(n, m)` of one column at the same times."""
    n, m = cells.shape
    at = torch.tensor([times], dtype=torch.float64).expand(n, -1)
    batch = SeriesBatch(at, cells[..., None], ~cells[..., None].isnan(), torch.full((n,), m))
    return model.score(batch, BatchNoise(n, torch.Generator(), model.like)).log_prob


@every_exact_model
@pytest.mark.parametrize("times", [[0.4], [-0.3], [0.1, 0.9], [0.8, 1.7]], ids=str)
def test_densities_integrate_to_one(times: list[float], name: str, values: dict[str, Any]) -> None:
    model = evaluated(name, 1, **values)
    cells = torch.cartesian_prod(*[GRID] * len(times)).view(-1, len(times))
    total = log_density(model, times, cells).exp().sum() * CELL ** len(times)
    assert float(total) == pytest.approx(1, abs=1e-5)


@every_exact_model
def test_predictions_are_the_factors_of_the_likelihood(name: str, values: dict[str, Any]) -> None:
    """log p(x_1, ..., x_m) - log p(x_1, ..., x_{m-1}) is what is predicted of x_m."""
    model = evaluated(name, **values)
    for times, cells in ragged():
        m = len(times)
        if m == 1:
            continue
        last = cells[-1].clone()
        whole, part = SeriesBatch.of([(times, cells)]), SeriesBatch.of([(times[:-1], cells[:-1])])
        found = model.predict(part, times[None, -1:], noise_of(model, [0]), DRAWS)
        terms = found.log_prob(last.nan_to_num(0.0)[None, None])[0, 0]
        expected = (
            model.score(whole, noise_of(model, [0])).log_prob
            - model.score(part, noise_of(model, [0])).log_prob
        )
        torch.testing.assert_close(terms[~last.isnan()].sum()[None], expected, rtol=RTOL, atol=ATOL)


@every_exact_model
def test_predictions_further_ahead_are_marginals(name: str, values: dict[str, Any]) -> None:
    """What is predicted of a cell after another that is not known is the integral over that other."""
    model = evaluated(name, 1, **values)
    times = [0.1, 0.4, 0.9]
    pairs = torch.cartesian_prod(GRID, torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64))
    cells = torch.cat([torch.full((len(pairs), 1), 0.7, dtype=torch.float64), pairs], 1)
    joint = log_density(model, times, cells).view(len(GRID), 3)
    first = log_density(model, times[:1], cells[:1, :1])
    expected = (joint - first).exp().sum(0) * CELL
    seen = SeriesBatch.of([(torch.tensor(times[:1]).double(), cells[:1, :1])])
    ahead = torch.tensor([times[1:]], dtype=torch.float64)
    found = model.predict(seen, ahead, noise_of(model, [0]), 2000)
    at = torch.stack([torch.zeros(3, dtype=torch.float64), pairs[:3, 1]], 1)[..., None]
    several = [found.log_prob(each[None])[0, 1, 0].exp() for each in at]
    assert [float(each) for each in several] == pytest.approx(expected.tolist(), rel=0.04)


@every_exact_model
def test_draws_follow_the_likelihood(name: str, values: dict[str, Any]) -> None:
    """The levels of drawn cells under p(x_1), by quadrature, and under p(x_2 | x_1) are uniform."""
    model = evaluated(name, 1, **values)
    n, times = 1000, [0.2, 0.7]
    at = torch.tensor([times], dtype=torch.float64).expand(n, -1)
    noise = BatchNoise(n, torch.Generator().manual_seed(4), model.like)
    drawn = model.sample(at, noise)
    density = log_density(model, times[:1], GRID[:, None]).exp()
    levels = np.array(np.interp(drawn[:, 0, 0], GRID + CELL / 2, density.cumsum(0) * CELL))
    assert kstest(levels, "uniform").pvalue > 1e-3
    seen = SeriesBatch(at[:, :1], drawn[:, :1], torch.ones(n, 1, 1, dtype=torch.bool), torch.ones(n).long())
    levels = model.predict(seen, at[:, 1:], noise, 1).cdf(drawn[:, 1:]).flatten().numpy()
    assert kstest(levels, "uniform").pvalue > 1e-3


@every_model
def test_predictions_say_whether_they_look_ahead(name: str, values: dict[str, Any]) -> None:
    model = evaluated(name, 1, **values)
    times = torch.tensor([0.2, 0.8], dtype=torch.float64)
    between = torch.tensor([[0.5]], dtype=torch.float64)
    found = [
        model.predict(
            SeriesBatch.of([(times, torch.tensor([[0.1], [later]], dtype=torch.float64))]),
            between,
            noise_of(model, [0]),
            DRAWS,
        ).mean.item()
        for later in (-1.0, 2.0)
    ]
    assert (found[0] != found[1]) == model.looks_ahead
