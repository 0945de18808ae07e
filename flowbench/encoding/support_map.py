"""The support of a table's columns: open intervals, mapped onto the whole line and back."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from flowbench.data.lattice import Lattice
from flowbench.data.schema import REAL, Support
from flowbench.encoding.column_items import column_items
from flowbench.errors import ConfigurationError, unknown_name
from flowbench.statistics.weighting import quantile_of

#: The share of a cell by which the ends of a support are beyond it: places in cells are rounded.
ROOM = 1e-9

#: The share of train rows that are nearer to an end than the unit. Measured:
#: benchmarks/DEFAULTS.md#columns-with-ends.
NEAR_SHARE = 0.1
#: The least distance from an end that is a unit, and the least in units that is told apart.
SMALLEST = 1e-300


class SupportMap(nn.Module):
    """Maps each column from its support, an open interval, onto the whole line.

    A column with two ends goes to log(a / b), with the distances a from the low and b from the high end. A
    column with one end goes to log(exp(a / s) - 1), the inverse of softplus, with the distance a from the end
    and a small s: a tenth of the train rows are nearer to the end. Far from it a column stays as it is, but
    for its unit. A high end alone is the same with signs reversed. A column without ends stays as it is. So a
    model never gives probability to values beyond an end, and never draws them.

    `supports` has the support of columns by name; those that it leaves out are real. `low`, `high` and
    `unit`, the s of each column, `(d,)` float64, are saved with the model's weights.

    Raises `ConfigurationError` for a column that is not there, and for ends that are no interval.
    """

    low: Tensor
    high: Tensor
    unit: Tensor

    def __init__(self, columns: Sequence[str], supports: Mapping[str, Support] | None = None) -> None:
        super().__init__()
        self.columns = tuple(columns)
        given = supports or {}
        for name, each in given.items():
            low, high = each.low, each.high
            if name not in self.columns:
                raise ConfigurationError(f"support: {unknown_name('column', name, self.columns)}")
            is_too_wide = math.isfinite(low) and math.isfinite(high) and math.isinf(high - low)
            if not low < high or is_too_wide:
                raise ConfigurationError(
                    f"the support of `{name}` must go from a lower to a higher number; got {low:g} to "
                    f"{high:g}"
                )
        each_column = [given.get(name, REAL) for name in self.columns]
        ends = torch.tensor([(each.low, each.high) for each in each_column], dtype=torch.float64)
        ends = ends.view(len(self.columns), 2)
        self.register_buffer("low", ends[:, 0].clone())
        self.register_buffer("high", ends[:, 1].clone())
        self.register_buffer("unit", torch.ones_like(self.low))

    @classmethod
    def of_values(cls, columns: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The support that plain `values` describe, in the form of `to_values`; None stands for no end.

        Raises `ValueError`, `TypeError` or `KeyError` if they do not have that form.
        """
        return cls(columns, {name: Support.of_ends(values[name]) for name in columns if name in values})

    def to_values(self) -> dict[str, list[float | None]]:
        """Plain values: low and high end by column, None for no end; without real columns."""
        return {name: each.ends for name, each in self.supports.items()}

    @property
    def supports(self) -> dict[str, Support]:
        """The support of each column that has an end, in the order of the columns."""
        each = zip(self.columns, self.low.tolist(), self.high.tolist(), strict=True)
        found = {name: Support(low, high) for name, low, high in each}
        return {name: support for name, support in found.items() if support != REAL}

    def __bool__(self) -> bool:
        """Whether any column has an end."""
        return bool((self.low.isfinite() | self.high.isfinite()).any())

    def holds(self, x: Tensor) -> Tensor:
        """Which cells of `x: (n, d)` lie in their support: `(n, d)`; all of a column without ends."""
        return ((x > self.low) & (x < self.high)) | ~(self._has_one_end | self._has_both_ends)

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Take the units of columns with one end from train rows `x: (n, d)`, which lie in the support.

        The rows count by their `weights: (n,)`, equal ones if None.
        """
        for number in self._has_one_end.nonzero().flatten().tolist():
            end = self.low[number] if self.low[number].isfinite() else self.high[number]
            distance = (x[:, number] - end).abs()
            if weights is None:
                near = max(1, round(NEAR_SHARE * len(x)))
                unit = distance.kthvalue(near).values.item()
            else:
                unit = quantile_of(distance.cpu().numpy(), NEAR_SHARE, weights.cpu().numpy())
            # Of distances whose reciprocal overflows, none is a unit.
            self.unit[number] = unit if unit > SMALLEST else 1.0

    def to_line(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `x: (n, d)` on the line, and log|du/dx| of each cell, both `(n, d)`, nats.

        A cell outside the support goes to 0, and its logarithm is -inf: there is no density there.
        """
        if not self:
            return x, x.new_zeros(()).expand_as(x)
        held, one, both = self.holds(x), self._has_one_end, self._has_both_ends
        side = self._side
        # Numbers that do not count stand in where others would have no finite derivative.
        far = torch.where(held & one, side * (x - self._end) / self.unit, 1.0).clamp(min=SMALLEST)
        bent = torch.log(-torch.expm1(-far))
        below = torch.where(held & both, x - self.low, 1.0).log()
        above = torch.where(held & both, self.high - x, 1.0).log()
        u = torch.where(one, side * (far + bent), torch.where(both, below - above, x))
        slope = torch.where(
            one, -bent - self.unit.log(), torch.where(both, torch.logaddexp(-below, -above), 0.0)
        )
        return torch.where(held, u, 0.0), torch.where(held, slope, -math.inf)

    def to_rows(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_line` for `u: (n, d)`: rows, and log|dx/du| of each cell, both `(n, d)`, nats.

        A value too near an end for float64 is the nearest number inside.
        """
        if not self:
            return u, u.new_zeros(()).expand_as(u)
        one, both, side = self._has_one_end, self._has_both_ends, self._side
        turned = side * u
        # Softplus, without overflow.
        far = -logsigmoid(-turned)
        single = self._end + side * self.unit * far
        width = torch.where(both, self.high - self.low, 1.0)
        log_share, log_rest = logsigmoid(u), logsigmoid(-u)
        # From the nearer end, so that no digits are lost.
        double = torch.where(u < 0, self.low + width * log_share.exp(), self.high - width * log_rest.exp())
        x = torch.where(one, single, torch.where(both, double, u))
        x = torch.where(one | both, x.maximum(self._least).minimum(self._most), x)
        slope = torch.where(
            one,
            self.unit.log() + logsigmoid(turned),
            torch.where(both, width.log() + log_share + log_rest, 0.0),
        )
        return x, slope

    @property
    def _has_one_end(self) -> Tensor:
        """Which columns have one end: `(d,)`."""
        return self.low.isfinite() ^ self.high.isfinite()

    @property
    def _has_both_ends(self) -> Tensor:
        return self.low.isfinite() & self.high.isfinite()

    @property
    def _side(self) -> Tensor:
        """1 where values lie above their only end, and -1 where below: `(d,)`."""
        return torch.where(self.high.isfinite() & self.low.isinf(), -1.0, 1.0)

    @property
    def _end(self) -> Tensor:
        """The only end of each column: `(d,)`; 0 where there is not one."""
        return torch.where(self._has_one_end, torch.where(self.low.isfinite(), self.low, self.high), 0.0)

    @property
    def _least(self) -> Tensor:
        """The least number of each support: `(d,)`."""
        return torch.nextafter(self.low, self.high)

    @property
    def _most(self) -> Tensor:
        return torch.nextafter(self.high, self.low)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, value in (("low", -math.inf), ("high", math.inf), ("unit", 1.0)):
            # Runs from before there was any.
            state_dict.setdefault(prefix + name, torch.full_like(self.low, value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def parse_supports(text: str) -> dict[str, Support]:
    """The support of each column in "mass=0:,share=0:1"; raises `ConfigurationError` for other text.

    An end that is left out is infinite. "auto" in front is passed over. Parentheses, as in "mass=(0:)", say
    that ends are no values of a dequantised column either (`open_supports`).
    """
    supports: dict[str, Support] = {}
    for item in column_items(text):
        name, equals, ends = (part.strip() for part in item.rpartition("="))
        if _is_open(ends):
            ends = ends[1:-1]
        low, colon, high = (part.strip() for part in ends.partition(":"))
        try:
            found = (float(low) if low else -math.inf, float(high) if high else math.inf)
        except ValueError:
            found = (math.nan, math.nan)
        if not (name and equals and colon and found[0] < found[1]):
            raise ConfigurationError(
                f"takes auto, none, or intervals such as mass=0:,share=0:1; got `{text}`"
            )
        if name in supports:
            raise ConfigurationError(f"names `{name}` twice; got `{text}`")
        supports[name] = Support(*found)
    return supports


def open_supports(text: str) -> set[str]:
    """The columns whose interval stands in parentheses in the text of `parse_supports`."""
    parts = [item.rpartition("=") for item in column_items(text)]
    return {name.strip() for name, _, ends in parts if _is_open(ends.strip())}


def _is_open(ends: str) -> bool:
    return ends.startswith("(") and ends.endswith(")")


def to_cells(support: Support, lattice: Lattice, *, holds_ends: bool) -> Support:
    """The `support` of places in cells: of all cells whose middle, a value, lies in `support`.

    `holds_ends` says whether a value on an end counts. The support reaches a little beyond the outermost
    cells, since places are rounded.
    """
    low, high = ((end - lattice.origin) / lattice.step for end in (support.low, support.high))
    least, most = (math.ceil, math.floor) if holds_ends else (_above, _below)
    # An infinite end stays where it is.
    first = least(low) - 0.5 - ROOM if math.isfinite(low) else low
    last = most(high) + 0.5 + ROOM if math.isfinite(high) else high
    return Support(lattice.origin + lattice.step * first, lattice.origin + lattice.step * last)


def _above(number: float) -> int:
    """The least whole number above."""
    return math.floor(number) + 1


def _below(number: float) -> int:
    return math.ceil(number) - 1
