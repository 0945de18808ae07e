"""Standardisation: zero mean and unit variance in every column."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import DataError
from flowbench.transforms.base import Transform


class StandardiseOptions(options.PartOptions):
    """Standardisation has nothing to choose."""

    name: Literal["standardise"] = "standardise"


class Standardise(Transform):
    """z = (x - mean) / scale, with mean and standard deviation of the train rows."""

    Options: ClassVar[type[options.PartOptions]] = StandardiseOptions
    mean: Tensor
    scale: Tensor

    def __init__(self, columns: tuple[str, ...], options: options.PartOptions) -> None:
        super().__init__(columns, options)
        self.register_buffer("mean", torch.zeros(len(columns), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(len(columns), dtype=torch.float64))

    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation of `x: (n, d)`; a column without spread is a `DataError`."""
        mean, scale = mean_and_scale(x, self.columns)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise `x: (n, d)`; returns `z: (n, d)` and log|det dz/dx|: `(n,)`."""
        return (x - self.mean) / self.scale, -self._log_det(x)

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_model` for `z: (n, d)`; returns `x: (n, d)` and log|det dx/dz|: `(n,)`."""
        return self.mean + self.scale * z, self._log_det(z)

    def _log_det(self, like: Tensor) -> Tensor:
        return self.scale.log().sum().expand(len(like))


def mean_and_scale(x: Tensor, columns: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(d,)` of `x: (n, d)`; raises `DataError` for a column without spread."""
    mean = x.mean(0)
    scale = (x - mean).square().mean(0).sqrt()
    # A spread at the level of rounding is no spread: the density would be a spike.
    flat = (scale <= 1e-12 * mean.abs()) | ~torch.isfinite(scale)
    if flat.any():
        column = columns[int(flat.nonzero()[0])]
        raise DataError(
            f"column `{column}` has no finite spread in the {len(x)} train rows, so it has no density; "
            "leave it out of the columns, or give more rows"
        )
    return mean, scale
