"""The native engine against closed forms and against torchdiffeq, in values, gradients and memory."""

import math
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import Derivatives, PathDerivative, Solution, State
from flowbench.ode.native_engine import (
    FIXED_GRID_METHODS,
    Adaptive,
    NativeIntegrator,
    NativeOptions,
)
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions

ADAPTIVE_METHODS: tuple[str, ...] = get_args(Adaptive)

SPIN = torch.tensor([[0.3, -2.0], [1.5, -0.7]], dtype=torch.float64)
START = torch.tensor([[1.0, 0.5], [-0.2, 2.0], [0.0, -1.0]], dtype=torch.float64)
BOTH_WAYS = pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0), (-0.5, 0.25)])
EVERY_METHOD = pytest.mark.parametrize("method", ADAPTIVE_METHODS + FIXED_GRID_METHODS)
THEIR_NAMES = {"heun": "heun2", "tsit5": "dopri5"}


def native(method: str = "dopri5", **values: object) -> NativeIntegrator:
    if method in FIXED_GRID_METHODS:
        values = {"steps": 40, **values}
    return NativeIntegrator(NativeOptions(method=method, **values))


def torchdiffeq(method: str, **values: object) -> TorchdiffeqIntegrator:
    if method in FIXED_GRID_METHODS:
        values = {"steps": 40, **values}
    return TorchdiffeqIntegrator(TorchdiffeqOptions(method=THEIR_NAMES.get(method, method), **values))


def bent(weight: Tensor, t: Tensor, state: State) -> State:
    """A nonlinear velocity that depends on time, beside its divergence and a cost that all share."""
    x = state[0]
    inner = torch.tanh(x @ weight.T + torch.sin(4 * t))
    return inner @ weight, (1 - inner.square()) @ weight.square().sum(1), x.square().sum(1)


def solve_bent(
    integrator: NativeIntegrator | TorchdiffeqIntegrator,
    t0: float,
    t1: float,
    ask: Callable[[PathDerivative], PathDerivative] | None = None,
    moments: Callable[[Tensor, Tensor], Sequence[Derivatives]] | None = None,
) -> tuple[Solution, Tensor, Tensor]:
    """The solution, and the gradients of a loss on all of it to the weight and to the start.

    The engine is told of the path alone, through `ask`, where that is given, and of `moments`, which takes
    the weight first.
    """
    weight, start = SPIN.clone().requires_grad_(), START.clone().requires_grad_()
    state = (start, START.new_zeros(3), START.new_zeros(3))
    path = ask and ask(lambda t, state: bent(weight, t, state)[0])
    solution = integrator.integrate(
        lambda t, state: bent(weight, t, state),
        state,
        t0,
        t1,
        path=path,
        moments=moments and partial(moments, weight),
    )
    x, log_density, cost = solution.state
    loss = x.square().sum() + log_density.sin().sum() + 0.1 * cost.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and start.grad is not None
    return solution, weight.grad, start.grad


# Values ---------------------------------------------------------------------------------------------


@BOTH_WAYS
@EVERY_METHOD
def test_converges_to_the_matrix_exponential(method: str, t0: float, t1: float) -> None:
    """By its order on a grid; by its tolerance where it chooses the steps."""
    exact = START @ torch.linalg.matrix_exp(SPIN * (t1 - t0)).T
    adaptive = method in ADAPTIVE_METHODS
    efforts = [1e-4, 1e-6, 1e-8, 1e-10] if adaptive else [40, 80, 160, 320]
    errors = []
    for effort in efforts:
        options = {"atol": effort, "rtol": effort} if adaptive else {"steps": effort}
        solution = native(method, **options).integrate(lambda t, y: (y[0] @ SPIN.T,), (START,), t0, t1)
        errors.append((solution.state[0] - exact).abs().max())
    x, y = torch.tensor(efforts, dtype=torch.float64).log(), torch.stack(errors).log()
    rate = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    if adaptive:
        assert rate == pytest.approx(1, abs=0.25) and errors[-1] < 1e-8
    else:
        orders = {"rk4": 4, "heun": 2, "midpoint": 2, "euler": 1}
        assert rate == pytest.approx(-orders[method], abs=0.25)
        assert (solution.accepted, solution.rejected) == (320, 0)


@BOTH_WAYS
@pytest.mark.parametrize("method", FIXED_GRID_METHODS)
def test_fixed_grids_are_those_of_torchdiffeq(method: str, t0: float, t1: float) -> None:
    ours, *gradients = solve_bent(native(method, steps=7), t0, t1)
    theirs, *their_gradients = solve_bent(torchdiffeq(method, steps=7), t0, t1)
    assert (ours.nfe, ours.accepted) == (theirs.nfe, theirs.accepted)
    for got, expected in zip((*ours.state, *gradients), (*theirs.state, *their_gradients), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@BOTH_WAYS
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_adaptive_methods_agree_with_torchdiffeq(method: str, t0: float, t1: float) -> None:
    ours, *gradients = solve_bent(native(method, atol=1e-11, rtol=1e-11), t0, t1)
    theirs, *their_gradients = solve_bent(torchdiffeq(method, atol=1e-11, rtol=1e-11), t0, t1)
    for got, expected in zip((*ours.state, *gradients), (*theirs.state, *their_gradients), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("t0, t1", [(0.1, 0.7), (0.7, 0.1)])
@EVERY_METHOD
def test_times_stay_inside_and_reach_the_end(method: str, t0: float, t1: float) -> None:
    times = []

    def watched(t: Tensor, state: State) -> State:
        times.append(t.item())
        return (1e-9 * state[0],)  # so slow that a step would overshoot by far

    native(method).integrate(watched, (START,), t0, t1)
    assert min(times) >= 0.1 and max(times) <= 0.7 and times[0] == t0
    assert t1 in times or method in ("euler", "midpoint")


@BOTH_WAYS
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_a_smooth_velocity_takes_one_step(method: str, t0: float, t1: float) -> None:
    """Where the velocity is steeper, an attempt at the whole span does not cost the accuracy."""

    def solve(rate: float) -> Solution:
        return native(method).integrate(lambda t, y: (rate * y[0],), (START,), t0, t1)

    assert (solve(0.1).accepted, solve(0.1).nfe) == (1, 8)
    for rate in (0.1, 1.0, 5.0):
        exact = START * math.exp(rate * (t1 - t0))
        torch.testing.assert_close(solve(rate).state[0], exact, atol=1e-3, rtol=1e-4)


def test_the_last_slope_begins_the_next_step() -> None:
    for method in ADAPTIVE_METHODS:
        solution, *_ = solve_bent(native(method, atol=1e-9, rtol=1e-9), 0.0, 1.0)
        assert solution.accepted > 3
        assert solution.nfe == 2 + 6 * (solution.accepted + solution.rejected)


def test_states_of_any_shape() -> None:
    cube = torch.arange(24, dtype=torch.float64).reshape(4, 2, 3)
    for method in (*ADAPTIVE_METHODS, "rk4"):
        values = {} if method == "rk4" else {"atol": 1e-10, "rtol": 1e-10}
        solution = native(method, **values).integrate(
            lambda t, state: (-state[0], t.expand(4)), (cube, cube.new_zeros(4)), 0.0, 2.0
        )
        torch.testing.assert_close(solution.state[0], cube * math.exp(-2), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(solution.state[1], torch.full((4,), 2.0, dtype=torch.float64))


# Gradients ------------------------------------------------------------------------------------------


@BOTH_WAYS
@EVERY_METHOD
def test_gradients_are_those_of_the_steps_taken(method: str, t0: float, t1: float) -> None:
    """Whole steps are differentiated, so even a coarse solve has the gradient of its own answer."""
    integrator = native(method, steps=5) if method in FIXED_GRID_METHODS else native(method)
    weight = SPIN.clone().requires_grad_()

    def solve(start: Tensor, weight: Tensor) -> State:
        state = (start, start.new_zeros(3), start.new_zeros(3))
        return integrator.integrate(lambda t, y: bent(weight, t, y), state, t0, t1).state

    start = START.clone().requires_grad_()
    # A difference quotient may change the steps; with a loose tolerance it does so by very little.
    exact = method in FIXED_GRID_METHODS
    assert torch.autograd.gradcheck(solve, (start, weight), atol=1e-6 if exact else 1e-3)


@BOTH_WAYS
@EVERY_METHOD
def test_integrands_without_weight_are_not_asked_for(method: str, t0: float, t1: float) -> None:
    """Only the path is, at the second stage of dopri5 and the first of midpoint; no number changes."""
    calls = 0

    def counted(path: PathDerivative) -> PathDerivative:
        def ask(t: Tensor, state: State) -> Tensor:
            nonlocal calls
            calls += 1
            return path(t, state)

        return ask

    whole, *gradients = solve_bent(native(method), t0, t1)
    lean, *same = solve_bent(native(method), t0, t1, counted)
    assert calls == (lean.accepted + lean.rejected) * (method in ("dopri5", "midpoint"))
    assert (whole.nfe, whole.accepted, whole.rejected) == (lean.nfe, lean.accepted, lean.rejected)
    for got, expected in zip((*lean.state, *same), (*whole.state, *gradients), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


@BOTH_WAYS
@EVERY_METHOD
def test_the_stages_of_a_step_are_asked_for_at_once(method: str, t0: float, t1: float) -> None:
    """Each derivative is called at its own time, once at most, and no number changes."""
    whole, *gradients = solve_bent(native(method), t0, t1)
    asked: list[int] = []

    def moments(weight: Tensor, times: Tensor) -> list[Derivatives]:
        asked.append(len(times))

        def derivative(own: float) -> Derivatives:
            left = 1

            def f(t: Tensor, state: State) -> State:
                nonlocal left
                left -= 1
                assert t.item() == own and left == 0
                return bent(weight, t, state)

            return Derivatives(f)

        return [derivative(time) for time in times.tolist()]

    same, *again = solve_bent(native(method), t0, t1, moments=moments)
    steps = same.accepted + same.rejected
    assert len(asked) == steps and sum(asked) == same.nfe - 2 * (method in ADAPTIVE_METHODS)
    assert (whole.nfe, whole.accepted, whole.rejected) == (same.nfe, same.accepted, same.rejected)
    for got, expected in zip((*same.state, *again), (*whole.state, *gradients), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


@BOTH_WAYS
@EVERY_METHOD
def test_checkpoints_change_nothing_but_the_memory(method: str, t0: float, t1: float) -> None:
    plain, *gradients = solve_bent(native(method), t0, t1)
    saving, *same = solve_bent(native(method, checkpoint=True), t0, t1)
    assert (plain.nfe, plain.accepted, plain.rejected) == (saving.nfe, saving.accepted, saving.rejected)
    for got, expected in zip((*saving.state, *same), (*plain.state, *gradients), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("checkpoint, kept", [(False, 120), (True, 0)])
def test_checkpoints_keep_no_insides_of_a_step(checkpoint: bool, kept: int) -> None:
    """What the derivative saves for its own gradient is gone after the solve."""
    inner: list[weakref.ref[Tensor]] = []

    def watched(t: Tensor, state: State) -> State:
        value = state[0].exp()  # exp keeps its own answer
        inner.append(weakref.ref(value))
        return (0.01 * value.sin(),)

    integrator = native("heun", steps=60, checkpoint=checkpoint)
    solution = integrator.integrate(watched, (START.clone().requires_grad_(),), 0.0, 1.0)
    alive = sum(reference() is not None for reference in inner)
    assert alive == kept
    solution.state[0].sum().backward()  # type: ignore[no-untyped-call]
    assert len(inner) == (240 if checkpoint else 120) and solution.nfe == 120


def count_differentiated(integrator: NativeIntegrator) -> tuple[Solution, set[int], int]:
    weight, calls, differentiated = SPIN.clone().requires_grad_(), 0, set()

    def watched(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        velocity = torch.sin(40 * t) * (state[0] @ weight.T)
        if velocity.requires_grad:
            velocity.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient, call=calls: differentiated.add(call)
            )
        return (velocity,)

    solution = integrator.integrate(watched, (START,), 0.0, 1.0)
    solution.state[0].sum().backward()  # type: ignore[no-untyped-call]
    return solution, differentiated, calls


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_rejected_steps_and_the_first_choice_leave_no_graph(method: str) -> None:
    """Gradients come back to the first slope and six of each accepted step, but for the very last."""
    solution, differentiated, calls = count_differentiated(native(method, atol=1e-7, rtol=1e-7))
    assert solution.rejected > 0 and calls == solution.nfe
    assert 1 in differentiated and 2 not in differentiated
    assert len(differentiated) == 6 * solution.accepted


def test_no_graph_without_gradients() -> None:
    weight = SPIN.clone().requires_grad_()
    for checkpoint in (False, True):
        with torch.no_grad():
            solution = native(checkpoint=checkpoint).integrate(
                lambda t, state: (state[0] @ weight.T,), (START,), 0.0, 1.0, parameters=[weight]
            )
        assert not solution.state[0].requires_grad


# Errors ---------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_evaluation_cap_raises(method: str) -> None:
    with pytest.raises(IntegrationError, match=rf"{method}.* met its cap of 20 evaluations.*`max_nfe`"):
        solve_bent(native(method, atol=1e-9, rtol=1e-9, max_nfe=20), 0.0, 1.0)


def test_gradients_are_not_counted_again() -> None:
    solution, *_ = solve_bent(native(), 0.0, 1.0)
    again, *_ = solve_bent(native(checkpoint=True, max_nfe=solution.nfe), 0.0, 1.0)
    assert again.nfe == solution.nfe


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_velocity_that_is_not_finite_raises(t0: float, t1: float) -> None:
    def broken(t: Tensor, state: State) -> State:
        return (torch.where((t - t0).abs() > 0.5, torch.nan, 1.0) * state[0],)

    for method in ADAPTIVE_METHODS:
        with pytest.raises(IntegrationError, match=rf"{method}.*stopped at t=0.5 .*not finite.*outliers"):
            native(method).integrate(broken, (START,), t0, t1)
    for method in FIXED_GRID_METHODS:
        with pytest.raises(IntegrationError, match=r"left the finite numbers; check the rows"):
            native(method).integrate(broken, (START,), t0, t1)


def test_a_step_too_long_for_the_velocity_is_tried_again() -> None:
    """Where only a trial stage leaves the domain, a shorter step does not."""

    def root(t: Tensor, state: State) -> State:
        return (-torch.sqrt(state[0] - 0.1),)  # sqrt(x - 0.1) falls from 1 to 0.05

    end = native(atol=1e-2, rtol=1e-2).integrate(root, (torch.full((1, 1), 1.1).double(),), 0.0, 1.9)
    torch.testing.assert_close(end.state[0], torch.full((1, 1), 0.1025).double(), atol=1e-2, rtol=0)


def test_blow_up_raises() -> None:
    """dx/dt = x^2 has no solution at t = 1 from x = 2."""
    start = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    for method in ADAPTIVE_METHODS:
        with pytest.raises(IntegrationError, match=r"stopped at t=0\.5\d* after .*(underflowed|not finite)"):
            native(method).integrate(lambda t, state: (state[0].square(),), (start,), 0.0, 1.0)


@pytest.mark.parametrize(
    "values, text",
    [
        ({"method": "rk4"}, "`rk4` has a fixed grid and needs `steps`"),
        ({"method": "tsit5", "steps": 5}, "`steps` is for fixed-grid methods and `tsit5`"),
        ({"method": "dopri8"}, "`method`: must be 'dopri5', "),
        ({"atol": 0}, "`atol`: must be greater than 0; got 0"),
        ({"max_nfe": 0}, "`max_nfe`: must be greater than or equal to 1"),
        ({"gradient": "adjoint"}, "unknown option `gradient`"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        NativeOptions(**values)
    assert text in str(error.value)
