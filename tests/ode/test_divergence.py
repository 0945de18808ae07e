"""Divergence estimators on linear fields, whose divergence is a trace."""

import math

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.ode import divergence
from flowbench.ode.divergence import (
    AutoDivergence,
    AutoDivergenceOptions,
    DivergenceEstimator,
    ExactDivergence,
    ExactDivergenceOptions,
    Hutchinson,
    HutchinsonOptions,
    HutchPlusPlus,
    HutchPlusPlusOptions,
)
from flowbench.ode.integrator import Integrator, State
from flowbench.registry import DIVERGENCES, INTEGRATORS

DRAWS = 20_000
TIME = torch.tensor(0.3, dtype=torch.float64)


class Linear:
    """v(t, x) = (1 + t) A x."""

    has_closed_form_divergence = False

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.features = len(matrix)
        self.products: list[tuple[int, bool]] = []

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return (1 + t) * x @ self.matrix.T

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.products.append((len(tangents), torch.is_grad_enabled()))
        return self.velocity(t, x), self.velocity(t, tangents)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.velocity(t, x), (1 + t) * self.matrix.trace().expand(len(x))


def random_field(features: int, seed: int = 3) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    return Linear(torch.randn(features, features, generator=generator, dtype=torch.float64))


def estimate(estimator: DivergenceEstimator, field: Linear, rows: int, seed: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, field.features, generator=generator, dtype=torch.float64)
    velocity, divergence = estimator.velocity_and_divergence(field, TIME, x, estimator.draw(x, generator))
    torch.testing.assert_close(velocity, field.velocity(TIME, x))
    assert divergence.shape == (rows,)
    return divergence


def test_many_tangents_are_pushed_in_parts_where_no_gradient_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = ExactDivergence(ExactDivergenceOptions())
    whole = random_field(7)
    expected = estimate(exact, whole, 5)
    monkeypatch.setattr(divergence, "TANGENT_NUMBERS", 3 * 35 + 1)
    field = random_field(7)
    with torch.no_grad():
        torch.testing.assert_close(estimate(exact, field, 5), expected)
    assert field.products == [(3, False), (3, False), (1, False)]
    monkeypatch.setattr(divergence, "TANGENT_NUMBERS", 1)
    with torch.no_grad():
        torch.testing.assert_close(estimate(exact, field, 5), expected)
    assert estimate(exact, field, 5).equal(expected)
    assert field.products[-1] == (7, True)


NOISY = [
    Hutchinson(HutchinsonOptions()),
    Hutchinson(HutchinsonOptions(distribution="gaussian")),
    Hutchinson(HutchinsonOptions(probes=4)),
    HutchPlusPlus(HutchPlusPlusOptions(probes=3)),
    HutchPlusPlus(HutchPlusPlusOptions(probes=7)),
]


@pytest.mark.parametrize("estimator", NOISY, ids=lambda e: str(e.options))
@pytest.mark.parametrize("features", [2, 5])
def test_estimators_are_unbiased(estimator: DivergenceEstimator, features: int) -> None:
    field = random_field(features)
    divergence = estimate(estimator, field, DRAWS)
    expected = (1 + TIME) * field.matrix.trace()
    noise = float(divergence.std()) / math.sqrt(DRAWS)
    assert abs(float(divergence.mean() - expected)) < 4 * noise + 1e-9
    assert not estimator.exact


def test_variances_are_those_of_theory() -> None:
    """Gaussian 2 |S|^2, Rademacher 2 (|S|^2 - sum S_ii^2), S the symmetric part; k probes divide by k."""
    field = random_field(5)
    symmetric = (1 + TIME) * (field.matrix + field.matrix.T) / 2
    gaussian = 2 * float(symmetric.square().sum())
    rademacher = gaussian - 2 * float(symmetric.diagonal().square().sum())
    for probes in (1, 3):
        for distribution, expected in (("gaussian", gaussian), ("rademacher", rademacher)):
            estimator = Hutchinson(HutchinsonOptions(distribution=distribution, probes=probes))
            variance = float(estimate(estimator, field, DRAWS).var())
            assert variance == pytest.approx(expected / probes, rel=0.1)
    assert rademacher < gaussian


def test_hutch_plus_plus_beats_hutchinson_on_a_dominated_spectrum() -> None:
    """For the same number of products, where a few directions carry the trace."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    field = Linear(basis @ torch.diag(4.0 ** -torch.arange(12, dtype=torch.float64)) @ basis.T)
    spread = {
        estimator: float(estimate(estimator, field, 2_000).std())
        for estimator in (
            Hutchinson(HutchinsonOptions(probes=9)),
            HutchPlusPlus(HutchPlusPlusOptions(probes=9)),
        )
    }
    hutchinson, hutch_plus_plus = spread.values()
    assert hutch_plus_plus < 0.2 * hutchinson


@pytest.mark.parametrize("estimator", NOISY, ids=lambda e: str(e.options))
def test_cost_is_what_the_options_say(estimator: Hutchinson | HutchPlusPlus) -> None:
    """`probes` products in all; the sketch of hutch++ takes no part in gradients."""
    field = random_field(5)
    estimate(estimator, field, 2)
    assert sum(count for count, _ in field.products) == estimator.options.probes
    *sketches, last = (graph for _, graph in field.products)
    assert last and not any(sketches)


@pytest.mark.parametrize("features, probes", [(1, 3), (2, 6), (3, 11)])
def test_hutch_plus_plus_is_exact_where_its_sketch_spans(features: int, probes: int) -> None:
    field = random_field(features)
    divergence = estimate(HutchPlusPlus(HutchPlusPlusOptions(probes=probes)), field, 50)
    torch.testing.assert_close(divergence, ((1 + TIME) * field.matrix.trace()).expand(50))


def test_hutch_plus_plus_survives_a_field_that_is_zero() -> None:
    divergence = estimate(HutchPlusPlus(HutchPlusPlusOptions()), Linear(torch.zeros(4, 4).double()), 10)
    assert torch.equal(divergence, torch.zeros(10, dtype=torch.float64))


@pytest.mark.parametrize("features", [1, 2, 43])
@pytest.mark.parametrize("closed_form", [True, False])
def test_exact_is_the_trace(features: int, closed_form: bool) -> None:
    field = random_field(features)
    field.has_closed_form_divergence = closed_form
    estimator = ExactDivergence(ExactDivergenceOptions())
    divergence = estimate(estimator, field, 7)
    torch.testing.assert_close(divergence, ((1 + TIME) * field.matrix.trace()).expand(7))
    assert estimator.exact


@pytest.mark.parametrize("name", DIVERGENCES.names())
def test_draws_depend_on_the_generator_alone(name: str) -> None:
    field = random_field(3)
    estimator = DIVERGENCES.get(name)(DIVERGENCES.get(name).Options()).chosen(field)
    x = torch.zeros(6, 3, dtype=torch.float32)
    before = torch.get_rng_state()
    first, again = (estimator.draw(x, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert estimator.describe(field).startswith("estimated" if first is not None else "exact")
    assert estimator.exact == (first is None)
    if estimator.exact:
        assert first is None and again is None
        assert estimator.draw(x, None) is None
        return
    assert torch.equal(first, again) and first.dtype == x.dtype
    assert (first.shape[0], first.shape[2]) == x.shape
    with pytest.raises(ConfigurationError, match="needs a generator"):
        estimator.draw(x, None)


def test_auto_is_exact_where_that_is_in_reach() -> None:
    estimator = AutoDivergence(AutoDivergenceOptions(columns=4))
    narrow, wide, closed = random_field(4), random_field(5), random_field(5)
    closed.has_closed_form_divergence = True
    says = ["exact, by 4 tangents", "estimated, by 1 rademacher probe of Hutchinson", "exact, in closed form"]
    assert [estimator.chosen(field).describe(field) for field in (narrow, wide, closed)] == says
    for field in (narrow, closed):
        expected = ((1 + TIME) * field.matrix.trace()).expand(7)
        torch.testing.assert_close(estimate(estimator.chosen(field), field, 7), expected)
    plain = Hutchinson(HutchinsonOptions())
    assert torch.equal(estimate(estimator.chosen(wide), wide, 7), estimate(plain, wide, 7))
    flow = ContinuousFlow(3, ContinuousOptions(divergence={"name": "auto"}), torch.Generator())
    # What asks for the kind of estimator, as the regularised likelihood does, finds the one that is used.
    assert isinstance(flow.divergence, ExactDivergence)
    with pytest.raises(ConfigurationError, match="`auto` is for training"):
        EvaluationOptions(divergence={"name": "auto"})


class Curved:
    """v(t, x) = sin(3 t) tanh(A x), whose rows are the faster the farther out they lie."""

    has_closed_form_divergence = False
    features = 3
    matrix = 2 * random_field(3).matrix

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.jvp(t, x, x[None])[0]

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        speed, inner = torch.sin(3 * t).reshape(-1, 1), torch.tanh(x @ self.matrix.T)
        return speed * inner, speed * (1 - inner.square()) * (tangents @ self.matrix.T)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@pytest.mark.parametrize("estimator", NOISY, ids=lambda e: str(e.options))
def test_probes_go_with_their_rows(estimator: DivergenceEstimator) -> None:
    """Solves row by row agree with those of the batch, and a row's answer with that of the row alone."""
    generator = torch.Generator().manual_seed(4)
    x = 3 * torch.randn(12, 3, generator=generator, dtype=torch.float64) ** 3
    probes = estimator.draw(x, generator)
    assert probes is not None
    sizes = []

    def solve(name: str, tolerance: float, rows: list[int]) -> State:
        def derivative(t: Tensor, state: State, probes: Tensor) -> State:
            sizes.append(len(probes))
            return estimator.velocity_and_divergence(Curved(), t, state[0], probes)

        kind = INTEGRATORS.get(name)
        integrator: Integrator = kind(kind.Options(atol=tolerance, rtol=tolerance))
        state = x[rows], x.new_zeros(len(rows))
        return integrator.integrate(derivative, state, 1.0, 0.0, args=(probes[rows],)).state

    everything = list(range(12))
    for got, expected in zip(
        solve("per-row", 1e-10, everything), solve("native", 1e-11, everything), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-7)
    sizes.clear()
    together = solve("per-row", 1e-4, everything)
    assert min(sizes) < 12
    for row in (0, 5, 11):
        for got, expected in zip(solve("per-row", 1e-4, [row]), together, strict=True):
            torch.testing.assert_close(got[0], expected[row], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["hutchinson", "hutch++"])
def test_a_flow_is_scored_row_by_row_with_an_estimated_divergence(name: str) -> None:
    flow = ContinuousFlow(3, ContinuousOptions(), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = []
    for engine in ("per-row", "native"):
        given = EvaluationOptions(
            integrator={"name": engine, "atol": 1e-9, "rtol": 1e-9}, divergence={"name": name}
        )
        exact = flow.for_evaluation(given.integrator, divergence=given.divergence)
        with torch.no_grad():
            found.append(exact.log_prob(x, torch.Generator().manual_seed(7)))
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
    with torch.no_grad():
        certain = flow.for_evaluation(given.integrator).log_prob(x)
    assert (found[0] - certain).abs().max() > 1e-3


def test_rademacher_probes_are_signs() -> None:
    probes = Hutchinson(HutchinsonOptions(probes=2)).draw(torch.zeros(500, 3), torch.Generator())
    assert probes.shape == (500, 2, 3)
    assert set(probes.flatten().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("options", [{"probes": 0}, {"distribution": "uniform"}])
def test_impossible_hutchinson_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        HutchinsonOptions(**options)


def test_hutch_plus_plus_needs_three_products() -> None:
    with pytest.raises(ConfigurationError, match="`probes`: must be greater than or equal to 3; got 2"):
        HutchPlusPlusOptions(probes=2)
