"""Saved bytes are those that the operations of a graph are known to keep."""

from functools import partial

import pytest
import torch
from torch import Tensor

from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions
from flowbench.studies.digit_networks import OdeBlock
from flowbench.studies.step_cost import cpu_seconds, peak_saved_bytes


def test_a_chain_keeps_one_result_for_each_operation() -> None:
    x = torch.zeros(1000, requires_grad=True)

    def chain(length: int) -> None:
        y = x
        for _ in range(length):
            y = torch.tanh(y)
        torch.autograd.backward(y.sum())

    # Twice: what the first step kept is gone when the second begins.
    assert [peak_saved_bytes(partial(chain, n)) for n in (1, 5, 5)] == [4000, 20_000, 20_000]


def test_shared_memory_counts_once_and_parameters_do_not() -> None:
    x, weight = torch.ones(1000), torch.ones(1000, requires_grad=True)

    def step() -> None:
        y = weight * x
        torch.autograd.backward((y * y.view(10, 100).view(-1)).sum())

    # The first product keeps x alone, since x needs no gradient; the second keeps y, under two shapes.
    assert peak_saved_bytes(step) == 8000
    assert peak_saved_bytes(step, besides=(x, weight)) == 4000


def test_two_steps_need_no_more_than_one() -> None:
    x = torch.zeros(1000, requires_grad=True)

    def step() -> None:
        for _ in range(2):
            torch.autograd.backward(x.tanh().sum())

    assert peak_saved_bytes(step) == 4000


@pytest.mark.parametrize("gradient", ["adjoint", "backprop"])
def test_the_adjoint_keeps_one_evaluation_and_backpropagation_all(gradient: str) -> None:
    x = torch.randn(2, 64, 6, 6, generator=torch.Generator().manual_seed(0))

    def saved(steps: int) -> int:
        integrator = (
            TorchdiffeqIntegrator(TorchdiffeqOptions(method="rk4", steps=steps, gradient="adjoint"))
            if gradient == "adjoint"
            else NativeIntegrator(NativeOptions(method="rk4", steps=steps))
        )
        block = OdeBlock(integrator, torch.Generator().manual_seed(0))
        return peak_saved_bytes(lambda: block(x).sum().backward(), besides=(x, *block.parameters()))

    few, many = saved(2), saved(8)
    if gradient == "adjoint":
        assert few == many
    else:
        assert many > 3.5 * few


def test_a_time_is_the_median_of_those_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = 0.0, 0

    def call() -> None:
        nonlocal clock, calls
        clock += (100.0, 1.0, 5.0, 2.0)[calls]
        calls += 1

    monkeypatch.setattr("flowbench.studies.step_cost.time.process_time", lambda: clock)
    assert cpu_seconds(call, 3) == 2.0 and calls == 4


def test_gradients_are_unchanged() -> None:
    x = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found: list[Tensor] = []
    peak_saved_bytes(lambda: found.append(torch.autograd.grad((x.sin() * x.exp()).sum(), x)[0]))
    torch.testing.assert_close(found[0], x.cos() * x.exp() + x.sin() * x.exp())
