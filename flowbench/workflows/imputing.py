"""Filling in the missing cells of a table by a fitted run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import table_file
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.files import TableFile
from flowbench.data.table_reading import read_rows
from flowbench.errors import ConfigurationError, DataError
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.incomplete import has_gaps
from flowbench.evaluation.solver_levels import OnRows
from flowbench.models.completion import Imputed, impute
from flowbench.models.rows import Rows
from flowbench.store import Run, table_format, write_table
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.output import attributes
from flowbench.workflows.rereading import reading_of
from flowbench.workflows.stored_run import StoredRun

#: Rows that are filled in at once: each has many completions.
AT_ONCE = 512


@dataclass(frozen=True)
class ImputedTable:
    """The columns of a table by name, with its missing cells filled in, and the columns that say how surely.

    `filled` counts the cells that were filled in, by column. `notes` say what reading guessed.
    """

    columns: Mapping[str, NDArray[Any]]
    filled: Mapping[str, int]
    units: Mapping[str, str]
    types: Mapping[str, str]
    notes: tuple[str, ...]
    dequantised: tuple[str, ...]

    def save(self, path: Path, run: Run) -> None:
        """Write the columns in the format of the path's ending."""
        write_table(path, self.columns, attributes(run, self.dequantised), self.units, types=self.types)


@torch.no_grad()
def impute_table(
    run: Run,
    table: str,
    path: Path,
    *,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    home: Home | None = None,
    on_rows: OnRows = lambda done, total: None,
) -> ImputedTable:
    """Fill in the missing cells of `table`, a path or a data set's name, for a file at `path`.

    A number becomes its mean given the cells that are there; beside it stand `_lower` and `_upper`, the ends
    of the central 90% of what it may be. A category becomes the most probable one; beside it stands its
    `_probability`. Raises `ConfigurationError` for a run that was not fitted with `--missing model`, and
    `DataError` for a table that has a cell which is no number, or a row without any.
    """
    stored = StoredRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    model = stored.model_on_device()
    if model.imputer is None:
        raise ConfigurationError(f"the run `{run.name}` fills in no cells; fit one with `--missing model`")
    folder = (home or Home()).datasets
    file = table_file(table, folder)
    if file is None:
        raise ConfigurationError(f"`{table}` is no file; give the path of a table with missing cells")
    types = {name: stored.types[name] for name in stored.read}
    x, unfit, notes = read_rows(
        file, tuple(types), reading_of(stored.config.data, reading or {}, types), types
    )
    if unfit:
        row, cell = min(unfit.items())
        raise DataError(f"{file}: row {row + 1}: {cell.reason}; such a row cannot be filled in")
    _check_levels(stored, x, tuple(types), file)
    rows = stored.rows_of(x)
    gaps = has_gaps(rows).nonzero().squeeze(1)
    budget = ErrorBudget(model, options)

    # What weighs completions needs no sixth digit.
    coarse = budget.levels.coarse_model(torch.float32)

    def score(completed: Rows, draw: int) -> Tensor:
        return budget.levels.score_draws(coarse, completed).log_prob.double()

    parts = []
    with cpu_threads(stored.config.threads):
        for start in range(0, len(gaps), AT_ONCE):
            parts.append(impute(model, rows[gaps[start : start + AT_ONCE]], score))
            on_rows(min(start + AT_ONCE, len(gaps)), len(gaps))
    return _table(stored, rows, gaps.numpy(), parts, path, notes, tuple(model.encoder.dequantiser.lattices))


def _table(
    stored: StoredRun,
    rows: Rows,
    gaps: NDArray[np.int64],
    parts: Sequence[Imputed],
    path: Path,
    notes: tuple[str, ...],
    dequantised: tuple[str, ...],
) -> ImputedTable:
    """The table of the `rows`, of which those in the places `gaps: (k,)` were filled in, part by part."""
    format = table_format(path) if path.name != "-" else "csv"
    columns: dict[str, NDArray[Any]] = {}
    filled, units, types = dict[str, int](), dict[str, str](), dict[str, str]()
    for name in stored.order:
        type_ = stored.types.get(name, FLOAT64)
        write = {"csv": type_.text, "hdf5": type_.counted}.get(format, type_.typed)
        is_number = name in stored.columns
        place = (stored.columns if is_number else stored.given).index(name)
        source = rows.x if is_number or rows.context is None else rows.context
        own = source[:, place].numpy().copy()
        gone = np.isnan(own)
        beside: dict[str, NDArray[np.float64]] = {}
        if is_number:
            beside = {end: own.copy() for end in ("lower", "upper")} if gone.any() else {}
            fills = {"": "x", "lower": "low", "upper": "high"}
        else:
            beside = {"probability": np.ones(len(own))} if gone.any() else {}
            fills = {"": "context", "probability": "probability"}
        for key, values in {"": own, **beside}.items():
            if parts:
                values[gaps] = np.concatenate([getattr(part, fills[key])[:, place] for part in parts])
        columns[name] = _written(own, gone, type_, write)
        for key, values in beside.items():
            is_share = key == "probability"
            columns[f"{name}_{key}"] = values if is_share else _written(values, gone, type_, write)
            units[f"{name}_{key}"] = "1" if is_share else type_.unit or "data units"
        if gone.any():
            filled[name] = int(gone.sum())
        if type_.unit:
            units[name] = type_.unit
        types[name] = type_.storage
    return ImputedTable(columns, filled, units, types, notes, dequantised)


def _written(
    values: NDArray[np.float64],
    gone: NDArray[np.bool_],
    type_: ColumnType,
    write: Callable[[NDArray[np.float64]], NDArray[Any]],
) -> NDArray[Any]:
    """The column `values: (n,)` as it is written; of those that were `gone`, what the column can hold."""
    values = np.where(gone, type_.restore(values), values)
    is_broken = type_.is_integer and bool((values != np.rint(values)).any())
    return values if is_broken else write(values)


def _check_levels(stored: StoredRun, x: NDArray[np.float64], names: Sequence[str], file: TableFile) -> None:
    """Raise `DataError`, which names the first, if a category in `x: (n, k)` is in no row of the fit."""
    for name, levels in stored.levels.items():
        if name in names:
            own = x[:, names.index(name)]
            unknown = np.flatnonzero(~(np.isin(own, levels) | np.isnan(own)))
            if len(unknown):
                raise DataError(
                    f"{file}: column `{name}`, row {unknown[0] + 1}: it holds this in no row of the fit; "
                    "leave the row out, or empty the cell to have it filled in"
                )
