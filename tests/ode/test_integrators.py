"""Both engines against matrix exponentials; their errors, and gradients against torchdiffeq's."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import Integrator, Solution, State
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions
from flowbench.ode.torchdiffeq_engine import (
    FIXED_GRID_METHODS,
    Adaptive,
    TorchdiffeqIntegrator,
    TorchdiffeqOptions,
)
from flowbench.registry import INTEGRATORS

ADAPTIVE_METHODS: tuple[str, ...] = get_args(Adaptive)

SPIN = torch.tensor([[0.3, -2.0], [1.5, -0.7]], dtype=torch.float64)
START = torch.tensor([[1.0, 0.5], [-0.2, 2.0], [0.0, -1.0]], dtype=torch.float64)


def torchdiffeq(method: str = "dopri5", **values: object) -> TorchdiffeqIntegrator:
    if method in FIXED_GRID_METHODS:
        values = {"steps": 40, **values}
    return TorchdiffeqIntegrator(TorchdiffeqOptions(method=method, **values))


def engines(tolerance: float = 1e-9, **values: object) -> list[Integrator]:
    return [INTEGRATORS.get(name)(INTEGRATORS.get(name).Options(atol=tolerance, rtol=tolerance, **values))
            for name in INTEGRATORS.names()]  # fmt: skip


def linear(t: Tensor, state: State) -> State:
    """dx/dt = A x beside dl/dt = sum x, as a flow carries a log-density beside its rows."""
    x = state[0]
    return x @ SPIN.T, x.sum(1)


def solve_linear(integrator: Integrator, t0: float, t1: float, start: Tensor = START) -> Solution:
    return integrator.integrate(linear, (start, start.new_zeros(len(start))), t0, t1)


def exact_linear(t0: float, t1: float) -> State:
    x = START @ torch.linalg.matrix_exp(SPIN * (t1 - t0)).T
    return x, (x - START) @ torch.linalg.inv(SPIN).T @ torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0), (-0.5, 0.25)])
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_adaptive_methods_solve_a_linear_equation(method: str, t0: float, t1: float) -> None:
    solution = solve_linear(torchdiffeq(method, atol=1e-5, rtol=1e-5, max_nfe=100_000), t0, t1)
    for got, expected in zip(solution.state, exact_linear(t0, t1), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-2, rtol=0)
    assert solution.accepted > 0 and solution.nfe > solution.accepted


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize(
    "method, order",
    [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4), ("explicit_adams", 4),
     ("implicit_adams", 4)],
)  # fmt: skip
def test_fixed_grid_methods_converge_at_their_order(method: str, order: int, t0: float, t1: float) -> None:
    steps = torch.tensor([40.0, 80.0, 160.0, 320.0], dtype=torch.float64)
    errors = []
    for count in steps.int().tolist():
        solution = solve_linear(torchdiffeq(method, steps=count, atol=1e-10, rtol=1e-10), t0, t1)
        assert (solution.accepted, solution.rejected) == (count, 0)
        errors.append((solution.state[0] - exact_linear(t0, t1)[0]).abs().max())
    x, y = steps.log(), torch.stack(errors).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(-order, abs=0.5)


def test_every_fixed_grid_method_has_an_order_above() -> None:
    tested = {"euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams"}
    assert tested == set(FIXED_GRID_METHODS)


@given(entries=st.lists(st.floats(-2, 2), min_size=4, max_size=4), t0=st.floats(-1, 1), t1=st.floats(-1, 1))
@settings(max_examples=settings().max_examples // 4, deadline=None)
def test_engines_agree_with_the_matrix_exponential(entries: list[float], t0: float, t1: float) -> None:
    matrix = torch.tensor(entries, dtype=torch.float64).reshape(2, 2)
    expected = START @ torch.linalg.matrix_exp(matrix * (t1 - t0)).T
    for integrator in engines():
        solution = integrator.integrate(lambda t, state: (state[0] @ matrix.T,), (START,), t0, t1)
        torch.testing.assert_close(solution.state[0], expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_no_engine_asks_for_a_time_outside_the_solve(t0: float, t1: float) -> None:
    times = []

    def still(t: Tensor, state: State) -> State:
        times.append(t.flatten())
        return (1e-9 * state[0],)  # so slow that an adaptive step would overshoot by far

    methods = [torchdiffeq(method) for method in ADAPTIVE_METHODS + FIXED_GRID_METHODS]
    for integrator in [*methods, *engines()]:
        solution = integrator.integrate(still, (START.float(),), t0, t1)
        torch.testing.assert_close(solution.state[0], START.float())
        assert solution.state[0].dtype == torch.float32
    asked = torch.cat([t.double() for t in times])
    assert float(asked.min()) >= 0 and float(asked.max()) <= 1
    assert {t.dtype for t in times} == {torch.float32}


def test_adaptive_solves_need_no_evaluation_beyond_the_end() -> None:
    def singular_outside(t: Tensor, state: State) -> State:
        return (state[0] * torch.sqrt(1 - t) * torch.sqrt(t),)  # NaN outside [0, 1]

    for method in ADAPTIVE_METHODS:
        integrator = torchdiffeq(method, atol=1e-4, rtol=1e-4)
        for t0, t1 in ((0.0, 1.0), (1.0, 0.0)):
            end = integrator.integrate(singular_outside, (START,), t0, t1).state[0]
            expected = START * math.exp(math.pi / 8 * (t1 - t0))
            torch.testing.assert_close(end, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8"])
def test_adaptive_steps_end_on_the_ends(method: str, t0: float, t1: float, gradient: str) -> None:
    """A step past the end would have several of its stages held back to it; and no time carries gradient."""
    matrix, times = SPIN.clone().requires_grad_(), []

    def watched(t: Tensor, state: State) -> State:
        assert not t.requires_grad
        times.append(t.item())
        return (state[0] @ matrix.T,)

    integrator = torchdiffeq(method, gradient=gradient)
    solution = integrator.integrate(watched, (START,), t0, t1, parameters=[matrix])
    assert times.count(t1) <= 1
    if gradient == "adjoint":
        times.clear()
        solution.state[0].sum().backward()  # type: ignore[no-untyped-call]
        assert len(times) > 2 and times.count(t0) <= 1


@pytest.mark.parametrize("engine", engines())
def test_nfe_is_the_number_of_calls(engine: Integrator) -> None:
    calls = 0

    def counted(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        return (torch.sin(20 * t).reshape(-1, 1) * state[0].square(),)

    solution = engine.integrate(counted, (START,), 0.0, 1.0)
    assert solution.nfe == calls == 2 + 6 * (solution.accepted + solution.rejected)


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("engine", engines(1e-6))
def test_being_told_the_path_alone_changes_no_answer(engine: Integrator, t0: float, t1: float) -> None:
    """It may stand in for the whole derivative where the integral's own has no weight, and only there."""
    whole = solve_linear(engine, t0, t1)
    start = START, START.new_zeros(len(START))
    lean = engine.integrate(linear, start, t0, t1, path=lambda t, state: linear(t, state)[0])
    assert (whole.nfe, whole.accepted, whole.rejected) == (lean.nfe, lean.accepted, lean.rejected)
    for part in ("state", "local_error"):
        for got, expected in zip(getattr(lean, part) or (), getattr(whole, part) or (), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("engine", engines())
def test_nothing_to_do_costs_nothing(engine: Integrator) -> None:
    assert engine.integrate(linear, (START, START[:, 0]), 0.5, 0.5).nfe == 0
    empty = engine.integrate(linear, (START[:0], START[:0, 0]), 0.0, 1.0)
    assert empty.nfe == 0 and empty.state[0].shape == (0, 2)


# Gradients ------------------------------------------------------------------------------------------


def linear_loss(integrator: Integrator, t0: float, t1: float) -> tuple[Tensor, Tensor, Solution]:
    matrix, start = SPIN.clone().requires_grad_(), START.clone().requires_grad_()
    solution = integrator.integrate(
        lambda t, state: (state[0] @ matrix.T,), (start,), t0, t1, parameters=[matrix]
    )
    solution.state[0].square().sum().backward()  # type: ignore[no-untyped-call]
    assert matrix.grad is not None and start.grad is not None
    return matrix.grad, start.grad, solution


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize(
    "integrator",
    [
        torchdiffeq(atol=1e-9, rtol=1e-9),
        torchdiffeq(atol=1e-9, rtol=1e-9, gradient="adjoint"),
        torchdiffeq(atol=1e-9, rtol=1e-9, gradient="adjoint", seminorm=False),
        torchdiffeq("rk4", steps=60),
        torchdiffeq("rk4", steps=60, gradient="adjoint"),
        torchdiffeq("implicit_adams", steps=100, atol=1e-8, rtol=1e-8, gradient="adjoint"),
    ],
    ids=lambda i: f"{i.options.method}-{i.options.gradient}-{i.options.seminorm}",
)
def test_gradients_are_those_of_the_matrix_exponential(
    integrator: TorchdiffeqIntegrator, t0: float, t1: float
) -> None:
    matrix, start = SPIN.clone().requires_grad_(), START.clone().requires_grad_()
    (start @ torch.linalg.matrix_exp(matrix * (t1 - t0)).T).square().sum().backward()
    got_matrix, got_start, _ = linear_loss(integrator, t0, t1)
    torch.testing.assert_close(got_matrix, matrix.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got_start, start.grad, rtol=1e-5, atol=1e-5)


def test_backprop_leaves_out_the_choice_of_the_first_step() -> None:
    """The second evaluation only serves to choose the first step; no gradient comes back to it."""
    matrix, calls, differentiated = SPIN.clone().requires_grad_(), 0, set()

    def watched(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        derivative = torch.exp(20 * t) * state[0] @ matrix.T  # so curved that the second evaluation decides
        derivative.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient, call=calls: differentiated.add(call)
        )
        return (derivative,)

    solution = torchdiffeq().integrate(watched, (START,), 0.0, 0.1)
    solution.state[0].sum().backward()  # type: ignore[no-untyped-call]
    assert {1, 3} <= differentiated and 2 not in differentiated


def test_adjoint_reports_the_forward_solve() -> None:
    *_, backprop = linear_loss(torchdiffeq(), 0.0, 1.0)
    *_, adjoint = linear_loss(torchdiffeq(gradient="adjoint"), 0.0, 1.0)
    assert (backprop.nfe, backprop.accepted, backprop.rejected) == (
        adjoint.nfe,
        adjoint.accepted,
        adjoint.rejected,
    )
    assert torch.equal(backprop.state[0], adjoint.state[0])


def test_adjoint_without_its_parameters_is_refused() -> None:
    matrix = SPIN.clone().requires_grad_()
    integrator = torchdiffeq(gradient="adjoint")
    with pytest.raises(ConfigurationError, match=r"`parameters`, which is empty"):
        integrator.integrate(lambda t, state: (state[0] @ matrix.T,), (START,), 0.0, 1.0)
    with torch.no_grad():
        integrator.integrate(lambda t, state: (state[0] @ matrix.T,), (START,), 0.0, 1.0)


# Errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", engines(max_nfe=20))
def test_evaluation_cap_raises(engine: Integrator) -> None:
    with pytest.raises(IntegrationError, match=r"met its cap of 20 evaluations.*`max_nfe`.*`atol`"):
        solve_linear(engine, 0.0, 1.0)


def test_evaluation_cap_holds_for_fixed_grids() -> None:
    with pytest.raises(IntegrationError, match=r"solve with rk4.* met its cap of 20"):
        solve_linear(torchdiffeq("rk4", max_nfe=20), 0.0, 1.0)


def hard_to_differentiate(gradient: str, max_nfe: int) -> tuple[Tensor, Solution]:
    """A loss so steep that the adjoint solve needs more evaluations than the forward solve."""
    matrix = SPIN.clone().requires_grad_()
    solution = torchdiffeq(gradient=gradient, max_nfe=max_nfe).integrate(
        lambda t, state: (state[0] @ matrix.T,), (START,), 1.0, 0.0, parameters=[matrix]
    )
    return 1e12 * solution.state[0].sum(), solution


def test_adjoint_solve_has_the_same_cap() -> None:
    nfe = hard_to_differentiate("backprop", 10_000)[1].nfe
    loss, _ = hard_to_differentiate("adjoint", nfe)
    with pytest.raises(IntegrationError, match=f"the adjoint solve .* cap of {nfe} "):
        loss.backward()  # type: ignore[no-untyped-call]


def test_adjoint_solve_of_a_broken_loss_raises() -> None:
    loss, _ = hard_to_differentiate("adjoint", 10_000)
    with pytest.raises(IntegrationError, match=r"the adjoint solve .* left the finite numbers"):
        (loss * math.nan).backward()  # type: ignore[no-untyped-call]


def broken(t: Tensor, state: State) -> State:
    return (torch.where(t.reshape(-1, 1) > 0.5, torch.nan, 1.0) * state[0],)


def test_velocity_that_is_not_finite_raises() -> None:
    with pytest.raises(IntegrationError, match=r"stopped at t=0.04.*not finite on its next step"):
        torchdiffeq().integrate(broken, (START,), 0.0, 1.0)
    with pytest.raises(IntegrationError, match=r"solve with euler .* left the finite numbers"):
        torchdiffeq("euler").integrate(broken, (START,), 0.0, 1.0)
    with pytest.raises(IntegrationError, match=r"row 3 of the batch at t=0.5 .*not finite"):
        PerRowIntegrator(PerRowOptions()).integrate(broken, (START,), 0.0, 1.0)


def test_blow_up_names_the_row() -> None:
    """dx/dt = x^2 has no solution at t = 1 from x = 2; the other rows have."""
    start = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)

    def square(t: Tensor, state: State) -> State:
        return (state[0].square(),)

    with pytest.raises(IntegrationError, match=r"row 3 of the batch at t=0.5"):
        PerRowIntegrator(PerRowOptions()).integrate(square, (start,), 0.0, 1.0)
    with pytest.raises(IntegrationError, match=r"stopped at t=0.5"):
        torchdiffeq().integrate(square, (start,), 0.0, 1.0)


@pytest.mark.parametrize("engine", engines())
def test_broken_start_raises(engine: Integrator) -> None:
    with pytest.raises(IntegrationError, match=r"state at t=0 is not finite"):
        solve_linear(engine, 0.0, 1.0, START / 0)


@pytest.mark.parametrize("engine", engines())
def test_tensors_that_do_not_fit_are_refused(engine: Integrator) -> None:
    with pytest.raises(ConfigurationError, match=r"tensor 2 .* first axis must be the row, 3"):
        engine.integrate(linear, (START, START[0]), 0.0, 1.0)
    with pytest.raises(ConfigurationError, match=r"tensor 2 .* torch.float32"):
        engine.integrate(linear, (START, START.float()), 0.0, 1.0)
    with pytest.raises(ConfigurationError, match=r"empty"):
        engine.integrate(linear, (), 0.0, 1.0)
    with pytest.raises(ConfigurationError, match=r"times must be finite"):
        engine.integrate(linear, (START,), 0.0, math.inf)


@pytest.mark.parametrize(
    "values, text",
    [
        ({"method": "rk4"}, "`rk4` has a fixed grid and needs `steps`"),
        ({"method": "dopri5", "steps": 5}, "`steps` is for fixed-grid methods and `dopri5`"),
        ({"method": "scipy_solver"}, "`method`: must be 'dopri5', "),
        ({"atol": 0}, "`atol`: must be greater than 0; got 0"),
        ({"rtol": -1.0}, "`rtol`: must be greater than 0; got -1.0"),
        ({"gradient": "symplectic"}, "`gradient`: must be 'backprop' or 'adjoint'"),
        ({"max_nfe": 0}, "`max_nfe`: must be greater than or equal to 1"),
        ({"step": 5}, "unknown option `step`"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        TorchdiffeqOptions(**values)
    assert text in str(error.value)
