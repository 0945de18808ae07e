"""Using a fitted run: draw rows and score tables."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.data import load_dataset, table_file
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.csv_table import is_own_text
from flowbench.data.read_options import LAYOUT, ReadOptions
from flowbench.data.table_reading import read_rows
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.evaluation.flags import Flag, flags_of
from flowbench.evaluation.reported import Likelihoods, Restore, drawn_likelihoods, reported_likelihoods
from flowbench.evaluation.solver_ladder import climb
from flowbench.evaluation.solver_levels import OnRows
from flowbench.evaluation.suite import judge
from flowbench.registry import TOYS
from flowbench.store import Metric, Run, check_table_path, file_errors, table_format, write_table
from flowbench.store.rung import Rung
from flowbench.workflows.config import RunConfig, evaluation_with
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.preparation import EVALUATION, random_stream
from flowbench.workflows.rows import load_rows
from flowbench.workflows.stored_run import StoredRun

Floats = NDArray[np.float64]
Texts = NDArray[np.object_]
#: The columns that stand beside a table's own.
_LIKELIHOODS = ("log_prob", "log_prob_error")
#: The path of an output that is none.
STDOUT = Path("-")
#: Figures of a run with which an evaluation begins.
_LOSSES = ("test_nll", "test_nll_standard_error", "kl_to_truth", "kl_to_truth_standard_error")
#: Rows of a toy that are scored under a model that was fitted on something else.
TOY_ROWS = 10_000


@dataclass(frozen=True)
class DrawnRows:
    """Rows `x: (n, d)` in data units under their `columns`, and `log_prob: (n,)`, nats, data units.

    `log_prob_error: (n,)` is how far each of these may be off, nats; `above: int` of them by more than the
    largest error asked for, if one was.
    """

    columns: tuple[str, ...]
    x: Floats
    log_prob: Floats
    log_prob_error: Floats
    dequantised: tuple[str, ...] = ()
    above: int = 0
    types: Mapping[str, ColumnType] = field(default_factory=dict)

    def save(self, path: Path, run: Run) -> None:
        """Write the table's own columns, `log_prob` and `log_prob_error`, in the format of the ending.

        The columns are of the types that their table has, as far as the format knows them.
        """
        format = table_format(path)
        table: dict[str, NDArray[Any]] = {}
        for values, name in zip(self.x.T, self.columns, strict=True):
            each = self.types.get(name, FLOAT64)
            write = {"csv": each.text, "hdf5": each.counted}.get(format, each.typed)
            table[name] = write(values)
        table |= {name: getattr(self, name) for name in _LIKELIHOODS}
        units = {name: each.unit for name, each in self.types.items() if each.unit}
        storage = {name: each.storage for name, each in self.types.items()}
        units |= dict.fromkeys(_LIKELIHOODS, "nats")
        write_table(path, table, _attributes(run, self.dequantised), units, types=storage)


@dataclass(frozen=True)
class ScoredTable:
    """`row: (n,)`, the rows' numbers in the data set, counted from 0, and `log_prob: (n,)`, nats, data units.

    `log_prob_error: (n,)` is how far each of these may be off, nats. `flagged: (n,)`, of `str`, says what is
    wrong with a row, and is empty where nothing is: a cell that is missing, infinite or no number, or a solve
    that failed (`log_prob` and its error are NaN); a `log_prob` that is infinite, or NaN for another cause;
    an error that is not known, as where the finer solve failed (it is infinite); an error above the largest
    that was asked for. `kind: (n,)`, of `str`, says it without details, so that alike rows can be counted.
    `above: int` rows that have a `log_prob` miss the largest error asked for.
    Where there are `dequantised` columns, a log-likelihood is a lower bound, as
    `flowbench.encoding.dequantiser.Dequantiser` has it; `out_of_place` counts, by column, values that lie
    between those that the model was fitted on, and were scored as the cells that they fall in. `notes` say
    what was guessed when the table was read.
    """

    row: NDArray[np.int64]
    log_prob: Floats
    log_prob_error: Floats
    flagged: Texts
    kind: Texts
    above: int = 0
    dequantised: tuple[str, ...] = ()
    out_of_place: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which rows have a log-likelihood, `(n,)`; that may be infinite."""
        return ~np.isnan(self.log_prob)

    def counts(self, *, scored: bool | None = None) -> dict[str, int]:
        """How many rows are flagged with each kind, the most first; of those that are `scored`, or not."""
        chosen = self.kind if scored is None else self.kind[self.scored == scored]
        return {kind: count for kind, count in Counter(chosen.tolist()).most_common() if kind}

    def save(self, path: Path, run: Run) -> None:
        """Write `row`, `log_prob`, `log_prob_error` and `flagged` in the format of the path's ending."""
        table = {
            "row": self.row,
            **{name: getattr(self, name) for name in _LIKELIHOODS},
            "flagged": self.flagged,
        }
        units = dict.fromkeys(_LIKELIHOODS, "nats") | {"flagged": "1"}
        write_table(path, table, _attributes(run, self.dequantised), units, index="row")


@dataclass(frozen=True)
class _RowsToScore:
    """The numbers `row: (n,)` and values `x: (n, d)` of the rows that `score` is asked for.

    `unfit` are, by their places among these, those with a cell that is no finite number.
    """

    row: NDArray[np.int64]
    x: Floats
    unfit: Mapping[int, Flag] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_output(path: Path, run: Run, *tables: str, home: Home | None = None) -> Path:
    """Return `path` if what comes of `run` and `tables` can be written there, to be asked before the work.

    Without `tables`, each a path or a data set's name, draws are meant, which have the run's own columns.
    Raises `ConfigurationError` if the path's ending is unknown or its format cannot hold the columns, if its
    folder is missing or read-only, or if it is one of the tables or the one that the run was fitted on, or
    holds the results of the run. "-", for standard output, always can.
    """
    if path == STDOUT:
        return path
    check_table_path(path, () if tables else run.dataset.get("columns", ()))
    named = (StoredRun(run).config.data.dataset, *tables)
    files = [table_file(name, (home or Home()).datasets) for name in named]
    kept = [run.path / "results.h5", *(file.path for file in files if file)]
    with file_errors("write", path):
        if path.exists() and any(one.exists() and path.samefile(one) for one in kept):
            raise ConfigurationError(f"{path} would overwrite what is read; give another path with `-o`")
        if path.is_dir():
            raise ConfigurationError(f"cannot write {path}: it is a folder; give a file's name")
        if not path.parent.is_dir():
            raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"cannot write {path}: the folder is read-only; name another with `-o`")
    return path


@torch.no_grad()
def sample(
    run: Run,
    n: int,
    *,
    seed: int = 0,
    settings: Sequence[str] = (),
    on_rows: OnRows = lambda done, total: None,
) -> DrawnRows:
    """Draw `n` rows from a run's model, with log-likelihoods and their errors.

    These are float64, with the exact divergence; those of dequantised columns as `score` would have them.
    `settings` change the run's evaluation, as those of `score` do.

    Raises `DataError` for a model of a table that has a column called `log_prob` or `log_prob_error`.
    """
    stored = StoredRun(run)
    options = evaluation_with(stored.config, settings)
    model = stored.model_on_device()
    if taken := set(_LIKELIHOODS) & set(model.columns):
        raise DataError(
            f"the table has a column called `{min(taken)}`, where samples hold theirs; rename it and fit anew"
        )
    dequantiser = model.encoder.dequantiser
    with cpu_threads(stored.config.threads):
        x, found = drawn_likelihoods(
            model,
            n,
            options,
            random_stream(seed, EVALUATION),
            restore=_restore(model.columns, stored.types, dequantiser),
            on_rows=on_rows,
        )
    log_prob, error = found.log_prob.numpy(), found.error.numpy()
    above = int(found.flagged.sum())
    cells = tuple(dequantiser.lattices)
    return DrawnRows(model.columns, x.numpy(), log_prob, error, cells, above, stored.types)


def _restore(
    columns: tuple[str, ...], types: Mapping[str, ColumnType], dequantiser: Dequantiser
) -> Restore | None:
    """What rounds rows to the values that their table can hold; None where it can hold any."""
    rounding = {
        number: types[name]
        for number, name in enumerate(columns)
        if name in types and types[name].rounds and name not in dequantiser.lattices
    }
    if not rounding:
        return None

    def restore(rows: Floats) -> Floats:
        rows = rows.copy()
        for number, each in rounding.items():
            rows[:, number] = each.restore(rows[:, number])
        return rows

    return restore


@torch.no_grad()
def score(
    run: Run,
    table: str,
    *,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    strict: bool = False,
    home: Home | None = None,
    on_rows: OnRows = lambda done, total: None,
) -> ScoredTable:
    """Log-likelihood, and its error, of every row of `table`, a path or a data set's name, by a run's model.

    `settings`, such as "evaluation.integrator.rtol=1e-7", change the run's evaluation
    (`flowbench.evaluation.evaluation_options.EvaluationOptions`). The table needs the columns that the run
    was fitted on, in any order; others are ignored. It is read as that of the run was, but for the options of
    `reading` (`flowbench.data.ReadOptions`). Of a toy, whose rows are drawn and not read, the run's test rows
    are scored where it was fitted on that toy, else `TOY_ROWS` new ones.

    A row with a cell that is missing, infinite or no number, or whose solve fails, as it may for one far out,
    has NaN for a log-likelihood, and `ScoredTable.flagged` says why; the other rows get what they would get
    without it. If it is to be `strict`, the first such row raises `DataError` for a cell and
    `IntegrationError` for a solve. Raises `DataError` if columns are missing or the table cannot be read.
    """
    stored = StoredRun(run)
    options = evaluation_with(stored.config, settings)
    model = stored.model_on_device()
    rows = _rows_to_score(stored, table, reading or {}, (home or Home()).datasets, strict)
    dequantiser = model.encoder.dequantiser
    fit = np.setdiff1d(np.arange(len(rows.x)), list(rows.unfit))
    x = torch.from_numpy(rows.x[fit])
    with cpu_threads(stored.config.threads):
        found = reported_likelihoods(model, x, options, on_rows=on_rows, strict=strict)
    return _scored_table(rows, fit, found, dequantiser, dequantiser.out_of_place(x))


def _scored_table(
    rows: _RowsToScore,
    fit: NDArray[np.int64],
    found: Likelihoods,
    dequantiser: Dequantiser,
    out_of_place: Mapping[str, int],
) -> ScoredTable:
    """What `found` says of the `rows` in the places `fit: (k,)`, and what is wrong with the others."""
    n = len(rows.row)
    log_prob, error = np.full(n, np.nan), np.full(n, np.nan)
    log_prob[fit], error[fit] = found.log_prob.numpy(), found.error.numpy()
    flagged, kind = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    flags = {int(fit[place]): flag for place, flag in flags_of(found).items()} | dict(rows.unfit)
    for number, flag in flags.items():
        flagged[number], kind[number] = _printable(flag.text), _printable(flag.kind)
    above = int((found.flagged & ~found.log_prob.isnan()).sum())
    cells = tuple(dequantiser.lattices)
    return ScoredTable(rows.row, log_prob, error, flagged, kind, above, cells, out_of_place, rows.notes)


def _printable(text: str) -> str:
    """The text without what a file of text cannot hold, such as a zero byte out of a cell."""
    return "".join(character if character.isprintable() else "?" for character in text)


def evaluate(run: Run, *, seed: int = 0, home: Home | None = None) -> dict[str, Metric]:
    """Judge a finished run's draws and its calibration, and store what comes of it with its results.

    The figures are those of `flowbench.evaluation.suite.judge`, by name, after the run's NLL and, where the
    truth is known, its divergence from that. Raises `DataError` if the run has no
    results yet, or if its data set has changed; `RunLockedError` if the run is under way.
    """
    stored = StoredRun(run)
    with cpu_threads(stored.config.threads), run.lock():
        results = run.read_results()
        dataset, split = load_rows(stored.config, (home or Home()).datasets)
        stored.check(dataset, split)
        model = stored.model_on_device().for_evaluation(stored.config.evaluation.integrator)
        found = judge(model, dataset.rows[split.train], results, seed)
        metrics = {**results.metrics, **found.metrics}
        run.write_results(replace(results, metrics=metrics, calibration=found.calibration))
    return {name: metrics[name] for name in _LOSSES if name in metrics} | found.metrics


def tradeoff(
    run: Run, *, rows: int = 500, on_solver: OnRows = lambda done, total: None
) -> tuple[list[Rung], int]:
    """What solvers of the run's model cost and get wrong, on the first `rows` of its scored test rows.

    Returns the ladder of `flowbench.evaluation.solver_ladder.climb` and how many rows it was climbed with.
    Raises `ConfigurationError` if the run has no results yet or a single test row, or its model solves no
    equation.
    """
    stored = StoredRun(run)
    x = torch.from_numpy(run.read_results().scored.x[:rows])
    if len(x) < 2:
        raise ConfigurationError(
            f"the run `{run.name}` has one test row, from which no interval of a bias follows; fit with more"
        )
    with cpu_threads(stored.config.threads):
        return climb(stored.model, stored.model.encoder.spread(x, 0), on_solver), len(x)


def _rows_to_score(
    stored: StoredRun, table: str, reading: Mapping[str, Any], folder: Path, strict: bool
) -> _RowsToScore:
    """The rows of `table`, which is read as that of the run was; none is unfit if `strict`."""
    config = stored.config
    if table in TOYS.entries and table == config.data.dataset:
        dataset, split = load_rows(config, folder)
        return _RowsToScore(split.test, dataset.rows[split.test])
    types = stored.types
    named = table_file(table, folder)
    options = _reading_of_score(config, reading, types)
    if named is not None and is_own_text(named):
        options = options.model_copy(update=dict.fromkeys(LAYOUT) | dict(reading))
    file = None if strict else named
    try:
        if file is not None:
            x, cells, notes = read_rows(file, tuple(types), options, types)
            unfit = {row: Flag(cell.kind, cell.reason) for row, cell in cells.items()}
            return _RowsToScore(np.arange(len(x)), x, unfit, notes)
        dataset = load_dataset(
            table,
            columns=tuple(types),
            rows=TOY_ROWS if table in TOYS.entries else None,
            seed=config.data.seed,
            folder=folder,
            for_fit=False,
            reading=options,
            types=types,
        )
    except UnknownColumnError as error:
        raise DataError(f"{error}; the run was fitted on {', '.join(types)}") from None
    return _RowsToScore(np.arange(len(dataset.rows)), dataset.rows, notes=dataset.notes)


def _reading_of_score(
    config: RunConfig, given: Mapping[str, Any], types: Mapping[str, ColumnType]
) -> ReadOptions:
    """How a table that is scored is read: as that of the run, unless something else is `given`."""
    told = {name: value for name, value in config.data if name in ReadOptions.model_fields}
    formats = tuple(dict.fromkeys(each.format for each in types.values() if each.format))
    # All rows are scored, whatever part of a split they were in, and columns are of types that are known.
    told |= {"missing": None, "group": None, "keep": None}
    told["date_format"] = told["date_format"] or formats or None
    return ReadOptions(**{**told, **given})


def _attributes(run: Run, dequantised: Sequence[str]) -> dict[str, str | int | float]:
    dataset = run.dataset
    return {
        "run": run.name,
        "model": str(run.info.get("model", "")),
        "dataset": str(dataset.get("name", "")),
        "dataset_sha256": str(dataset.get("sha256", "")),
        "dequantised": ", ".join(dequantised),
    }
