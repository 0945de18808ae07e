"""The change of the solver's time: a smooth map of [0, 1] onto itself that does not change solutions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.ode.clock import EVEN, Clock

PACES = st.floats(0.01, 1.0)


@given(PACES, st.floats(-0.3, 1.0))
def test_reads_the_time_that_it_shows(pace: float, t: float) -> None:
    clock = Clock(pace)
    shown, _ = clock.at(torch.tensor(clock.reads(t), dtype=torch.float64))
    assert shown.item() == pytest.approx(t, abs=1e-12)


@given(PACES)
def test_ends_are_exact(pace: float) -> None:
    assert Clock(pace).reads(0.0) == pytest.approx(0.0, abs=1e-15)
    assert Clock(pace).reads(1.0) == 1.0


@given(PACES, st.floats(0.0, 1.0))
def test_rate_is_the_derivative_and_positive(pace: float, tau: float) -> None:
    at = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    shown, rate = Clock(pace).at(at)
    (slope,) = torch.autograd.grad(shown, at)
    assert rate.item() == pytest.approx(slope.item(), rel=1e-12)
    assert rate.item() > 0


def test_the_even_clock_is_t() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(EVEN.at(t)[0], t)
    torch.testing.assert_close(EVEN.at(t)[1], torch.ones_like(t))


@pytest.mark.parametrize("integrator", ["native", "per-row", "torchdiffeq"])
def test_no_clock_changes_the_answer(integrator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    options = ContinuousOptions(
        field={"name": "time-mlp", "width": 16, "scales": 2},
        integrator={"name": integrator, "atol": 1e-10, "rtol": 1e-10},
    )
    flow = ContinuousFlow(2, options, generator).double().requires_grad_(False)
    for parameter in flow.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    found = []
    for clock in (EVEN, Clock(0.1), Clock(0.5)):
        monkeypatch.setattr(type(flow.field), "clock", clock)
        found.append((flow.log_prob(x), flow.trajectory(x, torch.tensor([0.3, 0.8]))))
    for log_prob, path in found[1:]:
        torch.testing.assert_close(log_prob, found[0][0], atol=1e-7, rtol=0)
        torch.testing.assert_close(path, found[0][1], atol=1e-7, rtol=0)
