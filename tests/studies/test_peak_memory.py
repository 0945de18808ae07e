"""Saved bytes against closed forms; a process of its own sees what its computation needs."""

import os
import signal

import pytest
import torch
from torch import Tensor

from flowbench.errors import RunFailedError
from flowbench.studies.peak_memory import SavedBytes, in_process_of_its_own


def chain(x: Tensor, links: int) -> Tensor:
    for _ in range(links):
        x = torch.tanh(x)
    return x


@pytest.mark.parametrize("links", [1, 7])
def test_each_tanh_keeps_its_output_until_the_backward_pass(links: int) -> None:
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    saved = SavedBytes()
    with saved:
        y = chain(x, links).sum()
        assert saved.now == saved.peak == links * 8000
        y.backward()  # type: ignore[no-untyped-call]
    assert saved.now == 0 and saved.peak == links * 8000


def test_a_graph_that_is_retained_goes_with_its_output() -> None:
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    saved = SavedBytes()
    with saved:
        for _ in range(3):
            y = chain(x, 2).sum()
            torch.autograd.grad(y, x, retain_graph=True)
            assert saved.now == 16_000
            del y
            assert saved.now == 0
    assert saved.peak == 16_000


def test_shared_memory_counts_once_and_parameters_do_not() -> None:
    x = torch.ones(10, 10, requires_grad=True)
    layer = torch.nn.Linear(10, 10)
    saved = SavedBytes(layer.parameters())
    with saved:
        y = layer(x)
        assert saved.now == 400
        assert (y * y.T).sum().requires_grad
    assert saved.peak == 800


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(RunFailedError, match="too little memory"):
        in_process_of_its_own(os._exit, 1)


def test_an_interruption_waits_for_the_end() -> None:
    assert in_process_of_its_own(signal.raise_signal, signal.SIGINT) is None
