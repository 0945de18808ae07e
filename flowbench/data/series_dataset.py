"""Data sets of irregular time series: observations at times of their own, grouped by series."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.dataset import Column, Provenance
from flowbench.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """One series: `values: (m, d)`, NaN where a cell is missing, at increasing `times: (m,)`; data units."""

    times: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, eq=False)
class SeriesDataset:
    """n series of d columns, read-only, in data units.

    `ids` names the n series. Series i has the observations from `starts[i]` to `starts[i + 1]`, one at least,
    of `times: (N,)` and `values: (N, d)`; `starts: (n + 1,)`. Times increase strictly within a series. A
    missing cell is NaN, and every observation has at least one cell that is not. `id_column` and
    `time_column` are the names of two further columns of the table, and `time_type` is how it has the times.
    Of drawn series, `truth: (N, d)` are the values without noise, and `log_prob: (n,)` the log-likelihood of
    each under what it was drawn from, nats, if that is known. `notes` say what reading the table guessed,
    merged or left out.

    Raises `DataError` if the arrays do not fit together.
    """

    name: str
    columns: tuple[Column, ...]
    ids: tuple[str, ...]
    starts: NDArray[np.int64]
    times: Floats
    values: Floats
    provenance: Provenance
    id_column: str = "id"
    time_column: str = "t"
    time_type: ColumnType = FLOAT64
    truth: Floats | None = None
    log_prob: Floats | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        starts, times, values = self.starts, self.times, self.values
        if values.shape != (len(times), len(self.columns)) or times.ndim != 1:
            raise DataError(
                f"series `{self.name}`: values of shape {values.shape} at {len(times)} times do not fit "
                f"{len(self.columns)} columns"
            )
        if len(starts) != len(self.ids) + 1 or starts[0] != 0 or starts[-1] != len(times):
            raise DataError(f"series `{self.name}`: {len(self.ids)} ids do not fit the starts of the series")
        if not self.ids or np.any(np.diff(starts) < 1):
            raise DataError(f"series `{self.name}`: every series needs an observation, and one is needed")
        steps = np.diff(times)
        steps[starts[1:-1] - 1] = 1.0
        if not np.all(steps > 0) or not np.all(np.isfinite(times)):
            raise DataError(f"series `{self.name}`: times must be finite and increase within a series")
        if np.any(np.isinf(values)) or np.any(np.isnan(values).all(1)):
            raise DataError(f"series `{self.name}`: an observation is infinite, or has no value")
        for array in (starts, times, values, self.truth, self.log_prob):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the d columns of values, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of observations of each series: `(n,)`."""
        return np.diff(self.starts)

    @property
    def cells(self) -> NDArray[np.int64]:
        """The number of cells of each series that are not missing: `(n,)`."""
        counts = np.concatenate([[0], np.cumsum((~np.isnan(self.values)).sum(1))])
        return np.asarray(np.diff(counts[self.starts]))

    def series(self, index: int) -> TimeSeries:
        """The series with this index."""
        part = slice(self.starts[index], self.starts[index + 1])
        return TimeSeries(self.times[part], self.values[part])

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The series with these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.starts[chosen] - starts[:-1], lengths) + np.arange(starts[-1])
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            starts=starts,
            times=self.times[places],
            values=self.values[places],
            truth=None if self.truth is None else self.truth[places],
            log_prob=None if self.log_prob is None else self.log_prob[chosen],
        )

    @property
    def of_observation(self) -> NDArray[np.int64]:
        """The index of the series of each observation: `(N,)`."""
        return np.repeat(np.arange(len(self)), self.lengths)
