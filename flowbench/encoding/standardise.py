"""Standardisation: zero mean and unit variance in every column."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowbench import options
from flowbench.encoding.reach import Reach
from flowbench.encoding.transform import Transform
from flowbench.errors import DataError

#: The least standard deviation relative to the mean. There float64 has some 4,500 values to a standard
#: deviation. With fewer, neither differences of values nor slopes of a density are reliable.
NARROWEST = 1e-12
#: The least standard deviation: the square of a smaller one loses digits.
SMALLEST = 1e-150


class StandardiseOptions(options.PartOptions):
    """Standardisation has no options."""

    name: Literal["standardise"] = "standardise"


class Standardise(Transform):
    """z = (x - mean) / scale, with mean and standard deviation of the training rows.

    Values extremely far from the others are first replaced by a logarithm of their distance, as in
    `flowbench.encoding.reach`.
    """

    Options: ClassVar[type[options.PartOptions]] = StandardiseOptions
    mean: Tensor
    scale: Tensor

    def __init__(self, columns: tuple[str, ...], options: options.PartOptions) -> None:
        super().__init__(columns, options)
        self.reach = Reach(len(columns))
        self.register_buffer("mean", torch.zeros(len(columns), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(len(columns), dtype=torch.float64))

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Take mean and standard deviation of `x: (n, d)`; raises `DataError` for a column without spread."""
        mean, scale = mean_and_scale(self.reach.fit(x, weights), self.columns, weights)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise `x: (n, d)`; returns `z: (n, d)` and log(dz/dx): `(n, d)`."""
        near, log_slope = self.reach.to_near(x)
        return (near - self.mean) / self.scale, log_slope - self.scale.log()

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_model` for `z: (n, d)`; returns `x: (n, d)` and log(dx/dz): `(n, d)`."""
        x, log_slope = self.reach.to_far(self.mean + self.scale * z)
        return x, log_slope + self.scale.log()


def mean_and_scale(
    x: Tensor, columns: tuple[str, ...], weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(d,)` of `x: (n, d)`, by the `weights: (n,)` of the rows.

    Raises `DataError` for a column without spread, and for one whose spread is beyond the precision of
    float64.
    """
    mean = mean_of_rows(x, weights)
    scale = mean_of_rows((x - mean).square(), weights).sqrt()
    unfit = (scale <= NARROWEST * mean.abs()) | (scale < SMALLEST) | ~torch.isfinite(scale)
    if unfit.any():
        number = int(unfit.nonzero()[0])
        raise DataError(_why_unfit(columns[number], x[:, number]))
    return mean, scale


def mean_of_rows(x: Tensor, weights: Tensor | None) -> Tensor:
    """The mean `(d,)` of `x: (n, d)` by the `weights: (n,)` of the rows, equal ones if None."""
    return x.mean(0) if weights is None else (weights / weights.sum()).to(x) @ x


def _why_unfit(name: str, column: Tensor) -> str:
    """The error message for the spread of a `column: (n,)`."""
    rows = f"the {len(column)} train rows"
    if not torch.isfinite(column).all():
        return (
            f"column `{name}` holds values in {rows} that are no finite numbers; leave it out of the columns"
        )
    if (column == column[0]).all():
        return (
            f"column `{name}` has one value, {float(column[0]):.6g}, in {rows}, so it has no density; "
            "leave it out of the columns, or give more rows"
        )
    # Relative to one of the values, and in units of the largest distance from it, nothing is lost to rounding
    # or to the range of float64.
    half = column / 2 - column[0] / 2
    unit = half.abs().max()
    scaled = half / unit
    spread = 2 * float(unit * (scaled - scaled.mean()).square().mean().sqrt())
    mean = 2 * float(column[0] / 2 + unit * scaled.mean())
    found = f"column `{name}` has a spread of {spread:.6g} about a mean of {mean:.6g} in {rows}"
    if spread <= 2 * NARROWEST * abs(mean):
        return (
            f"{found}, too small beside it for float64 to be trusted with: it must be above {NARROWEST:g} of "
            "the mean; subtract a constant close to the mean from the column, or leave it out"
        )
    size, remedy = ("large", "look for outliers, or divide") if spread > 1 else ("small", "multiply")
    return (
        f"{found}, too {size} for float64, which cannot hold its square; {remedy} the column by a power of "
        "ten, or leave it out"
    )
