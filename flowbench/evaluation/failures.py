"""Going on past rows whose solve fails."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.models.density import Scores

T = TypeVar("T")

#: So many parts of a batch at most are taken apart any further in the search for rows that fail.
MOST_PARTS = 8


def past_failures(n: int, work: Callable[[Tensor], T]) -> tuple[Tensor, T | None, dict[int, str]]:
    """What `work` makes of those of `n` rows that it does not fail on.

    `work` gets the numbers of rows, `(m,)`, ascending. Where it raises an `IntegrationError` that names rows,
    by their places among these, it is asked again without them: what it makes of the others is what it would
    have made had the failing ones never been there. Returns the numbers of the rows that are left, `(k,)`,
    what was made of them, None if there are none, and why each of the others failed.

    An `IntegrationError` that names no rows is passed on.
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


def failing_rows(solve: Callable[[Tensor], object], x: Tensor, error: IntegrationError) -> Mapping[int, str]:
    """Which of the rows `x: (n, d)` make `solve` fail, which failed with `error`, and why each of them.

    A solver whose rows share their steps cannot tell. Then the rows are halved until those that fail stand
    alone, or until more than `MOST_PARTS` parts fail: a solver that fails on much is not asked for ever.
    Parts that still hold several rows are lost whole, and so are all rows where only all together fail.
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
    """The scores of `n` rows, those of the rows `kept: (k,)` in their places and NaN in the others."""
    if scores is None:
        return Scores(torch.full((n,), torch.nan, dtype=torch.float64), nfe=0)
    error = scores.local_error
    return Scores(
        spread(scores.log_prob, kept, n),
        scores.nfe,
        None if error is None else spread(error, kept, n),
    )


def spread(values: Tensor, kept: Tensor, n: int) -> Tensor:
    """`values: (k,)` in the places `kept: (k,)` of `(n,)`, and NaN in the others."""
    spread = values.new_full((n,), torch.nan)
    spread[kept] = values
    return spread
