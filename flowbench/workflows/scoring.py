"""Scoring a table's rows with a fitted run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import TableFile, load_dataset, table_file
from flowbench.data.files import unchanged
from flowbench.data.row_stream import RowChunk, RowStream, open_rows, whole_rows
from flowbench.data.table_reading import notes_on_cells
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import DataError, UnknownColumnError
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.flags import ZERO_DENSITY, Flag, flags_of
from flowbench.evaluation.incomplete import has_gaps, score_known
from flowbench.evaluation.reported import Likelihoods
from flowbench.evaluation.solver_levels import OnRows
from flowbench.models.givens import Givens
from flowbench.registry import TOYS
from flowbench.store import Run, write_table
from flowbench.workflows import in_parts
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.dataset_rows import load_rows
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.output import attributes, likelihood_columns
from flowbench.workflows.rereading import reading_of
from flowbench.workflows.stored_run import StoredRun

Floats = NDArray[np.float64]
Texts = NDArray[np.object_]
#: Rows of a toy that are scored under a model that was fitted on something else.
TOY_ROWS = 10_000


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
    what was guessed when the table was read. `incomplete` counts rows with missing cells that are scored by
    the others.

    `log_mass: (n,)`, nats, is the part of `log_prob` that is the log-probability of a row's categories. The
    rest is the log-density of the other columns given these. It is None for a run without categories.
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
    log_mass: Floats | None = None
    incomplete: int = 0

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which rows have a log-likelihood, `(n,)`; that may be infinite."""
        return ~np.isnan(self.log_prob)

    def counts(self, *, scored: bool | None = None) -> dict[str, int]:
        """How many rows are flagged with each kind, the most first; of those that are `scored`, or not."""
        chosen = self.kind if scored is None else self.kind[self.scored == scored]
        return {kind: count for kind, count in Counter(chosen.tolist()).most_common() if kind}

    def save(self, path: Path, run: Run) -> None:
        """Write `row`, the likelihoods and `flagged` in the format of the path's ending.

        The likelihoods are `log_prob` and `log_prob_error`, and `log_mass` and `log_density` where there are
        categories.
        """
        table = self.to_columns()
        write_table(path, table, attributes(run, self.dequantised), score_units(table), index="row")

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """The columns of the file that `save` writes."""
        likelihoods = likelihood_columns(self.log_prob, self.log_prob_error, self.log_mass)
        return {"row": self.row, **likelihoods, "flagged": self.flagged}

    @classmethod
    def join(cls, parts: "Sequence[ScoredTable]", notes: tuple[str, ...] = ()) -> Self:
        """The rows of one part or more, in their order, with other `notes`."""
        first, counts = parts[0], Counter[str]()
        for part in parts:
            counts.update(part.out_of_place)
        masses = [part.log_mass for part in parts if part.log_mass is not None]
        return cls(
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.log_prob for part in parts]),
            np.concatenate([part.log_prob_error for part in parts]),
            np.concatenate([part.flagged for part in parts]),
            np.concatenate([part.kind for part in parts]),
            sum(part.above for part in parts),
            first.dequantised,
            dict(counts),
            notes,
            np.concatenate(masses) if masses else None,
            sum(part.incomplete for part in parts),
        )


def score_units(columns: Mapping[str, object]) -> dict[str, str]:
    """The units of the columns of a table of scores."""
    return dict.fromkeys(columns, "nats") | {"row": "1", "flagged": "1"}


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

    Rows are scored in parts of `flowbench.workflows.in_parts.PART_ROWS`. Which rows are refined, by which the
    errors of others are found, is chosen for each part.
    """
    scorer = Scorer(run, table, settings=settings, reading=reading, strict=strict, home=home, on_rows=on_rows)
    parts = list(scorer.parts())
    return ScoredTable.join(parts, scorer.notes)


class Scorer:
    """Scores the rows of a table part by part; its arguments are those of `score`.

    `rows: int` is the number of rows, `file` the table's file, if there is one, and `heard` the notes on
    cells so far: column, note and an example.
    """

    def __init__(
        self,
        run: Run,
        table: str,
        *,
        settings: Sequence[str] = (),
        reading: Mapping[str, Any] | None = None,
        strict: bool = False,
        home: Home | None = None,
        on_rows: OnRows = lambda done, total: None,
    ) -> None:
        self.stored = StoredRun(run)
        self.options = with_evaluation(self.stored.config, settings).evaluation
        self.model = self.stored.model_on_device()
        source = _rows_to_score(self.stored, table, reading or {}, (home or Home()).datasets, strict)
        self._stream, self._numbers, self.file = source
        self.rows = self._stream.n_rows
        self.heard = dict[tuple[str, str], str]()
        self._progress = in_parts.PartProgress(self.rows, on_rows)
        self._budget = ErrorBudget(self.model, self.options, self._progress, strict=strict)

    @property
    def dequantised(self) -> tuple[str, ...]:
        """The columns whose values stand for cells."""
        return tuple(self.model.encoder.dequantiser.lattices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed when the table was read, each once."""
        heard = ((column, what, example) for (column, what), example in self.heard.items())
        return (*self._stream.notes, *notes_on_cells(heard))

    def parts(self, first: int = 0) -> Iterator[ScoredTable]:
        """The scores of the rows from number `first` on, by the part; raises as `score` does."""
        with nullcontext() if self.file is None else unchanged(self.file.path):
            for chunk in self._stream.chunks(first):
                for column, what, example in chunk.notes:
                    self.heard.setdefault((column, what), example)
                with cpu_threads(self.stored.config.threads):
                    yield self._score(chunk)

    @torch.no_grad()
    def _score(self, chunk: RowChunk) -> ScoredTable:
        model, size = self.model, len(chunk.x)
        self._progress.begin(chunk.first, size)
        self._budget.levels.first = chunk.first
        is_fit = np.ones(size, dtype=bool)
        is_fit[list(chunk.unfit)] = False
        fit = np.flatnonzero(is_fit)
        rows = self.stored.rows_of(chunk.x[fit])
        x, context = rows.x, rows.context
        found, log_mass = score_known(self._budget, rows)
        scored = self._table(chunk, fit, found)
        scored = replace(
            scored,
            out_of_place=model.encoder.dequantiser.out_of_place(x),
            incomplete=int(has_gaps(rows).sum()),
        )
        _tell_outside(scored, fit, x, model.encoder)
        if log_mass is not None:
            mass = np.full(size, np.nan)
            mass[fit] = log_mass.numpy()
            scored = replace(scored, log_prob=scored.log_prob + mass, log_mass=mass)
        if model.givens is not None and context is not None:
            _tell_unknown_levels(scored, fit, context, model.givens)
        return scored

    def _table(self, chunk: RowChunk, fit: NDArray[np.int64], found: Likelihoods) -> ScoredTable:
        """What `found` says of the rows in the places `fit: (k,)`, and what is wrong with the others."""
        n = len(chunk.x)
        row = np.arange(chunk.first, chunk.first + n)
        log_prob, error = np.full(n, np.nan), np.full(n, np.nan)
        log_prob[fit], error[fit] = found.log_prob.numpy(), found.error.numpy()
        flagged, kind = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
        flags = {int(fit[place]): flag for place, flag in flags_of(found).items()}
        flags |= {place: Flag(cell.kind, cell.reason) for place, cell in chunk.unfit.items()}
        for number, flag in flags.items():
            flagged[number], kind[number] = _printable(flag.text), _printable(flag.kind)
        return ScoredTable(
            row if self._numbers is None else self._numbers[row],
            log_prob,
            error,
            flagged,
            kind,
            int((found.flagged & ~found.log_prob.isnan()).sum()),
            self.dequantised,
        )


def _tell_unknown_levels(
    scored: ScoredTable, fit: NDArray[np.int64], context: Tensor, givens: Givens
) -> None:
    """Flag the rows with a `context: (k, c)`, in the places `fit: (k,)`, in which a value is no level."""
    levels = givens.one_hot.levels
    for name, values in zip(levels.columns, levels.values, strict=True):
        own = context[:, givens.columns.index(name)].numpy()
        for place in fit[~(np.isin(own, values) | np.isnan(own))].tolist():
            if not scored.flagged[place]:
                scored.flagged[place] = scored.kind[place] = _printable(
                    f"`{name}` holds what it holds in no row of the fit: it counts as any other category"
                )


def _tell_outside(scored: ScoredTable, fit: NDArray[np.int64], x: Tensor, encoder: TableEncoder) -> None:
    """Say of the rows `x: (k, d)` in the places `fit: (k,)` which value lies outside its column's support.

    Their log-likelihood is -inf without an error.
    """
    supports = encoder.support.supports
    outside = ~(encoder.support.holds(x) | encoder.absent(x) | x.isnan())
    for number in outside.any(1).nonzero().flatten().tolist():
        column = int(outside[number].int().argmax())
        name, value = encoder.columns[column], float(x[number, column])
        flag = Flag.of(ZERO_DENSITY, f"{value:g} is not {supports[name].in_words}, as `{name}` has to be")
        place = int(fit[number])
        scored.log_prob_error[place] = 0.0
        scored.flagged[place], scored.kind[place] = _printable(flag.text), _printable(flag.kind)


def _printable(text: str) -> str:
    """The text without what a file of text cannot hold, such as a zero byte out of a cell."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _rows_to_score(
    stored: StoredRun, table: str, reading: Mapping[str, Any], folder: Path, strict: bool
) -> tuple[RowStream, NDArray[np.int64] | None, TableFile | None]:
    """The rows of `table`, which is read as that of the run was, givens last; none is unfit if `strict`.

    Also their numbers in the data set, if these are not their places, and the file that they are read from.
    """
    config, size = stored.config, in_parts.PART_ROWS
    if table in TOYS.entries and table == config.data.dataset:
        dataset, split = load_rows(config, folder)
        context = dataset.context
        whole = dataset.rows if context is None else np.hstack([dataset.targets, context])
        return whole_rows(whole[split.test], size), split.test, None
    types = {name: stored.types[name] for name in stored.read}
    file = table_file(table, folder)
    options = reading_of(config.data, reading, types, file)
    try:
        if file is not None:
            return open_rows(file, tuple(types), options, types, size, strict=strict), None, file
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
    return whole_rows(dataset.rows, size, notes=dataset.notes), None, None
