"""Contract of every velocity field: products and divergences against autodiff, seeding, time, gradients."""

import copy
from typing import cast

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.continuous.fields.activations import ACTIVATIONS, ActivationName
from flowbench.models.continuous.fields.concatsquash import (
    ConcatSquash,
    ConcatSquashLinear,
    ConcatSquashOptions,
)
from flowbench.models.continuous.fields.time_mlp import TimeMLP, TimeMLPOptions
from flowbench.models.continuous.fields.velocity_field import VelocityField
from flowbench.models.seeded_layers import seeded_linear
from flowbench.ode.divergence import (
    DivergenceEstimator,
    ExactDivergence,
    ExactDivergenceOptions,
    Hutchinson,
    HutchinsonOptions,
    HutchPlusPlus,
    HutchPlusPlusOptions,
)
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions
from flowbench.registry import FIELDS

VARIANTS: dict[str, list[dict[str, object]]] = {
    "time-mlp": [
        {"width": 16},
        {"width": 16, "scales": 0},
        {"width": 8, "octaves": 0, "scales": 2},
        {"width": 8, "scales": 2, "frames": 3},
        {"width": 16, "scales": 2, "aside": False},
        {"width": 8, "scales": 2, "aside": True},
        {"width": 8, "scales": 2, "frames": 3, "aside": True},
    ],
    "concatsquash": [
        {"hidden": (9, 7), "activation": "tanh"},
        {"hidden": (6,), "activation": "softplus", "time_length": 1.0},
        {"hidden": (5, 5, 5), "activation": "elu"},
        {"hidden": (3,), "activation": "silu", "per_feature": True},
    ],
    "hypernetwork": [{"width": 5, "hidden": 7}],
    "potential": [{"width": 7}, {"width": 5, "layers": 4, "rank": 1}],
}
CASES = [(name, values) for name in FIELDS.names() for values in VARIANTS.get(name, [{}])]
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.func.jvp's
each_field = pytest.mark.parametrize("name, values", CASES, ids=str)
EXACT = ExactDivergence(ExactDivergenceOptions())


def build(
    name: str, values: dict[str, object], features: int, seed: int = 0, noise: float = 0.3
) -> VelocityField:
    """The field in float64; `noise` moves every parameter, as some start at zero."""
    generator = torch.Generator().manual_seed(seed)
    kind = FIELDS.get(name)
    field: VelocityField = kind(features, kind.Options(**values), generator).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return field


def rows(features: int, count: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """One time per row, ends included, and the rows."""
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 * torch.randn(count, features, generator=generator, dtype=torch.float64)
    return torch.linspace(0, 1, count, dtype=torch.float64), x


def jacobian(field: VelocityField, t: Tensor, x: Tensor) -> Tensor:
    """dv/dx (n, d, d) by reverse-mode autodiff, row by row."""
    one = torch.func.jacrev(lambda time, row: field.velocity(time, row[None])[0], argnums=1)
    found: Tensor = torch.func.vmap(one)(t, x)
    return found


@each_field
@pytest.mark.parametrize("features", [1, 2, 43])
def test_divergence_equals_autodiff(name: str, values: dict[str, object], features: int) -> None:
    field = build(name, values, features)
    t, x = rows(features)
    expected = jacobian(field, t, x).diagonal(dim1=1, dim2=2).sum(1)
    velocity, divergence = EXACT.velocity_and_divergence(field, t, x, None)
    torch.testing.assert_close(velocity, field.velocity(t, x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(divergence, expected, atol=1e-9, rtol=1e-9)
    assert divergence.shape == (len(x),)


@each_field
@pytest.mark.parametrize("features", [1, 3])
def test_jvp_equals_autodiff(name: str, values: dict[str, object], features: int) -> None:
    field = build(name, values, features)
    t, x = rows(features)
    tangents = torch.randn(4, *x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for jvp in (field.jvp, super(type(field), field).jvp):  # type: ignore[misc]
        velocity, pushed = jvp(t, x, tangents)
        torch.testing.assert_close(velocity, field.velocity(t, x), atol=1e-12, rtol=1e-12)
        for got, tangent in zip(pushed, tangents, strict=True):
            expected = torch.func.jvp(lambda y: field.velocity(t, y), (x,), (tangent,))[1]
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@each_field
def test_scalar_time_equals_time_per_row(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 3)
    _, x = rows(3)
    tangents = x.flip(0)[None].repeat(2, 1, 1)
    for moment in (0.0, 0.37, 1.0):
        scalar = torch.tensor(moment, dtype=torch.float64)
        per_row = scalar.expand(len(x))
        torch.testing.assert_close(field.velocity(scalar, x), field.velocity(per_row, x))
        for calls in (
            (field.jvp(scalar, x, tangents), field.jvp(per_row, x, tangents)),
            (
                EXACT.velocity_and_divergence(field, scalar, x),
                EXACT.velocity_and_divergence(field, per_row, x),
            ),
        ):
            for one, other in zip(*calls, strict=True):
                torch.testing.assert_close(one, other)


@each_field
def test_times_of_another_dtype_do_not_change_the_rows(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 2).float()
    _, x = rows(2)
    for t in (torch.tensor(0.5, dtype=torch.float64), torch.full((len(x),), 0.5, dtype=torch.float64)):
        velocity, divergence = EXACT.velocity_and_divergence(field, t, x.float())
        assert velocity.dtype == divergence.dtype == torch.float32


@each_field
def test_rows_do_not_mix(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 3)
    t, x = rows(3)
    velocity, divergence = EXACT.velocity_and_divergence(field, t, x)
    for row in range(len(x)):
        alone = EXACT.velocity_and_divergence(field, t[row : row + 1], x[row : row + 1])
        torch.testing.assert_close(alone[0][0], velocity[row])
        torch.testing.assert_close(alone[1][0], divergence[row])


@each_field
def test_velocity_is_smooth_in_time_up_to_both_ends(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 2)
    _, x = rows(2)
    largest = []
    for steps in (1000, 4000):
        with torch.no_grad():
            times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
            path = torch.stack([field.velocity(t, x) for t in times])
        assert torch.isfinite(path).all()
        largest.append(float(path.diff(dim=0).abs().max()))
    # A jump would stay as large however close the times.
    assert largest[1] < 0.4 * largest[0] or largest[1] < 1e-12


@each_field
def test_every_parameter_gets_a_gradient(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 3)
    t, x = rows(3)
    velocity, divergence = EXACT.velocity_and_divergence(field, t, x)
    (velocity.square().sum() + divergence.square().sum()).backward()  # type: ignore[no-untyped-call]
    for label, parameter in field.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), label


@each_field
def test_weights_come_from_the_generator_alone(name: str, values: dict[str, object]) -> None:
    before = torch.get_rng_state()
    first, same, other = (build(name, values, 3, seed, noise=0.0) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in first.parameters())


@each_field
def test_state_dict_holds_the_whole_field(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 2)
    restored = build(name, values, 2, seed=9, noise=0.0)
    restored.load_state_dict(field.state_dict())
    t, x = rows(2)
    assert torch.equal(restored.velocity(t, x), field.velocity(t, x))
    assert torch.equal(copy.deepcopy(field).velocity(t, x), field.velocity(t, x))


# Gradients of divergences ---------------------------------------------------------------------------


def spanning_probes(estimator: DivergenceEstimator, x: Tensor) -> Tensor | None:
    """Probes with which the estimator is exact: sqrt(d) times the basis for Hutchinson's."""
    if isinstance(estimator, Hutchinson):
        features = x.shape[1]
        basis: Tensor = features**0.5 * torch.eye(features, dtype=x.dtype)
        return basis.expand(len(x), features, features)
    return estimator.draw(x, torch.Generator().manual_seed(0))


@each_field
@pytest.mark.parametrize(
    "estimator",
    [EXACT, Hutchinson(HutchinsonOptions()), HutchPlusPlus(HutchPlusPlusOptions(probes=9))],
    ids=lambda e: e.options.name,
)
def test_gradients_of_divergences_are_those_of_the_trace(
    name: str, values: dict[str, object], estimator: DivergenceEstimator
) -> None:
    field = build(name, values, 3)
    parameters = list(field.parameters())
    t, x = rows(3)
    weights = torch.linspace(-1, 2, len(x), dtype=torch.float64)

    def gradients(divergence: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad((weights * divergence).sum(), parameters, allow_unused=True)

    trace = jacobian(field, t, x).diagonal(dim1=1, dim2=2).sum(1)
    _, divergence = estimator.velocity_and_divergence(field, t, x, spanning_probes(estimator, x))
    torch.testing.assert_close(divergence, trace)
    for got, expected, parameter in zip(gradients(divergence), gradients(trace), parameters, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(
            zero if got is None else got, zero if expected is None else expected, atol=1e-9, rtol=1e-9
        )


@pytest.mark.parametrize(
    "name, values", [case for case in CASES if case[1].get("activation") != "elu"], ids=str
)  # elu's divergence has kinks, at which neither gradient is accurate
def test_likelihood_gradients_by_backprop_and_adjoint_agree(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 2, noise=0.1)
    _, x = rows(2)
    gradients = []
    for gradient in ("backprop", "adjoint"):
        solution = TorchdiffeqIntegrator(
            TorchdiffeqOptions(atol=1e-7, rtol=1e-7, gradient=gradient)
        ).integrate(
            lambda t, state: EXACT.velocity_and_divergence(field, t, state[0]),
            (x, x.new_zeros(len(x))),
            1.0,
            0.0,
            parameters=field.parameters(),
        )
        z, change = solution.state
        loss = (change + 0.5 * z.square().sum(1)).mean()
        gradients.append(torch.autograd.grad(loss, list(field.parameters()), allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@each_field
def test_engines_agree_on_a_likelihood(name: str, values: dict[str, object]) -> None:
    field = build(name, values, 2, noise=0.1)
    _, x = rows(2, count=40)

    def derivative(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return EXACT.velocity_and_divergence(field, t, state[0])

    state = (x, x.new_zeros(len(x)))
    with torch.no_grad():
        one = TorchdiffeqIntegrator(TorchdiffeqOptions(atol=1e-9, rtol=1e-9)).integrate(
            derivative, state, 1.0, 0.0
        )
        other = PerRowIntegrator(PerRowOptions(atol=1e-9, rtol=1e-9)).integrate(derivative, state, 1.0, 0.0)
    for got, expected in zip(one.state, other.state, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


# Single fields --------------------------------------------------------------------------------------


def test_time_mlp_starts_as_the_identity_flow() -> None:
    """v = (2t - 1) / s^2 x carries a standard normal to itself: x(1) = x(0), divergence d (2t - 1) / s^2."""
    field = build("time-mlp", {}, 3, noise=0.0)
    t, x = rows(3)
    drift = (2 * t - 1) / (t.square() + (1 - t).square())
    velocity, divergence = EXACT.velocity_and_divergence(field, t, x)
    torch.testing.assert_close(velocity, drift[:, None] * x)
    torch.testing.assert_close(divergence, 3 * drift)


def test_time_mlp_resolves_the_last_stretch_before_the_data() -> None:
    """1 - t from 1e-2 to 1e-3 is a narrow part of time, but a third of the logarithmic clock."""
    field = TimeMLP(2, TimeMLPOptions(width=8), torch.Generator().manual_seed(0)).double()
    near, nearer = (
        field._at(torch.tensor(1 - gap), torch.zeros(1, 2).double(), None).embedding for gap in (1e-2, 1e-3)
    )
    assert float((near - nearer).detach().abs().max()) > 0.1


@pytest.mark.parametrize("aside", [False, True])
def test_waves_stand_still_far_from_all_data(aside: bool) -> None:
    """A row far out meets a field that a solver follows in long steps."""
    field = build("time-mlp", {"width": 32, "scales": 8, "aside": aside}, 4)
    directions = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = PerRowIntegrator(PerRowOptions(atol=1e-4, rtol=1e-4, max_nfe=100_000))
    nfe = []
    for distance in (1.0, 1000.0):
        with torch.no_grad():
            solution = solver.integrate(
                lambda t, state: (field.velocity(t, state[0]),), (distance * directions,), 1.0, 0.0
            )
        nfe.append(solution.nfe)
    assert nfe[1] < nfe[0]


@pytest.mark.parametrize(
    ("features", "givens", "n", "own", "seen"),
    [
        (2, 1, 40, 3, 3),
        (1, 3, 1000, 2, 2),
        (3, 1, 60_000, 8, 6),
        (2, 1, 20_000, 6, 6),
        (1, 9, 50, 1, 1),
        (1, 9, 19_999, 1, 1),
        (1, 9, 20_000, 6, 3),
    ],
)
@pytest.mark.parametrize("aside", [False, True])
def test_a_conditional_time_mlp_has_the_scales_that_its_rows_resolve(
    features: int, givens: int, n: int, own: int, seen: int, aside: bool
) -> None:
    """k = log2(n) / (1 + c), unless the rows are many; and a field of any size opens again."""
    options = TimeMLPOptions(width=16, aside=aside, mixture_rows=0)

    def make(seed: int) -> TimeMLP:
        return TimeMLP(features, options, torch.Generator().manual_seed(seed), context_features=givens)

    field, loaded, seeded = make(0), make(1), torch.Generator().manual_seed(2)
    x, context = torch.randn(n, features, generator=seeded), torch.randn(n, givens, generator=seeded)
    field.initialise(x, context=context)
    assert len(field.waves.scales) == own and len(field.context_waves.scales) == seen
    assert field.context_first.weight.shape == (16, givens * (1 + 2 * seen))
    # As wide as those of a layer that has so many inputs from the start.
    bound = field.context_first.in_features**-0.5
    assert 0.9 * bound < field.context_first.weight.abs().max() <= 1.001 * bound
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded))
    loaded.load_state_dict(field.state_dict())
    t = torch.tensor(0.3).double()
    few, given = x[:4].double(), context[:4].double()
    field, loaded = field.double(), loaded.double()
    velocity, divergence = EXACT.velocity_and_divergence(field, t, few, context=given)
    assert torch.equal(loaded.velocity(t, few, given), field.velocity(t, few, given))
    torch.testing.assert_close(velocity, field.velocity(t, few, given))
    jacobians = [
        torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            lambda row, own=own: field.velocity(t, row[None], own[None])[0], row
        )
        for row, own in zip(few, given, strict=True)
    ]
    torch.testing.assert_close(divergence, torch.stack([each.trace() for each in jacobians]))


def test_an_optimiser_goes_on_with_a_conditional_field_that_is_loaded() -> None:
    field = TimeMLP(1, TimeMLPOptions(width=8), torch.Generator().manual_seed(0), context_features=2)
    x, context = torch.randn(100, 1), torch.randn(100, 2)
    field.initialise(x, context=context)
    optimiser = torch.optim.SGD(field.parameters(), 1.0)
    field.load_state_dict(copy.deepcopy(field.state_dict()))
    before = {name: each.detach().clone() for name, each in field.named_parameters()}
    field.last.weight.data.fill_(1.0)
    field.velocity(torch.tensor(0.5), x, context).square().sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert all(not torch.equal(each, before[name]) for name, each in field.named_parameters())


def test_scales_that_are_asked_for_stay() -> None:
    options = TimeMLPOptions(width=8, scales=5, context_scales=4, mixture_rows=0)
    field = TimeMLP(1, options, torch.Generator().manual_seed(0), context_features=3)
    field.initialise(torch.randn(50, 1), context=torch.randn(50, 3))
    assert len(field.waves.scales) == 5 and len(field.context_waves.scales) == 4


def layers_of(field: ConcatSquash) -> list[ConcatSquashLinear]:
    return cast(list[ConcatSquashLinear], list(field.layers))


def ffjord_net(field: ConcatSquash, tau: Tensor, x: Tensor) -> Tensor:
    """The network as FFJORD's code writes it, with its own time."""
    for number, layer in enumerate(layers_of(field)):
        gate = torch.sigmoid(layer.gate.weight[:, 0] * tau + layer.gate.bias)
        x = (x @ layer.layer.weight.T + layer.layer.bias) * gate + layer.shift.weight[:, 0] * tau
        if number < len(field.layers) - 1:
            x = torch.tanh(x)
    return x


def test_concatsquash_runs_ffjords_time_backwards() -> None:
    field = build("concatsquash", {"hidden": (8, 8), "time_length": 0.7}, 2)
    assert isinstance(field, ConcatSquash)
    _, x = rows(2)
    for moment in (0.0, 0.25, 1.0):
        t = torch.tensor(moment, dtype=torch.float64)
        expected = -0.7 * ffjord_net(field, 0.7 * (1 - t), x)
        torch.testing.assert_close(field.velocity(t, x), expected)


def test_per_feature_widths_grow_with_the_table() -> None:
    field = ConcatSquash(4, ConcatSquashOptions(hidden=(10,), per_feature=True), torch.Generator())
    assert [layer.layer.out_features for layer in layers_of(field)] == [40, 4]


def test_no_closed_form_is_an_error_not_a_wrong_number() -> None:
    field = build("concatsquash", {}, 2)
    with pytest.raises(NotImplementedError, match="ConcatSquash has no closed form"):
        field.velocity_and_divergence(*rows(2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_know_their_derivatives(name: ActivationName) -> None:
    activation = ACTIVATIONS[name]
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64, requires_grad=True)
    value, slope = activation.value_and_derivative(x)
    (expected,) = torch.autograd.grad(activation.value(x).sum(), x, create_graph=True)
    torch.testing.assert_close(value, activation.value(x))
    torch.testing.assert_close(slope, expected)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    (expected_bend,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(bend, expected_bend)


def test_seeded_linear_is_initialised_as_torch_does() -> None:
    layer = seeded_linear(25, 4000, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    reference = torch.nn.Linear(25, 4000)
    for got, expected in zip(layer.parameters(), reference.parameters(), strict=True):
        assert float(got.detach().abs().max()) == pytest.approx(0.2, rel=1e-3)
        assert float(got.detach().std()) == pytest.approx(float(expected.detach().std()), rel=0.05)


@pytest.mark.parametrize(
    "options, values",
    [
        (TimeMLPOptions, {"width": 0}),
        (TimeMLPOptions, {"octaves": -1}),
        (ConcatSquashOptions, {"hidden": ()}),
        (ConcatSquashOptions, {"hidden": (8, 0)}),
        (ConcatSquashOptions, {"activation": "relu"}),
        (ConcatSquashOptions, {"time_length": 0.0}),
    ],
)
def test_impossible_options_are_refused(options: type, values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        options(**values)
