"""The rows of a fit: what their shapes have to be, and that a row keeps its context."""

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.training.training_rows import TrainingRows


def numbered(n: int, features: int = 2) -> Rows:
    """Rows that scatter, each with its number, and ten times it, as context."""
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(n))
    number = torch.arange(n, dtype=torch.float32)
    return Rows(x, torch.stack([number, 10 * number], 1))


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        (torch.zeros(3), None, r"rows must be a floating-point matrix.*\(3,\)"),
        (torch.zeros(3, 2, dtype=torch.int64), None, "rows must be a floating-point matrix.*int64"),
        (torch.zeros(3, 2), torch.zeros(3), r"context must be a floating-point matrix.*\(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.bool), "context must be.*bool"),
        (torch.zeros(3, 2), torch.zeros(4, 1), "one row for each of the 3 rows; got 4"),
        (torch.zeros(3, 2), torch.zeros(3, 1, device="meta"), "on one device; got cpu and meta"),
    ],
)
def test_other_shapes_are_refused(x: Tensor, context: Tensor | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Rows(x, context)


def test_a_selection_and_the_parts_keep_the_context() -> None:
    rows = numbered(7)
    assert len(rows) == 7
    chosen = rows[torch.tensor([5, 0])]
    assert chosen.context is not None
    assert torch.equal(chosen.x, rows.x[[5, 0]])
    assert chosen.context[:, 0].tolist() == [5, 0]
    parts = rows.split(3)
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.x for part in parts]), rows.x)
    assert rows.context is not None
    assert torch.equal(torch.cat([part.context for part in parts if part.context is not None]), rows.context)
    assert all(part.context is None for part in Rows(rows.x).split(3))


@pytest.mark.parametrize(
    ("train", "validation", "reserve", "message"),
    [
        (numbered(0), numbered(5), None, "no train rows"),
        (numbered(5), numbered(0), None, "no validation rows"),
        (numbered(5), numbered(5, features=3), None, "train and validation rows.*2 columns.*3 columns"),
        (numbered(5), Rows(torch.zeros(5, 2)), None, "and 2 of context and 2 columns and no context"),
        (Rows(torch.zeros(5, 2)), Rows(torch.zeros(5, 2)), numbered(5), "train and reserve rows"),
        (numbered(5), numbered(5), Rows(torch.zeros(5, 2), torch.zeros(5, 1)), "train and reserve rows"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    train: Rows, validation: Rows, reserve: Rows | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrainingRows(train, validation, reserve)


def test_a_reserve_without_rows_is_none() -> None:
    assert TrainingRows(numbered(5), numbered(5), numbered(0)).reserve is None


def test_a_batch_has_each_row_with_its_own_context() -> None:
    rows = TrainingRows(numbered(50), numbered(5))
    batch = rows.draw(2000, 0.0, seed())
    assert batch.context is not None
    number = batch.context[:, 0].long()
    assert torch.equal(batch.x, rows.train.x[number])
    assert torch.equal(batch.context[:, 1], 10 * batch.context[:, 0])
    # All of them, about as often: 40 times each, give or take 6.
    assert number.bincount(minlength=50).min() > 15


def test_rows_without_context_are_drawn_as_those_with_one() -> None:
    rows = numbered(50)
    alone = TrainingRows(Rows(rows.x), Rows(rows.x)).draw(10, 0.0, seed())
    assert alone.context is None
    assert torch.equal(alone.x, TrainingRows(rows, rows).draw(10, 0.0, seed()).x)


@pytest.mark.parametrize("width", [0.0, 0.3])
def test_a_smoother_moves_rows_and_leaves_their_context(width: float) -> None:
    rows = numbered(50)
    assert rows.context is not None
    mixture = Mixture(2, 2)
    mixture.fit(rows.x.double(), context=rows.context.double())
    drawn = TrainingRows(rows, rows, smoother=SmoothedBootstrap(rows, mixture)).draw(500, width, seed())
    assert drawn.context is not None
    number = drawn.context[:, 0].long()
    assert torch.equal(drawn.context, rows.context[number])
    assert torch.equal(drawn.x, rows.x[number]) == (width == 0)
