"""The base class of toy series: processes from which irregular series are drawn."""

import hashlib
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import numpy as np

from flowbench.data.dataset import Column, Provenance
from flowbench.data.series_dataset import Floats, SeriesDataset, TimeSeries


class ToySeries(ABC):
    """A process that is observed with noise, at irregular times of its own for each series.

    Subclasses define `name`, `description`, `columns` and `_draw`. `noise` is the standard deviation of the
    noise of every cell, data units.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    noise: float

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """The times `(m,)` of one series, and its values `(m, d)` without noise."""

    def log_prob(self, series: TimeSeries) -> float | None:
        """The exact log-likelihood of a series without missing cells, given its times, nats.

        None where it is not known.
        """
        return None

    def draw(self, n: int, seed: int) -> SeriesDataset:
        """`n` series, drawn one after the other from `seed`."""
        rng = np.random.default_rng(seed)
        drawn = [self._draw(rng) for _ in range(n)]
        times = np.concatenate([t for t, _ in drawn])
        truth = np.concatenate([x for _, x in drawn])
        values = truth + self.noise * rng.standard_normal(truth.shape)
        starts = np.cumsum([0, *(len(t) for t, _ in drawn)])
        known = [self.log_prob(TimeSeries(times[a:b], values[a:b])) for a, b in pairwise(starts)]
        sha256 = hashlib.sha256(np.column_stack([times, values]).tobytes()).hexdigest()
        return SeriesDataset(
            self.name,
            tuple(Column(name) for name in self.columns),
            tuple(str(number) for number in range(n)),
            starts,
            times,
            values,
            Provenance(f"drawn with seed {seed}", sha256, description=self.description),
            truth=truth,
            log_prob=None if None in known else np.array(known, dtype=np.float64),
        )
