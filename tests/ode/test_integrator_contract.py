"""The contract of every integrator in the registry; each engine also has a test file of its own."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import Integrator, IntegratorOptions, Solution, State
from flowbench.ode.stepped import SteppedOptions
from flowbench.registry import INTEGRATORS

START = torch.tensor([[1.0, 0.5], [-0.2, 2.0], [0.0, -1.0]], dtype=torch.float64)
TURN = torch.tensor([[0.3, -2.0], [1.5, -0.7]], dtype=torch.float64)
PULL = torch.tensor([[0.5, -0.3], [-1.0, 0.2], [0.1, 0.9]], dtype=torch.float64)
TIMES = (0.05, 0.2, 0.21, 0.5, 0.93)
EVERY = pytest.mark.parametrize("name", INTEGRATORS.names())
BOTH_WAYS = pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])


def methods(name: str) -> list[str]:
    annotation = INTEGRATORS.get(name).Options.model_fields["method"].annotation
    return list(get_args(annotation))


ENGINES = [(name, method) for name in INTEGRATORS.names() for method in methods(name)]
EVERY_METHOD = pytest.mark.parametrize("name, method", ENGINES)


def engine(name: str, method: str | None = None, tolerance: float = 1e-9, **values: object) -> Integrator:
    """The engine with this method, or its own; with 100 steps where the method has a fixed grid."""
    options = INTEGRATORS.get(name).Options
    values = {"atol": tolerance, "rtol": tolerance, "max_nfe": 200_000, **values}
    values |= {} if method is None else {"method": method}
    found: Integrator
    try:
        found = INTEGRATORS.get(name)(options(**values))
    except ConfigurationError:
        found = INTEGRATORS.get(name)(options(**{"steps": 100, **values}))
    return found


def bent(turn: Tensor, t: Tensor, state: State, pull: Tensor) -> State:
    """A nonlinear velocity that depends on time and on a constant of each row, beside an integral."""
    x = state[0]
    inner = torch.tanh(x @ turn.T + torch.sin(4 * t).reshape(-1, 1))
    return inner @ turn + pull, x.square().sum(1) * pull[:, 0]


def solve(
    integrator: Integrator,
    t0: float,
    t1: float,
    times: Sequence[float] | Tensor | None = None,
    *,
    turn: Tensor = TURN,
    start: Tensor = START,
    pull: Tensor = PULL,
    **given: Any,
) -> Solution:
    return integrator.integrate(
        lambda t, state, pull: bent(turn, t, state, pull),
        (start, start.new_zeros(len(start))),
        t0,
        t1,
        times=times,
        args=(pull,),
        parameters=[turn],
        **given,
    )


def at_times(solution: Solution) -> State:
    """The states at the times that were asked for."""
    assert solution.at_times is not None
    return solution.at_times


def towards(t0: float, t1: float, times: tuple[float, ...] = TIMES) -> tuple[float, ...]:
    return tuple(t0 + (t1 - t0) * time for time in times)


# Options and facts ----------------------------------------------------------------------------------


@EVERY
def test_an_engine_says_what_it_is(name: str) -> None:
    found = INTEGRATORS.get(name)
    assert issubclass(found, Integrator) and issubclass(found.Options, IntegratorOptions)
    assert isinstance(found.row_steps, bool) and isinstance(found.differentiable, bool)
    options = found.Options()
    assert options.name == name
    assert options.atol > 0 and options.rtol > 0 and options.max_nfe > 0
    for wrong in ({"atol": 0}, {"rtol": -1.0}, {"max_nfe": 0}, {"unheard_of": 1}):
        with pytest.raises(ConfigurationError):
            found.Options(**wrong)


@EVERY_METHOD
def test_refined_and_coarsened_solvers(name: str, method: str) -> None:
    given = engine(name, method, 1e-5, max_nfe=500).options
    finer, coarser = given.refined(2), given.coarsened(1e-2)
    assert type(finer) is type(coarser) is type(given)
    assert (finer.max_nfe, coarser.max_nfe) == (2000, 500)
    assert given.refined(0) == given and given.coarsened(1e-12) == given
    assert given.refined().refined().atol == pytest.approx(finer.atol)
    assert (coarser.atol, coarser.rtol) == (1e-2, 1e-2)
    changed = {field for field, value in finer.model_dump().items() if value != getattr(given, field)}
    if given.adaptive:
        assert changed == {"atol", "rtol", "max_nfe"}
        assert (finer.atol, finer.rtol) == pytest.approx((1e-7, 1e-7))
    else:
        assert isinstance(given, SteppedOptions) and given.steps is not None
        assert isinstance(finer, SteppedOptions) and isinstance(coarser, SteppedOptions)
        assert changed == {"steps", "max_nfe"} and finer.steps == 4 * given.steps
        assert coarser.steps == given.steps


@EVERY_METHOD
def test_a_refined_solver_is_more_accurate(name: str, method: str) -> None:
    given = engine(name, method, 1e-3)
    if not given.options.adaptive:
        given = engine(name, method, 1e-6, steps=50)
    errors = [
        (solve(INTEGRATORS.get(name)(options), 0.0, 1.0).state[0] - exact(0.0, 1.0)[0]).abs().max()
        for options in (given.options, given.options.refined(2))
    ]
    assert errors[1] < 0.5 * errors[0]


# Rows -----------------------------------------------------------------------------------------------


@EVERY
def test_rows_have_steps_of_their_own_where_the_engine_says_so(name: str) -> None:
    rate = torch.tensor([0.1, 30.0, 1.0], dtype=torch.float64)

    def fall(t: Tensor, state: State, rate: Tensor) -> State:
        return (-rate[:, None] * torch.cos(5 * t).reshape(-1, 1) * state[0],)

    integrator = engine(name, tolerance=1e-5)
    together = integrator.integrate(fall, (START,), 0.0, 1.0, times=TIMES, args=(rate,))
    off = []
    for row in range(3):
        alone = integrator.integrate(
            fall, (START[row : row + 1],), 0.0, 1.0, times=TIMES, args=(rate[row : row + 1],)
        )
        off.append((alone.state[0] - together.state[0][row]).abs().max())
        off.append((at_times(alone)[0][:, 0] - at_times(together)[0][:, row]).abs().max())
    assert bool(torch.stack(off).max() < 1e-12) == integrator.row_steps


@EVERY
def test_an_engine_with_row_steps_names_all_the_rows_that_fail(name: str) -> None:
    """dx/dt = a x^2 blows up at t = 1 / (a x)."""
    pull = torch.tensor([0.5, 3.0, 2.0], dtype=torch.float64)
    start = torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises(IntegrationError) as failure:
        engine(name).integrate(
            lambda t, state, pull: (pull[:, None] * state[0].square(),), (start,), 0.0, 1.0, args=(pull,)
        )
    assert list(failure.value.rows) == ([1, 2] if INTEGRATORS.get(name).row_steps else [])


@EVERY
@BOTH_WAYS
def test_constants_stay_with_their_rows(name: str, t0: float, t1: float) -> None:
    """Rows of very different speed, which arrive at different times, against exp(rate (t1 - t0))."""
    rate = torch.linspace(-3, 3, 12, dtype=torch.float64)[torch.randperm(12, generator=generator())]
    labels = torch.arange(12)
    start = torch.rand(12, 2, generator=generator(), dtype=torch.float64) + 0.5
    asked = []

    def grow(t: Tensor, state: State, rate: Tensor, labels: Tensor) -> State:
        asked.append(len(labels))
        assert len(rate) == len(labels) == len(state[0])
        return rate[:, None] * state[0], 1.0 * labels

    def path(t: Tensor, state: State, rate: Tensor, labels: Tensor) -> Tensor:
        return grow(t, state, rate, labels)[0]

    solution = engine(name).integrate(
        grow, (start, start.new_zeros(12)), t0, t1, times=towards(t0, t1), args=(rate, labels), path=path
    )
    for time, x, total in zip(towards(t0, t1), *at_times(solution), strict=True):
        torch.testing.assert_close(x, start * ((time - t0) * rate).exp()[:, None], atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(total, (time - t0) * labels.double(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(solution.state[0], start * ((t1 - t0) * rate).exp()[:, None])
    if INTEGRATORS.get(name).row_steps:
        assert min(asked) < 12


@EVERY
def test_constants_that_do_not_fit_are_refused(name: str) -> None:
    for args, text in (
        ((PULL[:2],), r"tensor 1 of `args` has shape \(2, 2\).* 3 of them"),
        ((PULL, torch.tensor(1.0)), r"tensor 2 of `args` has shape \(\)"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            engine(name).integrate(lambda t, state, *args: state, (START,), 0.0, 1.0, args=args)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


# Times ----------------------------------------------------------------------------------------------


#: By how much states at times may be off at a tolerance of 1e-6, or by 100 steps, where not by 5e-5.
BOUNDS = {"euler": 0.2, "heun": 1e-3, "heun2": 1e-3, "midpoint": 5e-4, "rk4": 2e-8, "fehlberg2": 3e-4}
#: Methods that end a step on each time, as torchdiffeq has no interpolation of their order.
STOPPING = ("dopri8", "bosh3", "fehlberg2")


@cache
def exact(t0: float, t1: float) -> State:
    return solve(engine("native", "dopri5", 1e-12), t0, t1).state


@BOTH_WAYS
@EVERY_METHOD
def test_states_at_times_are_those_of_solves_that_end_there(
    name: str, method: str, t0: float, t1: float
) -> None:
    integrator = engine(name, method, 1e-6)
    asked = towards(t0, t1)
    plain, solution = solve(integrator, t0, t1), solve(integrator, t0, t1, (t0, *asked, t1))
    starts = START, torch.zeros_like(START[:, 0])
    for got, begin, end in zip(at_times(solution), starts, solution.state, strict=True):
        assert got.shape == (7, *begin.shape)
        assert torch.equal(got[0], begin) and torch.equal(got[-1], end)
    for number, time in enumerate(asked, start=1):
        for got, expected in zip(at_times(solution), exact(t0, time), strict=True):
            torch.testing.assert_close(got[number], expected, atol=BOUNDS.get(method, 5e-5), rtol=0)
    if method not in STOPPING:
        assert all(torch.equal(one, other) for one, other in zip(solution.state, plain.state, strict=True))
        # On a fixed grid the slope at the end is none of the method's.
        assert plain.nfe <= solution.nfe <= plain.nfe + (not integrator.options.adaptive)


@EVERY
@BOTH_WAYS
def test_times_cost_next_to_nothing_and_change_no_step(name: str, t0: float, t1: float) -> None:
    integrator = engine(name, tolerance=1e-5)
    eleven = torch.linspace(t0, t1, 11, dtype=torch.float64)
    plain, solution = solve(integrator, t0, t1), solve(integrator, t0, t1, eleven)
    assert solution.nfe == plain.nfe
    assert (solution.accepted, solution.rejected) == (plain.accepted, plain.rejected)


@EVERY
def test_times_where_there_is_nothing_to_do(name: str) -> None:
    integrator = engine(name)
    assert solve(integrator, 0.0, 1.0).at_times is None
    assert [part.shape for part in at_times(solve(integrator, 0.0, 1.0, ()))] == [(0, 3, 2), (0, 3)]
    assert torch.equal(at_times(solve(integrator, 0.5, 0.5, (0.5,)))[0], START[None])
    empty = solve(integrator, 0.0, 1.0, (0.0, 0.5), start=START[:0], pull=PULL[:0])
    assert [part.shape for part in at_times(empty)] == [(2, 0, 2), (2, 0)]
    ends = solve(integrator, 0.0, 1.0, (0.0, 1.0))
    assert torch.equal(at_times(ends)[0], torch.stack([START, ends.state[0]]))
    assert at_times(solve(integrator, 0.0, 1.0, torch.tensor([0.25, 0.5])))[0].shape == (2, 3, 2)


@EVERY
@pytest.mark.parametrize(
    "t0, t1, times, text",
    [
        (0.0, 1.0, (0.2, 0.1), r"strictly from t0=0 towards t1=1; number 2 is 0.1, after 0.2"),
        (0.0, 1.0, (0.2, 0.2), r"number 2 is 0.2, after 0.2"),
        (1.0, 0.0, (0.2, 0.4), r"strictly from t0=1 towards t1=0; number 2 is 0.4"),
        (0.0, 1.0, (0.2, 1.1), r"between t0=0 and t1=1; number 2 is 1.1"),
        (1.0, 0.0, (-0.1,), r"between t0=1 and t1=0; number 1 is -0.1"),
        (0.0, 1.0, (0.1, math.nan), r"must be finite .*number 2 is nan"),
        (0.0, 1.0, (math.inf,), r"must be finite .*number 1 is inf"),
        (0.0, 1.0, torch.zeros(2, 2), r"one axis; got shape \(2, 2\)"),
    ],
)
def test_times_that_do_not_fit_are_refused(
    name: str, t0: float, t1: float, times: tuple[float, ...] | Tensor, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        solve(engine(name), t0, t1, times)


@EVERY_METHOD
def test_the_path_alone_changes_no_state_at_a_time(name: str, method: str) -> None:
    integrator = engine(name, method, 1e-6)
    whole = solve(integrator, 1.0, 0.0, (0.7, 0.3))
    lean = solve(integrator, 1.0, 0.0, (0.7, 0.3), path=lambda t, state, pull: bent(TURN, t, state, pull)[0])
    for got, expected in zip(at_times(lean), at_times(whole), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


# Gradients ------------------------------------------------------------------------------------------

#: Every way in which an engine gives gradients.
GRADIENTS = {
    "torchdiffeq": ({}, {"gradient": "adjoint"}, {"gradient": "adjoint", "seminorm": False}),
    "native": ({}, {"checkpoint": True}),
}
WAYS = [
    (name, method, values)
    for name, method in ENGINES
    if INTEGRATORS.get(name).differentiable and method in ("dopri5", "tsit5", "rk4", "midpoint")
    for values in GRADIENTS.get(name, ({},))
]


def loss(integrator: Integrator, t0: float, t1: float, start: Tensor, turn: Tensor, pull: Tensor) -> Tensor:
    """A number that depends on both tensors of the state at every time, at the start and at the end."""
    asked = (t0, *towards(t0, t1), t1)
    solution = solve(integrator, t0, t1, asked, start=start, turn=turn, pull=pull)
    weights = torch.linspace(1, 2, len(asked), dtype=torch.float64)
    x, total = at_times(solution)
    return (weights[:, None] * (x.square().sum(2) + total.sin())).sum() + solution.state[0].sum()


def gradients(integrator: Integrator, t0: float, t1: float) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in (START, TURN, PULL)]
    return torch.autograd.grad(loss(integrator, t0, t1, *leaves), leaves)


@BOTH_WAYS
@pytest.mark.parametrize("name, method, values", WAYS)
def test_gradients_of_states_at_times(
    name: str, method: str, values: dict[str, object], t0: float, t1: float
) -> None:
    """To state, parameters and constants, against central differences of a tight solve."""
    tight = engine("native", "dopri5", 1e-12)
    steps = {} if engine(name, method).options.adaptive else {"steps": 200}
    found = gradients(engine(name, method, 1e-8, **values, **steps), t0, t1)
    for number, gradient in enumerate(found):
        direction = torch.randn(gradient.shape, generator=generator(), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            tensors = [START, TURN, PULL]
            tensors[number] = tensors[number] + sign * 1e-4 * direction
            sides.append(loss(tight, t0, t1, *tensors).item())
        expected = (sides[0] - sides[1]) / 2e-4
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=2e-4)


@EVERY
def test_what_an_engine_says_of_gradients_is_true(name: str) -> None:
    integrator = engine(name, tolerance=1e-6)
    for number in range(3):
        tensors = [START, TURN, PULL]
        tensors[number] = tensors[number].clone().requires_grad_()
        if integrator.differentiable:
            (gradient,) = torch.autograd.grad(loss(integrator, 0.0, 1.0, *tensors), tensors[number])
            assert gradient.abs().max() > 1e-2
        else:
            with pytest.raises(ConfigurationError, match=r"no gradients.*no_grad"):
                loss(integrator, 0.0, 1.0, *tensors)
            with torch.no_grad():
                loss(integrator, 0.0, 1.0, *tensors)


@pytest.mark.parametrize("name, method, values", WAYS)
def test_constants_that_are_made_from_parameters(name: str, method: str, values: dict[str, object]) -> None:
    """A parameter that a constant depends on gets that part of its gradient once."""

    def found(integrator: Integrator) -> tuple[Tensor, ...]:
        turn, start = TURN.clone().requires_grad_(), START.clone().requires_grad_()
        value = loss(integrator, 0.0, 1.0, start, turn, PULL + start @ turn)
        return torch.autograd.grad(value, (start, turn))

    steps = {} if engine(name, method).options.adaptive else {"steps": 200}
    integrator = engine(name, method, 1e-8, **values, **steps)
    for got, expected in zip(found(integrator), found(engine("native", "dopri5", 1e-11)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
