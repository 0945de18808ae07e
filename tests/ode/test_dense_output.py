"""Dense output: its order, and gradients that are those of the steps taken."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from flowbench.ode.integrator import Integrator, State
from flowbench.ode.native_engine import FIXED_GRID_METHODS, TABLEAUX, NativeIntegrator, NativeOptions
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions

START = torch.tensor([[1.0], [0.5], [1.7]], dtype=torch.float64)
ORDERS = {"rk4": 4, "heun": 2, "midpoint": 2, "euler": 1}
# None falls on a step of a grid.
TIMES = torch.linspace(0.013, 1.487, 23, dtype=torch.float64)
PAIRS = pytest.mark.parametrize("method", ["dopri5", "tsit5"])
EVERY_METHOD = pytest.mark.parametrize("method", TABLEAUX)


def decay(t: Tensor, state: State) -> State:
    """y' = -2 t y^2 from y(0): y(t) = 1 / (1 / y(0) + t^2); and the integral of 2 t."""
    return -2 * t.reshape(-1, 1) * state[0].square(), 2 * t.expand(len(state[0]))


def worst(integrator: Integrator) -> float:
    """The largest error at any time, which lies between steps."""
    solution = integrator.integrate(decay, (START, START.new_zeros(3)), 0.0, 1.5, times=TIMES)
    assert solution.at_times is not None
    x, total = solution.at_times
    torch.testing.assert_close(total, TIMES.square()[:, None].expand(-1, 3), atol=0.1, rtol=0)
    return (x - 1 / (1 / START + TIMES.square()[:, None, None])).abs().max().item()


def rate(efforts: Sequence[float], errors: Sequence[float]) -> float:
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (efforts, errors))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize("method", FIXED_GRID_METHODS)
def test_order_between_steps_of_a_grid(method: str) -> None:
    counts = [40, 60, 80, 120]
    errors = [worst(NativeIntegrator(NativeOptions(method=method, steps=count))) for count in counts]
    assert rate(counts, errors) == pytest.approx(-ORDERS[method], abs=0.3)


@pytest.mark.parametrize("method", ["rk4", "heun3", "heun2", "explicit_adams"])
def test_order_between_steps_of_a_grid_of_torchdiffeq(method: str) -> None:
    counts = [40, 60, 80, 120]
    engines = (TorchdiffeqIntegrator(TorchdiffeqOptions(method=method, steps=count)) for count in counts)
    order = {"heun3": 3, "heun2": 2}.get(method, 4)
    assert rate(counts, [worst(engine) for engine in engines]) < -order + 0.3


@PAIRS
def test_order_between_steps_of_equal_size(method: str) -> None:
    """Steps of one size, by a tolerance that accepts any, each solve begun where the last ended."""
    integrator = NativeIntegrator(NativeOptions(method=method, atol=1e3, rtol=1e3))
    sizes, errors = [0.3, 0.2, 0.15, 0.1], []
    for size in sizes:
        at = torch.tensor([0.2 + share * size for share in (0.15, 0.4, 0.7, 0.9)], dtype=torch.float64)
        begin = 1 / (1 / START + 0.2**2)
        solution = integrator.integrate(decay, (begin, begin[:, 0]), 0.2, 0.2 + size, times=at)
        assert solution.accepted == 1
        exact = 1 / (1 / START + at.square()[:, None, None])
        assert solution.at_times is not None
        errors.append((solution.at_times[0] - exact).abs().max().item())
    # A local error of h^5: globally of order 4.
    assert rate(sizes, errors) == pytest.approx(5, abs=0.3)


@PAIRS
@pytest.mark.parametrize("engine", ["native", "per-row"])
def test_errors_between_steps_follow_the_tolerance(engine: str, method: str) -> None:
    tolerances = [1e-4, 1e-6, 1e-8, 1e-10]
    kind, options = {
        "native": (NativeIntegrator, NativeOptions),
        "per-row": (PerRowIntegrator, PerRowOptions),
    }[engine]
    errors = [worst(kind(options(method=method, atol=each, rtol=each))) for each in tolerances]
    assert rate(tolerances, errors) == pytest.approx(1, abs=0.25)
    assert errors[-1] < 1e-8


@EVERY_METHOD
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_gradients_are_those_of_the_steps_taken(method: str, checkpoint: bool, t0: float, t1: float) -> None:
    """Of one step of a pair, or three of a grid, which no difference quotient changes."""
    values = {"steps": 3} if method in FIXED_GRID_METHODS else {"atol": 1e3, "rtol": 1e3}
    integrator = NativeIntegrator(NativeOptions(method=method, checkpoint=checkpoint, **values))
    times = [t0 + (t1 - t0) * share for share in (0.0, 0.1, 0.35, 0.8, 0.95, 1.0)]

    def solve(start: Tensor, weight: Tensor, pull: Tensor) -> tuple[Tensor, ...]:
        def bent(t: Tensor, state: State, pull: Tensor) -> State:
            inner = torch.tanh(weight * state[0] + t)
            return pull * inner, inner.square().sum(1)

        state = (start, start.new_zeros(3))
        solution = integrator.integrate(
            bent, state, t0, t1, times=times, args=(pull,), path=lambda *given: bent(*given)[0]
        )
        assert solution.at_times is not None
        return *solution.state, *solution.at_times

    inputs = START.clone(), torch.tensor(0.7, dtype=torch.float64), START.flip(0).contiguous()
    assert torch.autograd.gradcheck(solve, tuple(each.requires_grad_() for each in inputs), atol=1e-6)


def test_no_more_of_a_step_is_kept_with_checkpoints() -> None:
    """The slopes within a step are made again for the gradient of what lies between them too."""
    calls = 0

    def counted(t: Tensor, state: State) -> State:
        nonlocal calls
        calls += 1
        return (-state[0].exp(),)

    integrator = NativeIntegrator(NativeOptions(method="rk4", steps=10, checkpoint=True))
    solution = integrator.integrate(
        counted, (START.clone().requires_grad_(),), 0.0, 1.0, times=[0.05, 0.55, 0.57]
    )
    # One slope more where each of two steps ends, which begins the next.
    assert calls == solution.nfe == 40
    assert solution.at_times is not None
    solution.at_times[0].sum().backward()  # type: ignore[no-untyped-call]
    assert calls > solution.nfe


def test_the_slope_at_the_end_of_the_last_step_is_asked_for() -> None:
    for integrator in (
        NativeIntegrator(NativeOptions(method="rk4", steps=10)),
        TorchdiffeqIntegrator(TorchdiffeqOptions(method="rk4", steps=10)),
    ):
        state = START, START.new_zeros(3)
        assert integrator.integrate(decay, state, 0.0, 1.0, times=[0.5, 0.55, 1.0]).nfe <= 41
        assert integrator.integrate(decay, state, 0.0, 1.0, times=[0.97]).nfe == 41
        assert integrator.integrate(decay, state, 0.0, 1.0, times=[0.0, 1.0]).nfe == 40
