"""The rows that a fit learns from and is judged by, each with its context where there is one."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.training.smoothing import SmoothedBootstrap


@dataclass(frozen=True)
class Rows:
    """Rows `x: (n, d)` in model space, and the `context: (n, c)` that a conditional density takes with them.

    `context` is None for an unconditional density. Raises `ConfigurationError` for another shape, for
    numbers that are not floating-point, and for parts on different devices.
    """

    x: Tensor
    context: Tensor | None = None

    def __post_init__(self) -> None:
        _check_matrix("rows", self.x)
        if self.context is None:
            return
        _check_matrix("context", self.context)
        if len(self.context) != len(self.x):
            raise ConfigurationError(
                f"context must have one row for each of the {len(self.x)} rows; got {len(self.context)}"
            )
        if self.context.device != self.x.device:
            raise ConfigurationError(
                f"rows and context must be on one device; got {self.x.device} and {self.context.device}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(self.x[index], None if self.context is None else self.context[index])

    def split(self, size: int) -> list[Self]:
        """The same rows in consecutive parts of `size`; the last may be smaller."""
        x = torch.split(self.x, size)
        if self.context is None:
            return [type(self)(part) for part in x]
        return [type(self)(*part) for part in zip(x, torch.split(self.context, size), strict=True)]


class TrainingRows:
    """What a fit has of a table: rows to learn from, and held-out rows that choose among weights.

    `validation` rows judge the weights throughout. `reserve` rows choose between the best and the last
    weights at the end; None, or no rows, where there are too few. `smoother` draws around the train rows in
    phases with `smoothing`; without one they are taken as they are. Raises `ConfigurationError` if there are
    no rows to train on or to validate on, or if the parts differ in their columns.
    """

    def __init__(
        self,
        train: Rows,
        validation: Rows,
        reserve: Rows | None = None,
        smoother: SmoothedBootstrap | None = None,
    ) -> None:
        self.train = train
        self.validation = validation
        self.reserve = reserve if reserve is not None and len(reserve) else None
        self.smoother = smoother
        for name, part in (("train", train), ("validation", validation)):
            if not len(part):
                raise ConfigurationError(f"there are no {name} rows; a fit needs one at least")
        held_out = {"validation": self.validation, "reserve": self.reserve}
        for name, other in held_out.items():
            if other is not None and _widths(other) != _widths(train):
                raise ConfigurationError(
                    f"train and {name} rows must have the same columns; got {_described(train)} and "
                    f"{_described(other)}"
                )

    def draw(self, n: int, width: float, generator: torch.Generator) -> Rows:
        """`n` train rows, drawn with replacement, each with its own context.

        With a smoother and a `width` above zero, they are draws around these rows. The context has no noise.
        """
        chosen = torch.randint(len(self.train), (n,), generator=generator, device=self.train.x.device)
        if self.smoother is None or not width:
            return self.train[chosen]
        context = None if self.train.context is None else self.train.context[chosen]
        return Rows(self.smoother.draw(chosen, width, generator), context)


def _check_matrix(name: str, values: Tensor) -> None:
    if values.ndim != 2 or not values.is_floating_point():
        raise ConfigurationError(
            f"{name} must be a floating-point matrix, one row each; got shape {tuple(values.shape)} and "
            f"{values.dtype}"
        )


def _widths(rows: Rows) -> tuple[int, int | None]:
    return rows.x.shape[1], None if rows.context is None else rows.context.shape[1]


def _described(rows: Rows) -> str:
    columns, givens = _widths(rows)
    return f"{columns} columns " + ("and no context" if givens is None else f"and {givens} of context")
