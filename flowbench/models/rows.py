"""Rows of numbers, each with its context where there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.errors import ConfigurationError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows `x: (n, d)`, and the `context: (n, c)` that a conditional density takes with them.

    Both are in model space or both in data units, as whoever passes them on says. `context` is None for an
    unconditional density. `weights: (n,)` say how much each row counts; only their ratios matter, and None
    stands for equal ones. Raises `ConfigurationError` for another shape, for
    numbers that are not floating-point, and for parts on different devices.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_matrix("rows", self.x)
        if self.weights is not None and self.weights.shape != (len(self.x),):
            raise ConfigurationError(
                f"weights must be one number for each of the {len(self.x)} rows; got shape "
                f"{tuple(self.weights.shape)}"
            )
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

    def __getitem__(self, index: Tensor | slice) -> Self:
        return self.each(lambda part: part[index])

    @classmethod
    def of_arrays(cls, x: Floats, context: Floats | None, weights: Floats | None = None) -> Self:
        """Rows `x: (n, d)` and their `context: (n, c)`, if there is one, as tensors of their own.

        `weights: (n,)` are divided by the largest, so that float32 holds them.
        """
        return cls(
            torch.tensor(x),
            None if context is None else torch.tensor(context),
            None if weights is None else torch.tensor(weights / np.max(weights)),
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The rows, their context and their weights after a `change` that keeps a row a row."""
        context, weights = (None if part is None else change(part) for part in (self.context, self.weights))
        return type(self)(change(self.x), context, weights)

    @classmethod
    def join(cls, parts: "Sequence[Rows]") -> Self:
        """The rows of all `parts`, of which there is one at least, in their order."""
        contexts = [part.context for part in parts if part.context is not None]
        weights = [part.weights for part in parts if part.weights is not None]
        return cls(
            torch.cat([part.x for part in parts]),
            torch.cat(contexts) if contexts else None,
            torch.cat(weights) if weights else None,
        )

    def at(self, x: Tensor) -> Self:
        """The rows `x: (n, d)` in the place of these, with the context and the weights of these."""
        return type(self)(x, self.context, self.weights)

    @property
    def unweighted(self) -> Self:
        """The same rows and context, which count alike."""
        return type(self)(self.x, self.context)

    def split(self, size: int) -> list[Self]:
        """The same rows in consecutive parts of `size`; the last may be smaller."""
        return [self[start : start + size] for start in range(0, max(len(self), 1), size)]


def _check_matrix(name: str, values: Tensor) -> None:
    if values.ndim != 2 or not values.is_floating_point():
        raise ConfigurationError(
            f"{name} must be a floating-point matrix, one row each; got shape {tuple(values.shape)} and "
            f"{values.dtype}"
        )
