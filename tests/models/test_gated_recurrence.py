"""The gated recurrent network is torch's, in values and gradients."""

import pytest
import torch

from flowbench.models.series.gated_recurrence import gated_states
from flowbench.models.series.networks import seeded_gru


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("with_ends", [False, True])
def test_states_and_gradients_are_those_of_torch(length: int, with_ends: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    n, width, units = 7, 3, 4
    network = seeded_gru(width, units, generator).double()
    inputs = torch.randn(n, length, width, generator=generator, dtype=torch.float64).requires_grad_()
    first = (2 * torch.rand(n, units, generator=generator, dtype=torch.float64) - 1).requires_grad_()
    expected, _ = network(inputs, first[None])
    ends = None
    if with_ends:
        ends = torch.randint(length, (n,), generator=generator)
        expected = expected[torch.arange(n), ends]
    found = gated_states(network, inputs, first, ends)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    wanted = [inputs, first, *network.parameters()]
    ours, theirs = (torch.autograd.grad((each * weights).sum(), wanted) for each in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_inputs_without_gradients_get_none() -> None:
    generator = torch.Generator().manual_seed(0)
    network = seeded_gru(3, 4, generator)
    inputs = torch.randn(2, 5, 3, generator=generator)
    gated_states(network, inputs, torch.zeros(2, 4)).sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is None
    assert all(parameter.grad is not None for parameter in network.parameters())
