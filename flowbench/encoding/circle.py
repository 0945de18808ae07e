"""Periodic columns: from the circle that their values lie on to the line, and back."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from flowbench.data.periods import Period
from flowbench.errors import ConfigurationError, unknown_name

#: The most periodic columns of one density: m of them take 2^m solves for each row.
MOST = 3


class Circle(nn.Module):
    """Periodic columns: their values lie on a circle, which is cut open for a model of the line.

    With the period from o to o + P, a value t is the same as t + P, t - P and so on. On the line it has two
    copies: y = t and y = t - P, both between o - P and o + P. A train row goes to one of them at random, with
    the probabilities w(y) = cos^2(pi (y - o) / (2 P)), which add up to 1. So the density on the line has no
    jump at the cut, and falls to 0 at both ends, which `to_line` maps to infinity.
    Whatever density a model learns on the line, that on the circle is the sum over both copies. So it
    integrates to 1. With m periodic columns the sum is over the 2^m copies of a row.

    `columns` names the d columns, and `periods` has the period of those that are periodic. `low` and `high`,
    `(d,)` float64, are saved with the model's weights; both are NaN for a column of the line.

    Raises `ConfigurationError` for a column that is not there, for a period that is no interval, and for more
    than `MOST` periodic columns.
    """

    low: Tensor
    high: Tensor

    def __init__(self, columns: Sequence[str], periods: Mapping[str, Period] | None = None) -> None:
        super().__init__()
        self.columns = tuple(columns)
        given = periods or {}
        check_periods(given, self.columns)
        if len(given) > MOST:
            raise ConfigurationError(
                f"`periodic`: a density can have {MOST} periodic columns, since each doubles the work for a "
                f"row; got {', '.join(given)}; name fewer of them, or give some by `--given`"
            )
        nothing = Period(math.nan, math.nan)
        each = [given.get(name, nothing) for name in self.columns]
        self.register_buffer("low", torch.tensor([own.low for own in each], dtype=torch.float64))
        self.register_buffer("high", torch.tensor([own.high for own in each], dtype=torch.float64))

    @classmethod
    def of_values(cls, columns: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The circle of those of the `columns` that plain `values` describe, in the form of `to_values`.

        Raises `ValueError`, `TypeError` or `KeyError` if they do not have that form.
        """
        return cls(columns, {name: each for name, each in periods_of(values).items() if name in columns})

    def to_values(self) -> dict[str, list[float]]:
        """Plain values: low and high end of one period by column."""
        return {name: [each.low, each.high] for name, each in self.periods.items()}

    @property
    def periods(self) -> dict[str, Period]:
        """The period of each periodic column, in the order of the columns."""
        each = zip(self.columns, self.low.tolist(), self.high.tolist(), strict=True)
        return {name: Period(low, high) for name, low, high in each if not math.isnan(low)}

    def __bool__(self) -> bool:
        """Whether any column is periodic."""
        return bool(self.is_periodic.any())

    @property
    def is_periodic(self) -> Tensor:
        """Which columns are periodic: `(d,)`."""
        return ~self.low.isnan()

    def wrap(self, x: Tensor) -> Tensor:
        """Rows `x: (n, d)` with the value of each periodic column within its period."""
        if not self:
            return x
        turned = self.low + torch.remainder(x - self.low, self.high - self.low)
        # A value just below the low end is rounded onto the high one, which is the low one.
        turned = torch.where(turned < self.high, turned, self.low)
        within = (x >= self.low) & (x < self.high)
        return torch.where(self.is_periodic & ~within & x.isfinite(), turned, x)

    def settle(self, x: Tensor, steps: Tensor) -> Tensor:
        """As `wrap`, for values in the middle of cells that are `steps: (d,)` wide, NaN for no cells.

        A value that rounding has left just below the high end is the low end.
        """
        if not self:
            return x
        x = self.wrap(x)
        return torch.where(self.high - x < 1e-6 * steps, self.low, x)

    def log_share(self, y: Tensor, absent: Tensor | None = None) -> Tensor:
        """The sum `(n,)` of log w of copies `y: (n, d)`, nats, without cells that are `absent: (n, d)`."""
        if not self:
            return y.new_zeros(len(y), dtype=torch.float64)
        turn = (y - self.low) / (self.high - self.low)
        log_each = 2 * torch.cos(math.pi / 2 * turn).clamp(min=0).log()
        log_each = torch.where(turn.abs() < 1, log_each, -math.inf)
        counts = self.is_periodic if absent is None else self.is_periodic & ~absent
        return torch.where(counts, log_each, 0.0).sum(1)

    def unroll(self, x: Tensor, generator: np.random.Generator, absent: Tensor | None = None) -> Tensor:
        """Rows `x: (n, d)` within their periods, each value at one of its copies, drawn by w.

        Cells that are `absent: (n, d)` stay as they are.
        """
        if not self:
            return x
        length = self.high - self.low
        share = torch.cos(math.pi / 2 * (x - self.low) / length).square()
        moves = self.is_periodic & (torch.from_numpy(generator.random(x.shape)) >= share)
        return torch.where(moves if absent is None else moves & ~absent, x - length, x)

    def to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Copies `y: (n, d)` on the whole line, and log(du/dy) of each cell, both `(n, d)`, nats.

        With t = (y - o) / P it is u = t / sqrt(1 - t^2). The ends are as far as powers of a distance make
        them, so that a model with wide tails keeps the digits that a logarithm would lose. A cell beyond the
        ends goes to 0, and its logarithm is -inf: there is no density there.
        """
        if not self:
            return y, y.new_zeros(()).expand_as(y)
        low, length = self._own
        own = torch.where(self.is_periodic, y, 0.0)
        held = (own > low - length) & (own < low + length)
        # Numbers that do not count stand in where others would have no finite derivative.
        below, above = (own - (low - length)) / length, ((low + length) - own) / length
        room = torch.where(held, below * above, 1.0)
        u = torch.where(held, (own - low) / length, 0.0) * room.rsqrt()
        slope = torch.where(held, -1.5 * room.log() - length.log(), -math.inf)
        return torch.where(self.is_periodic, u, y), torch.where(self.is_periodic, slope, 0.0)

    def to_rows(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_line` for `u: (n, d)`: copies, and log(dy/du) of each cell, both `(n, d)`, nats."""
        if not self:
            return u, u.new_zeros(()).expand_as(u)
        low, length = self._own
        size = torch.where(u < 0, -u, u)
        far = torch.hypot(u, torch.ones_like(u))
        # From the nearer end, so that no digits are lost.
        gap = length / far / (far + size)
        y = torch.where(u < 0, low - length + gap, low + length - gap)
        inside = torch.nextafter(low - length, low), torch.nextafter(low + length, low)
        y = y.maximum(inside[0]).minimum(inside[1])
        slope = length.log() - 3 * far.log()
        return torch.where(self.is_periodic, y, u), torch.where(self.is_periodic, slope, 0.0)

    @property
    def _own(self) -> tuple[Tensor, Tensor]:
        """Low end and length of the period of each column, `(d,)`; 0 and 1 of those of the line."""
        on_circle = self.is_periodic
        return torch.where(on_circle, self.low, 0.0), torch.where(on_circle, self.high - self.low, 1.0)

    def copies(self, x: Tensor, absent: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The 2^m copies `(n, d)` of rows `x: (n, d)`, and which rows have each, `(n,)`.

        A value of any period counts. A cell that is `absent: (n, d)` has only itself.
        """
        x = self.wrap(x) if absent is None else torch.where(absent, x, self.wrap(x))
        chosen = self.is_periodic.nonzero().flatten()
        length = (self.high - self.low)[chosen]
        for turns in itertools.product((0.0, 1.0), repeat=len(chosen)):
            moved, turned = x.clone(), torch.tensor(turns, dtype=torch.float64)
            own = turned * length
            there = torch.ones(len(x), dtype=torch.bool)
            if absent is not None:
                held = absent[:, chosen]
                own = torch.where(held, 0.0, own)
                there = ~(held & (turned > 0)).any(1)
            moved[:, chosen] -= own
            yield moved, there

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("low", "high"):
            # Runs from before there was any.
            state_dict.setdefault(prefix + name, torch.full_like(self.low, math.nan))
        super()._load_from_state_dict(state_dict, prefix, *args)


class CosineAndSine(nn.Module):
    """Given columns that are periodic, as numbers that a network takes: the cosine and sine of each.

    `periods` has the period of each of the m columns. A value of any period counts.
    """

    def __init__(self, periods: Mapping[str, Period]) -> None:
        super().__init__()
        check_periods(periods, tuple(periods))
        self.columns = tuple(periods)
        self.periods = dict(periods)

    @property
    def width(self) -> int:
        """The number of numbers of a row."""
        return 2 * len(self.columns)

    def to_model(self, x: Tensor) -> Tensor:
        """The cosines and sines `(n, 2 m)`, float64, of rows `x: (n, m)`."""
        each = self.periods.values()
        low = torch.tensor([own.low for own in each], dtype=torch.float64)
        length = torch.tensor([own.length for own in each], dtype=torch.float64)
        angle = 2 * math.pi * (torch.remainder(x.double() - low, length) / length)
        return torch.cat([angle.cos(), angle.sin()], 1)


def parse_periods(text: str) -> dict[str, Period]:
    """The period of each column in "hour=24,phase=-180:180"; raises `ConfigurationError` for other text.

    A single number is the length of a period that begins at 0.
    """
    periods: dict[str, Period] = {}
    for item in text.split(","):
        name, equals, ends = (part.strip() for part in item.rpartition("="))
        low, colon, high = (part.strip() for part in ends.rpartition(":"))
        try:
            found = Period(float(low) if colon else 0.0, float(high))
        except ValueError:
            found = Period(math.nan, math.nan)
        if not (name and equals and 0 < found.length < math.inf):
            raise ConfigurationError(
                f"takes auto, none, or periods such as hour=24,phase=-180:180; got `{text}`"
            )
        if name in periods:
            raise ConfigurationError(f"names `{name}` twice; got `{text}`")
        periods[name] = found
    return periods


def periods_of(values: Mapping[str, Any]) -> dict[str, Period]:
    """The periods that plain `values` describe: low and high end by column.

    Raises `ValueError`, `TypeError` or `AttributeError` if they do not have that form.
    """
    return {name: Period(*map(float, ends)) for name, ends in values.items()}


def check_periods(given: Mapping[str, Period], columns: Sequence[str]) -> None:
    """Raise `ConfigurationError` if a name is none of the `columns`, or a period no finite interval."""
    for name, each in given.items():
        if name not in columns:
            raise ConfigurationError(f"`periodic`: {unknown_name('column', name, columns)}")
        if not 0 < each.length < math.inf:
            raise ConfigurationError(
                f"the period of `{name}` must go from a lower to a higher number; got {each.low:g} to "
                f"{each.high:g}"
            )
