"""The per-row engine: a row's solution must not depend on its batch, and all agree with torchdiffeq's."""

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError
from flowbench.ode.integrator import State
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions


def pendulum(t: Tensor, state: State) -> State:
    """A driven pendulum beside a quantity that piles up; both depend on time."""
    angle, speed = state[0].unbind(1)
    push = torch.sin(9 * t)
    return torch.stack([speed, push - 25 * torch.sin(angle)], dim=1), angle.square() * push


def start(rows: int, dtype: torch.dtype = torch.float64) -> State:
    generator = torch.Generator().manual_seed(7)
    x = 3 * torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.zeros(rows, dtype=dtype)


def solve(state: State, tolerance: float = 1e-6, t0: float = 1.0, t1: float = 0.0) -> State:
    integrator = PerRowIntegrator(PerRowOptions(atol=tolerance, rtol=tolerance))
    return integrator.integrate(pendulum, state, t0, t1).state


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_a_row_does_not_depend_on_its_batch(tolerance: float, t0: float, t1: float) -> None:
    state = start(40)
    together = solve(state, tolerance, t0, t1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = solve(tuple(part[order] for part in state), tolerance, t0, t1)
    for got, expected in zip(shuffled, together, strict=True):
        torch.testing.assert_close(got, expected[order], atol=1e-9, rtol=0)
    for row in range(40):
        alone = solve(tuple(part[row : row + 1] for part in state), tolerance, t0, t1)
        for got, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(got[0], expected[row], atol=1e-9, rtol=0)


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_agrees_with_torchdiffeq_at_a_tight_tolerance(t0: float, t1: float, method: str) -> None:
    state = start(30)
    options = TorchdiffeqOptions(method="dopri8", atol=1e-12, rtol=1e-12)
    expected = TorchdiffeqIntegrator(options).integrate(pendulum, state, t0, t1).state
    integrator = PerRowIntegrator(PerRowOptions(method=method, atol=1e-11, rtol=1e-11))
    got_state = integrator.integrate(pendulum, state, t0, t1).state
    for got, reference in zip(got_state, expected, strict=True):
        torch.testing.assert_close(got, reference, atol=1e-8, rtol=0)


def test_error_follows_the_tolerance() -> None:
    state = start(30)
    exact = solve(state, 1e-12)[0]
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        error = float((solve(state, tolerance)[0] - exact).abs().max())
        assert error < 1e3 * tolerance


def test_float32_keeps_its_type() -> None:
    got = solve(start(30, torch.float32), 1e-5)
    assert {part.dtype for part in got} == {torch.float32}
    torch.testing.assert_close(got[0].double(), solve(start(30))[0], atol=2e-3, rtol=0)


def test_rows_step_by_themselves() -> None:
    """Slow rows finish with few steps while a fast one goes on: rows that arrived are not evaluated again."""
    rate = torch.full((100, 1), 0.1, dtype=torch.float64)
    rate[0] = 60.0
    sizes = []

    def oscillate(t: Tensor, state: State) -> State:
        x, rates = state
        sizes.append(len(x))
        return rates * torch.stack([x[:, 1], -x[:, 0]], dim=1), torch.zeros_like(rates)

    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(100, 2)
    solution = PerRowIntegrator(PerRowOptions()).integrate(oscillate, (x, rate), 0.0, 1.0)
    expected = torch.cat([rate.cos(), -rate.sin()], dim=1)
    torch.testing.assert_close(solution.state[0], expected, atol=1e-3, rtol=0)
    assert sizes[0] == 100 and sizes[-1] == 1
    assert sum(sizes) < 0.3 * 100 * len(sizes)


def test_integrands_without_weight_are_not_asked_for() -> None:
    """dopri5 builds on its second stage and gives it no weight: there the path alone is enough."""
    whole_calls = path_calls = 0

    def counted(t: Tensor, state: State) -> State:
        nonlocal whole_calls
        whole_calls += 1
        return pendulum(t, state)

    def path(t: Tensor, state: State) -> Tensor:
        nonlocal path_calls
        path_calls += 1
        return pendulum(t, state)[0]

    solution = PerRowIntegrator(PerRowOptions()).integrate(counted, start(20), 1.0, 0.0, path=path)
    # The rows share the calls, but not their steps.
    assert whole_calls == 2 + 5 * path_calls and whole_calls + path_calls == solution.nfe
    for got, expected in zip(solution.state, solve(start(20)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)


def test_states_of_any_shape() -> None:
    cube = torch.arange(24, dtype=torch.float64).reshape(4, 2, 3)
    solution = PerRowIntegrator(PerRowOptions(atol=1e-10, rtol=1e-10)).integrate(
        lambda t, state: (-state[0], t), (cube, torch.zeros(4, dtype=torch.float64)), 0.0, 2.0
    )
    torch.testing.assert_close(solution.state[0], cube * torch.tensor(-2.0).double().exp())
    torch.testing.assert_close(solution.state[1], torch.full((4,), 2.0, dtype=torch.float64))


def test_gradients_are_refused() -> None:
    x, total = start(3)
    integrator = PerRowIntegrator(PerRowOptions())
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(ConfigurationError, match=r"no gradients.*no_grad.*torchdiffeq"):
        integrator.integrate(pendulum, (x.clone().requires_grad_(), total), 0.0, 1.0)
    with pytest.raises(ConfigurationError, match=r"no gradients"):
        integrator.integrate(pendulum, (x, total), 0.0, 1.0, parameters=[weight])
    with torch.no_grad():
        integrator.integrate(pendulum, (x, total), 0.0, 1.0, parameters=[weight])


def test_a_solve_names_all_the_rows_that_fail_and_why() -> None:
    """dx/dt = x^2 blows up at t = 1 / x; others meet no number, or turn so fast that they meet the cap."""
    rate = torch.tensor([1.0, 0.0, 2.0, 5000.0, 1.0, 0.0], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.1, 0.0], [1.0, 0.0]]).double()
    kind = torch.tensor([0, 1, 0, 2, 0, 2])

    def mixed(t: Tensor, state: State) -> State:
        x, rate, kind = state
        square = rate[:, None] * x.square()
        broken = torch.where(t[:, None] > 0.5, torch.nan, 0.0) * x
        turning = rate[:, None] * torch.stack([x[:, 1], -x[:, 0]], dim=1)
        slope = torch.where(kind[:, None] == 0, square, torch.where(kind[:, None] == 1, broken, turning))
        return slope, torch.zeros_like(rate), torch.zeros_like(rate)

    integrator = PerRowIntegrator(PerRowOptions(max_nfe=4000))
    with pytest.raises(IntegrationError, match=r"row 2 of the batch at t=0.5 .*not finite") as failure:
        integrator.integrate(mixed, (x, rate, kind.double()), 0.0, 1.0)
    assert list(failure.value.rows) == [1, 2, 3]
    assert failure.value.rows[1] == "it met a velocity that is not finite"
    assert failure.value.rows[2] in {"it underflowed its step", "it met a velocity that is not finite"}
    assert failure.value.rows[3] == "it met its cap of 4000 evaluations"
    assert failure.value.cause == failure.value.rows[1]
    fine = torch.tensor([0, 4, 5])
    end = integrator.integrate(mixed, (x[fine], rate[fine], kind[fine].double()), 0.0, 1.0).state[0]
    torch.testing.assert_close(end[0, 0].item(), 1.0, atol=1e-4, rtol=0)


def test_a_row_without_a_slope_at_its_start_is_given_up_at_once() -> None:
    calls = 0

    def broken(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        return (torch.where(state[0] > 2, torch.nan, -state[0]),)

    x = torch.tensor([[3.0], [1.0]], dtype=torch.float64)
    with pytest.raises(IntegrationError, match="met a velocity that is not finite") as failure:
        PerRowIntegrator(PerRowOptions()).integrate(broken, (x,), 0.0, 1.0)
    assert failure.value.rows == {0: "it met a velocity that is not finite"}
    assert calls < 200


def test_rows_that_begin_at_no_numbers_are_named() -> None:
    x, total = start(4)
    x[2, 1] = torch.inf
    total[0] = torch.nan
    with pytest.raises(IntegrationError, match="not finite before the first step") as failure:
        solve((x, total))
    assert failure.value.rows == dict.fromkeys([0, 2], "it began at numbers that are not finite")
