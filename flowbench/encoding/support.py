"""The support of a table's columns: open intervals, mapped onto the whole line and back."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from flowbench.errors import ConfigurationError, unknown_name

Interval = tuple[float, float]

#: The largest exponent of e that a float64 holds, with some to spare.
LARGEST = 709.0
WHOLE_LINE: Interval = (-math.inf, math.inf)


class Support(nn.Module):
    """Maps each column from its support, an open interval, onto the whole line.

    With the distances a from the low end and b from the high end, a column goes to log a if it has a low end
    alone, to -log b if it has a high end alone, and to log a - log b if it has both. A column without ends
    stays as it is. So a model never gives probability to values beyond an end, and never draws them.

    `intervals` are low and high end by column name, infinite for no end; columns that it leaves out have
    none. `low` and `high`, `(d,)` float64, are saved with the model's weights.

    Raises `ConfigurationError` for a column that is not there, and for ends that are no interval.
    """

    low: Tensor
    high: Tensor

    def __init__(self, columns: Sequence[str], intervals: Mapping[str, Interval] | None = None) -> None:
        super().__init__()
        self.columns = tuple(columns)
        given = intervals or {}
        for name, (low, high) in given.items():
            if name not in self.columns:
                raise ConfigurationError(f"support: {unknown_name('column', name, self.columns)}")
            is_too_wide = math.isfinite(low) and math.isfinite(high) and math.isinf(high - low)
            if not low < high or is_too_wide:
                raise ConfigurationError(
                    f"the support of `{name}` must go from a lower to a higher number; got {low:g} to "
                    f"{high:g}"
                )
        ends = torch.tensor([given.get(name, WHOLE_LINE) for name in self.columns], dtype=torch.float64)
        ends = ends.view(len(self.columns), 2)
        self.register_buffer("low", ends[:, 0].clone())
        self.register_buffer("high", ends[:, 1].clone())

    @classmethod
    def of_values(cls, columns: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The support that plain `values` describe, in the form of `to_values`; None stands for no end.

        Raises `ValueError`, `TypeError` or `KeyError` if they do not have that form.
        """
        return cls(
            columns,
            {
                name: (
                    -math.inf if values[name][0] is None else float(values[name][0]),
                    math.inf if values[name][1] is None else float(values[name][1]),
                )
                for name in columns
                if name in values
            },
        )

    def to_values(self) -> dict[str, list[float | None]]:
        """Plain values: low and high end by column, None for no end; without columns that have none."""
        return {
            name: [end if math.isfinite(end) else None for end in ends]
            for name, ends in self.intervals.items()
        }

    @property
    def intervals(self) -> dict[str, Interval]:
        """Low and high end of each column that has one, in the order of the columns."""
        each = zip(self.columns, self.low.tolist(), self.high.tolist(), strict=True)
        return {name: (low, high) for name, low, high in each if (low, high) != WHOLE_LINE}

    def __bool__(self) -> bool:
        """Whether any column has an end."""
        return bool((self.low.isfinite() | self.high.isfinite()).any())

    def holds(self, x: Tensor) -> Tensor:
        """Which cells of `x: (n, d)` lie in their column's support: `(n, d)`."""
        return (x > self.low) & (x < self.high)

    def to_line(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `x: (n, d)` on the line, and log|du/dx| of each cell, both `(n, d)`, nats.

        A cell outside the support goes to 0, and its logarithm is -inf: there is no density there.
        """
        if not self:
            return x, x.new_zeros(()).expand_as(x)
        held = self.holds(x)
        # The ends that are not there are at the distance 1, whose logarithm is 0.
        below, above = (
            torch.where(held & end.isfinite(), distance, 1.0).log()
            for end, distance in ((self.low, x - self.low), (self.high, self.high - x))
        )
        # The derivative of log a - log b is 1 / a + 1 / b.
        slope = torch.logaddexp(
            torch.where(self.low.isfinite(), -below, -math.inf),
            torch.where(self.high.isfinite(), -above, -math.inf),
        )
        u = torch.where(self._is_free, x, below - above)
        return torch.where(held, u, 0.0), torch.where(held, torch.where(self._is_free, 0.0, slope), -math.inf)

    def to_rows(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_line` for `u: (n, d)`: rows, and log|dx/du| of each cell, both `(n, d)`, nats.

        A value too near an end for float64 is the nearest number inside.
        """
        if not self:
            return u, u.new_zeros(()).expand_as(u)
        has_low, has_high = self.low.isfinite(), self.high.isfinite()
        width = torch.where(has_low & has_high, self.high - self.low, 1.0)
        log_share, log_rest = logsigmoid(u), logsigmoid(-u)
        # With one end the distance from it is exp(u), or exp(-u).
        log_below = torch.where(has_high, log_share + width.log(), u).clamp(max=LARGEST)
        log_above = torch.where(has_low, log_rest + width.log(), -u).clamp(max=LARGEST)
        # From the nearer end, so that no digits are lost.
        is_nearer_to_low = has_low & (~has_high | (u < 0))
        x = torch.where(is_nearer_to_low, self.low + log_below.exp(), self.high - log_above.exp())
        x = torch.where(self._is_free, u, x.maximum(self._least).minimum(self._most))
        log_slope = torch.where(
            has_low & has_high, width.log() + log_share + log_rest, torch.where(has_low, u, -u)
        )
        return x, torch.where(self._is_free, 0.0, log_slope)

    @property
    def _is_free(self) -> Tensor:
        """Which columns have no end: `(d,)`."""
        return self.low.isinf() & self.high.isinf()

    @property
    def _least(self) -> Tensor:
        """The least number of each support: `(d,)`."""
        return torch.nextafter(self.low, self.high)

    @property
    def _most(self) -> Tensor:
        return torch.nextafter(self.high, self.low)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, value in (("low", -math.inf), ("high", math.inf)):
            # Runs from before there was any.
            state_dict.setdefault(prefix + name, torch.full_like(self.low, value))
        super()._load_from_state_dict(state_dict, prefix, *args)
