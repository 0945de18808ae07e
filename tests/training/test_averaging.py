"""The moving average of the weights."""

import pytest
import torch

from flowbench.training.weight_average import average_decay, update_average


def test_the_decay_grows_to_its_limit() -> None:
    decays = [average_decay(step, 0.9) for step in (0, 8, 80, 89, 10_000)]
    assert decays == pytest.approx([1 / 10, 9 / 18, 81 / 90, 0.9, 0.9])


def test_it_is_the_weighted_sum_of_all_weights() -> None:
    weights = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = {"w": weights[0].clone()}
    held = average["w"]
    for each in weights[1:]:
        update_average(average, {"w": each}, 0.8)
    shares = torch.tensor([0.8**6] + [0.2 * 0.8 ** (6 - k) for k in range(1, 7)], dtype=torch.float64)
    assert shares.sum().item() == pytest.approx(1)
    torch.testing.assert_close(held, shares @ weights)
    assert average["w"] is held


def test_masks_and_orders_stay() -> None:
    average = {"w": torch.zeros(2), "order": torch.tensor([1, 0]), "mask": torch.tensor([True, False])}
    update_average(average, {**average, "w": torch.ones(2, requires_grad=True)}, 0.5)
    assert average["w"].tolist() == [0.5, 0.5]
    assert not average["w"].requires_grad
    assert average["order"].tolist() == [1, 0]
    assert average["mask"].tolist() == [True, False]
