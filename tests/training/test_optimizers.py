"""Optimisers: that they descend, and that their state is saved and restored whole."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from flowbench.training.optimizers import (
    MAX_PRECONDITIONED,
    OptimizerName,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from flowbench.training.state import from_arrays, to_arrays

#: A matrix, a vector and a number, what fields and discrete flows consist of; and a matrix with a long side.
SHAPES = ((4, 3), (3,), (), (2, MAX_PRECONDITIONED + 1))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def loss(own: list[nn.Parameter]) -> Tensor:
    """A quadratic that is a hundred times steeper along one direction of the matrix than along another."""
    steepness = torch.logspace(0, 2, 3)
    turned: Tensor = own[0] @ torch.linalg.qr(torch.arange(9.0).reshape(3, 3) + torch.eye(3))[0]
    return (turned.square() * steepness).sum() + sum(one.square().sum() for one in own[1:])


def step(optimizer: torch.optim.Optimizer, own: list[nn.Parameter], rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss(own).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_it_descends(name: OptimizerName) -> None:
    own = parameters()
    optimizer = make_optimizer(name, own)
    before = loss(own).item()
    for k in range(300):
        step(optimizer, own, 0.1 * (1 - k / 300))
    assert loss(own).item() < 1e-3 * before


def test_long_sides_have_no_eigenbasis() -> None:
    own = parameters()
    optimizer = make_optimizer("soap", own)
    step(optimizer, own, 0.1)
    sizes = [
        tensor.numel() for part in optimizer.state.values() for tensor in part["Q"] if torch.is_tensor(tensor)
    ]
    assert sizes and max(sizes) <= 4**2


@pytest.mark.parametrize("taken", [0, 1, 2, 25])
@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_it_goes_on_from_its_saved_state_bit_for_bit(name: OptimizerName, taken: int) -> None:
    own = parameters()
    optimizer = make_optimizer(name, own)
    for _ in range(taken):
        step(optimizer, own, 0.01)
    saved = from_arrays(to_arrays(optimizer_tensors(optimizer)))
    saved = dict(reversed(saved.items()))  # a file may have an order of its own
    copies = [nn.Parameter(each.detach().clone()) for each in own]
    restored = make_optimizer(name, copies)
    restore_optimizer(restored, saved)
    for _ in range(25):
        step(optimizer, own, 0.01)
        step(restored, copies, 0.01)
    assert all(torch.equal(one, other) for one, other in zip(own, copies, strict=True))


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_its_state_is_a_copy(name: OptimizerName) -> None:
    own = parameters()
    optimizer = make_optimizer(name, own)
    for _ in range(3):
        step(optimizer, own, 0.01)
    saved = optimizer_tensors(optimizer)
    before = {key: value.clone() for key, value in saved.items()}
    for _ in range(3):
        step(optimizer, own, 0.01)
    assert all(torch.equal(saved[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_a_density_without_parameters_has_one(name: OptimizerName) -> None:
    optimizer = make_optimizer(name, [])
    assert not optimizer_tensors(optimizer)
