"""The tables that come of runs on time series."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.series_dataset import Floats, SeriesDataset
from flowbench.errors import DataError
from flowbench.evaluation.series_likelihoods import SeriesLikelihoods
from flowbench.store import Run, table_format, write_table
from flowbench.workflows.output import attributes


@dataclass(frozen=True, eq=False)
class ScoredSeriesTable:
    """The log-likelihood of each series of a table; see `SeriesLikelihoods` for what `found` holds."""

    dataset: SeriesDataset
    found: SeriesLikelihoods

    def save(self, path: Path, run: Run) -> None:
        """Write a row for each series, in the format of the path's ending."""
        found, dataset = self.found, self.dataset
        taken = ("log_prob", "standard_error", "solver_error", "observations", "values")
        if dataset.id_column in taken:
            raise DataError(
                f"the column of series is called `{dataset.id_column}`, as one of the scores is; rename it"
            )
        n = len(dataset)
        zero = np.zeros(n)
        table = {
            dataset.id_column: np.array(dataset.ids, dtype=object),
            "log_prob": found.log_prob,
            "standard_error": zero if found.standard_error is None else found.standard_error,
            "solver_error": zero if found.solver_error is None else found.solver_error,
            "observations": dataset.lengths,
            "values": dataset.cells,
        }
        units = dict.fromkeys(("log_prob", "standard_error", "solver_error"), "nats")
        units |= dict.fromkeys((dataset.id_column, "observations", "values"), "1")
        kind = "exact" if found.standard_error is None else "lower bound"
        write_table(path, table, attributes(run, ()) | {"log_prob": kind}, units)


@dataclass(frozen=True, eq=False)
class LongTable:
    """Rows of series: `series: (N,)` names them, `times: (N,)`, and further `columns: (N,)` by name."""

    id_column: str
    time_column: str
    series: NDArray[Any]
    times: Floats
    columns: Mapping[str, Floats]
    types: Mapping[str, ColumnType]

    def save(self, path: Path, run: Run) -> None:
        """Write the rows, in the format of the path's ending; times have the notation of their table."""
        format = table_format(path)
        kind = self.types.get(self.time_column, FLOAT64)
        write = {"csv": kind.text, "hdf5": kind.counted}.get(format, kind.typed)
        times = write(self.times) if kind.unit else self.times
        table = {self.id_column: self.series, self.time_column: times, **self.columns}
        units = {self.id_column: "1"}
        if kind.unit:
            units[self.time_column] = kind.unit
        write_table(path, table, attributes(run, ()), units, types={self.time_column: kind.storage})
