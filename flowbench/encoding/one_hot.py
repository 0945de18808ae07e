"""Categorical columns as indicators of their levels."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowbench.errors import ConfigurationError

#: Levels of fewer train rows are not told apart in a context.
FEWEST_ROWS = 20


class Levels:
    """The levels of m categorical columns: ascending numbers for each, at least two.

    Raises `ConfigurationError` for levels that are not so.
    """

    def __init__(self, levels: Mapping[str, Sequence[float]]) -> None:
        self.columns = tuple(levels)
        self.values = tuple(np.array(each, dtype=np.float64) for each in levels.values())
        for name, each in zip(self.columns, self.values, strict=True):
            if each.ndim != 1 or len(each) < 2 or not (np.diff(each) > 0).all():
                raise ConfigurationError(
                    f"the levels of `{name}` must be at least two ascending numbers; got {each.tolist()[:5]}"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of levels of each column."""
        return tuple(map(len, self.values))

    def to_values(self) -> dict[str, list[float]]:
        """The levels by column, as plain numbers."""
        return {name: each.tolist() for name, each in zip(self.columns, self.values, strict=True)}

    def place(self, x: Tensor) -> NDArray[np.int64]:
        """The places `(n, m)` of the values `x: (n, m)` among the levels of their columns.

        The place of a value that is no level is the number of levels.
        """
        rows = x.numpy()
        places = np.empty(rows.shape, dtype=np.int64)
        for column, values in enumerate(self.values):
            found = np.searchsorted(values, rows[:, column]).clip(max=len(values) - 1)
            places[:, column] = np.where(values[found] == rows[:, column], found, len(values))
        return places

    def at(self, places: NDArray[np.int64]) -> Tensor:
        """The values `(n, m)`, float64, of levels at `places: (n, m)`."""
        columns = [values[each] for values, each in zip(self.values, places.T, strict=True)]
        return torch.from_numpy(np.column_stack(columns) if columns else np.empty((len(places), 0)))


class OneHot(nn.Module):
    """Categorical columns as numbers that a network takes: an indicator of each level.

    A column of two levels becomes one number, -1 or 1. All indicators are 0 for a value that is no level,
    and for levels of fewer than `FEWEST_ROWS` train rows: nothing could be learnt of one of these alone.
    """

    told_apart: Tensor

    def __init__(self, levels: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.levels = Levels(levels)
        told_apart = torch.ones(sum(self.levels.sizes), dtype=torch.bool)
        self.register_buffer("told_apart", told_apart, persistent=bool(levels))

    @property
    def width(self) -> int:
        """The number of indicators of a row."""
        return sum(1 if size == 2 else size for size in self.levels.sizes)

    def fit(self, x: Tensor) -> None:
        """Find the levels of many enough train rows `x: (n, m)`."""
        places = self.levels.place(x)
        counts = [
            np.bincount(each, minlength=size + 1)[:size]
            for each, size in zip(places.T, self.levels.sizes, strict=True)
        ]
        if counts:
            self.told_apart.copy_(torch.from_numpy(np.concatenate(counts) >= FEWEST_ROWS))

    def to_model(self, x: Tensor) -> Tensor:
        """The indicators `(n, width)`, float64, of rows `x: (n, m)`."""
        places = torch.from_numpy(self.levels.place(x))
        parts, start = [], 0
        for column, size in enumerate(self.levels.sizes):
            indicator = torch.nn.functional.one_hot(places[:, column], size + 1)[:, :size].double()
            indicator = indicator * self.told_apart[start : start + size]
            parts.append(indicator if size > 2 else indicator[:, 1:] - indicator[:, :1])
            start += size
        return torch.cat(parts, 1) if parts else x.new_zeros(len(x), 0, dtype=torch.float64)
