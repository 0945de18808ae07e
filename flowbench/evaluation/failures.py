"""Scoring the other rows of a batch in which some solves fail."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.models.density import Scores
from flowbench.models.rows import Rows

T = TypeVar("T")
Batch = TypeVar("Batch", Tensor, Rows)

#: A search for the rows that fail stops once more parts of a batch than these fail.
MOST_PARTS = 8


def past_failures(n: int, work: Callable[[Tensor], T]) -> tuple[Tensor, T | None, dict[int, str]]:
    """The result of `work` for those of `n` rows that it does not fail on.

    `work` gets the numbers of rows, `(m,)`, ascending. If it raises an `IntegrationError` that names rows, by
    their places among these, it is called again without them. Its result is therefore the one that it would
    have without the rows that fail.

    Returns the numbers of the rows that are left, `(k,)`, the result for them (None if no row is left), and
    the cause of each failure by the row's number. An `IntegrationError` that names no rows is passed on.
    """
    kept, failed = torch.arange(n), dict[int, str]()
    while len(kept):
        try:
            return kept, work(kept), failed
        except IntegrationError as error:
            if not error.rows:
                raise
            lost = torch.zeros_like(kept, dtype=torch.bool)
            lost[list(error.rows)] = True
            failed |= {int(kept[place]): cause for place, cause in error.rows.items()}
            kept = kept[~lost]
    return kept, None, failed


def failing_rows(solve: Callable[[Batch], object], x: Batch, error: IntegrationError) -> Mapping[int, str]:
    """The rows of `x`, n of them, that make `solve` fail, by number, with the cause of each.

    `error` is what `solve` raised for all rows together. A solver whose rows share their steps cannot say
    which rows fail. The rows are then halved until each part that fails is a single row, or until more than
    `MOST_PARTS` parts fail, so that the search ends. Every row of a part that fails counts as failed. If no
    part fails by itself, all rows do.
    """
    if error.rows:
        return error.rows
    parts = [torch.arange(len(x))]
    causes = [error.cause]
    while len(parts) <= MOST_PARTS and any(len(part) > 1 for part in parts):
        found: list[tuple[Tensor, str]] = []
        for part, cause in zip(parts, causes, strict=True):
            if len(part) == 1:
                found.append((part, cause))
                continue
            for half in part.tensor_split(2):
                try:
                    solve(x[half])
                except IntegrationError as failure:
                    found.append((half, failure.cause))
        if not found:
            break
        parts, causes = [part for part, _ in found], [cause for _, cause in found]
    return {
        row: cause or error.cause or "its solver does not say why"
        for part, cause in zip(parts, causes, strict=True)
        for row in part.tolist()
    }


def spread_scores(scores: Scores | None, kept: Tensor, n: int) -> Scores:
    """The scores of `n` rows: `scores` at the rows `kept: (k,)`, and NaN at the others.

    `scores` is None if no row is kept.
    """
    if scores is None:
        return Scores(torch.full((n,), torch.nan, dtype=torch.float64), nfe=0)
    error = scores.local_error
    return Scores(
        spread(scores.log_prob, kept, n),
        scores.nfe,
        None if error is None else spread(error, kept, n),
    )


def spread(values: Tensor, kept: Tensor, n: int) -> Tensor:
    """`(n,)` with `values: (k,)` at the places `kept: (k,)`, and NaN at the others."""
    spread = values.new_full((n,), torch.nan)
    spread[kept] = values
    return spread
