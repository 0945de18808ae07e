"""Drawing rows from a fitted run."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import load_dataset
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError, unknown_name
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.reported import Restore, draw_rows
from flowbench.evaluation.solver_levels import OnRows
from flowbench.store import HeldParts, Parts, Run, table_format, write_long_table
from flowbench.store.documents import to_json
from flowbench.store.table_parts import Columns
from flowbench.workflows import in_parts
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.home import Home
from flowbench.workflows.in_parts import PartProgress, Tell, about_run, do_in_parts
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.output import LIKELIHOODS, PARTS, attributes, likelihood_columns
from flowbench.workflows.preparation import EVALUATION, random_stream
from flowbench.workflows.rereading import reading_of
from flowbench.workflows.stored_run import StoredRun

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnRows:
    """Rows `x: (n, d)` in data units under their `columns`, and `log_prob: (n,)`, nats, data units.

    `log_prob_error: (n,)` is how far each of these may be off, nats; `above: int` of them by more than the
    largest error asked for, if one was. `context: (n, c)` are the values of the `given` columns, data units,
    that a conditional model drew each row for; None for an unconditional one. `log_mass: (n,)` is the part
    of `log_prob` that is the log-probability of the categories in it, where the model has drawn these. Files
    have the columns in the `order` of the table.
    """

    columns: tuple[str, ...]
    x: Floats
    log_prob: Floats
    log_prob_error: Floats
    dequantised: tuple[str, ...] = ()
    above: int = 0
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    context: Floats | None = None
    log_mass: Floats | None = None
    order: tuple[str, ...] = ()

    def save(self, path: Path, run: Run) -> None:
        """Write the drawn columns, the given ones and the likelihoods, in the ending's format.

        The likelihoods are `log_prob` and `log_prob_error`, and `log_mass` and `log_density` where there are
        categories.
        The columns are of the types that their table has, as far as the format knows them.
        """
        _write(path, HeldParts([self.to_columns()]), self.types, attributes(run, self.dequantised))

    def to_columns(self) -> dict[str, Floats]:
        """The columns of the file that `save` writes, as plain numbers."""
        whole = self.x if self.context is None else np.hstack([self.x, self.context])
        named = dict(zip((*self.columns, *self.given), whole.T, strict=True))
        # No table has columns of states.
        table = {name: named[name] for name in self.order or named}
        return table | likelihood_columns(self.log_prob, self.log_prob_error, self.log_mass)

    @classmethod
    def join(cls, parts: "Sequence[DrawnRows]") -> Self:
        """The rows of one part or more of the same draw, in their order."""
        first = parts[0]
        contexts = [part.context for part in parts if part.context is not None]
        masses = [part.log_mass for part in parts if part.log_mass is not None]
        return cls(
            first.columns,
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.log_prob for part in parts]),
            np.concatenate([part.log_prob_error for part in parts]),
            first.dequantised,
            sum(part.above for part in parts),
            first.types,
            first.given,
            np.concatenate(contexts) if contexts else None,
            np.concatenate(masses) if masses else None,
            first.order,
        )


def _write(
    path: Path,
    parts: Parts,
    types: Mapping[str, ColumnType],
    about: Mapping[str, str | int | float],
    telling: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write columns of plain numbers in their `types`; `telling` values of a column say which it can have."""
    typed = _TypedParts(parts, types, table_format(path), telling or {})
    units = {name: each.unit for name, each in types.items() if each.unit}
    storage = {name: each.storage for name, each in types.items()}
    units |= dict.fromkeys((*LIKELIHOODS, *PARTS), "nats")
    write_long_table(path, typed, about, units, types=storage)


@dataclass(frozen=True)
class _TypedParts:
    """`parts` of plain numbers with columns of the `types` that their table has, as a `format` knows them.

    A column is of one type in all parts. Which one its values allow follows from the few that are `telling`.
    """

    plain: Parts
    types: Mapping[str, ColumnType]
    format: str
    telling: Mapping[str, Sequence[float]]

    def __len__(self) -> int:
        return len(self.plain)

    def read(self, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """The parts in their order, or only their columns of these `names`."""
        for part in self.plain.read(names):
            yield {name: self._typed(name, values) for name, values in part.items()}

    def _typed(self, name: str, values: Floats) -> NDArray[Any]:
        if name in (*LIKELIHOODS, *PARTS):
            return values
        each = self.types.get(name, FLOAT64)
        write = {"csv": each.text, "hdf5": each.counted}.get(self.format, each.typed)
        return write(np.append(values, self.telling.get(name, ())))[: len(values)]


@dataclass
class DrawSums:
    """Sums over the `rows` that are drawn so far.

    `total` is the sum of their log-likelihoods, nats, and `above` of them miss the largest error asked for.
    `telling` holds, for each column, values that tell which types it can have: the least, the largest, one
    that is no whole number and one that is not finite.
    """

    rows: int = 0
    total: float = 0.0
    above: int = 0
    telling: dict[str, list[float]] = field(default_factory=dict)

    def add(self, part: DrawnRows) -> None:
        """Add the rows of another part."""
        self.rows += len(part.x)
        self.total += float(part.log_prob.sum())
        self.above += part.above
        for name, values in part.to_columns().items():
            self.telling[name] = _telling(np.append(values, self.telling.get(name, [])))


def _telling(values: Floats) -> list[float]:
    finite = np.isfinite(values)
    known = values[finite]
    least = [float(known.min()), float(known.max())] if len(known) else []
    return [*least, *known[known != np.rint(known)][:1].tolist(), *values[~finite][:1].tolist()]


def sample(
    run: Run,
    n: int,
    *,
    given: Mapping[str, float | str] | str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    home: Home | None = None,
    on_rows: OnRows = lambda done, total: None,
) -> DrawnRows:
    """Draw `n` rows from a run's model, with log-likelihoods and their errors.

    A conditional model draws them for the values of its given columns: `given` holds a value for each, or is
    the path or the name of a table that has these columns, and then `n` rows are drawn for each of its rows.

    These are float64, with the exact divergence; those of dequantised columns as `score` would have them.
    `settings` change the run's evaluation, as those of `score` do.

    Rows are drawn in parts of `flowbench.workflows.in_parts.PART_ROWS`, each with a generator of its own.

    Raises `DataError` for a model of a table that has a column called `log_prob` or `log_prob_error`, and for
    a table of givens that lacks a column or a cell. Raises `ConfigurationError` for values of other columns
    than those given, and for a conditional model without any.
    """
    drawer = _Drawer(run, n, given, seed, settings, home, on_rows)
    return DrawnRows.join(list(drawer.draw()))


def sample_to(
    path: Path,
    run: Run,
    n: int,
    *,
    given: Mapping[str, float | str] | str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    home: Home | None = None,
    on_rows: OnRows = lambda done, total: None,
    tell: Tell = lambda text: None,
) -> tuple[DrawSums, tuple[str, ...]]:
    """Write what `sample` draws to `path`, in the format of its ending, with no more than a part in memory.

    It is written in parts as `flowbench.workflows.in_parts.do_in_parts` says, which `tell` hears of. Returns
    sums over the rows, and the columns that are dequantised.
    """
    drawer = _Drawer(run, n, given, seed, settings, home, on_rows)
    do_in_parts(drawer, path, tell)
    return drawer.sums, drawer.dequantised


class _Drawer:
    """The job of drawing rows; its arguments are those of `sample`."""

    def __init__(
        self,
        run: Run,
        n: int,
        given: Mapping[str, float | str] | str | None,
        seed: int,
        settings: Sequence[str],
        home: Home | None,
        on_rows: OnRows,
    ) -> None:
        if n < 1:
            raise ConfigurationError(f"at least one row is drawn; got n = {n}")
        self.stored = stored = StoredRun(run)
        options = with_evaluation(stored.config, settings).evaluation
        self.model = stored.model_on_device()
        self.each, self.seed, self.sums = n, seed, DrawSums()
        self.draws_givens = given is None and bool(stored.categorical)
        self.givens = None
        if not self.draws_givens or self.model.draw_context(1, random_stream(seed, EVALUATION)) is None:
            self.givens = _givens(stored, given, (home or Home()).datasets)
        own = {*LIKELIHOODS, *(PARTS if stored.categorical else ())}
        if taken := own & set(stored.read):
            raise DataError(
                f"the table has a column called `{min(taken)}`, where samples hold theirs; rename it and fit "
                "anew"
            )
        self.asked = [n, seed, options.model_dump(), None if self.givens is None else self.givens.tolist()]
        self.rows = n if self.givens is None else n * len(self.givens)
        self._progress = PartProgress(self.rows, on_rows)
        self._budget = ErrorBudget(self.model, options, self._progress)

    @property
    def dequantised(self) -> tuple[str, ...]:
        return tuple(self.model.encoder.dequantiser.lattices)

    @property
    def about(self) -> Mapping[str, Any]:
        asked = hashlib.sha256(to_json({"asked": self.asked}).encode()).hexdigest()
        return {"kind of work": "sample", **about_run(self.stored.run), "choice of options": asked}

    @property
    def state(self) -> Mapping[str, Any]:
        return vars(self.sums)

    def restore(self, state: Mapping[str, Any]) -> None:
        self.sums = DrawSums(**state)

    def parts(self, first: int) -> Iterator[Columns]:
        for part in self.draw(first):
            self.sums.add(part)
            yield part.to_columns()

    def write(self, path: Path, parts: Parts) -> None:
        about = attributes(self.stored.run, self.dequantised)
        _write(path, parts, self.stored.types, about, self.sums.telling)

    def draw(self, first: int = 0) -> Iterator[DrawnRows]:
        """The rows from number `first` on, by the part."""
        size = in_parts.PART_ROWS
        for start in range(first, self.rows, size):
            with cpu_threads(self.stored.config.threads):
                yield self._draw(start, min(size, self.rows - start))

    @torch.no_grad()
    def _draw(self, first: int, n: int) -> DrawnRows:
        model, stored = self.model, self.stored
        self._progress.begin(first, n)
        generator = random_stream(self.seed, EVALUATION, part=first // in_parts.PART_ROWS)
        context = model.draw_context(n, generator) if self.draws_givens else None
        log_mass = None if context is None else model.log_mass(context)
        if context is None and self.givens is not None:
            context = self.givens[torch.arange(first, first + n) // self.each]
        restore = _restore(model.columns, stored.types, model.encoder)
        x, found = draw_rows(self._budget, n, generator, restore, context=context)
        return DrawnRows(
            model.columns,
            x.numpy(),
            (found.log_prob if log_mass is None else found.log_prob + log_mass).numpy(),
            found.error.numpy(),
            self.dequantised,
            int(found.flagged.sum()),
            stored.types,
            stored.given,
            None if context is None else context.numpy(),
            None if log_mass is None else log_mass.numpy(),
            stored.order,
        )


def _givens(stored: StoredRun, given: Mapping[str, float | str] | str | None, folder: Path) -> Tensor | None:
    """The contexts `(m, c)` that `sample` is asked for, data units; None for an unconditional model."""
    names = stored.given
    if not names:
        if given is not None:
            raise ConfigurationError(
                f"the run `{stored.run.name}` models all of its columns together; leave `--given` out"
            )
        return None
    if given is None:
        example = ",".join(f"{name}=..." for name in names)
        raise ConfigurationError(
            f"the run `{stored.run.name}` models {', '.join(stored.columns)} given {', '.join(names)}; say "
            f"for which values rows are drawn, with `--given {example}` or `--given FILE`"
        )
    if isinstance(given, str) and stored.states:
        raise ConfigurationError(
            f"the run `{stored.run.name}` has learnt which rows hold atoms, such as `{stored.states[0]}`, "
            "which no table has; give a value for each of its categories by name"
        )
    if not isinstance(given, str):
        for name in given:
            if name not in names:
                raise ConfigurationError(f"`given`: {unknown_name('given column', name, names)}")
        if missing := [name for name in names if name not in given]:
            raise ConfigurationError(
                f"`given` lacks a value for `{missing[0]}`; name all of {', '.join(names)}"
            )
        values = [_number(name, given[name], stored) for name in names]
        return torch.tensor([values], dtype=torch.float64)
    types = {name: stored.types[name] for name in names}
    options = reading_of(stored.config.data, {}, types)
    try:
        table = load_dataset(given, columns=names, folder=folder, for_fit=False, reading=options, types=types)
    except UnknownColumnError as error:
        raise DataError(f"{error}; the run is given {', '.join(names)}") from error
    return torch.tensor(table.rows)


def _number(name: str, value: object, stored: StoredRun) -> float:
    """The value of a given column; raises `ConfigurationError` unless it is a finite number, or a level."""
    type_, levels = stored.types[name], stored.levels.get(name)
    if type_.levels is not None:
        if value not in type_.levels:
            raise ConfigurationError(
                f"`given`: {unknown_name(f'level of `{name}`', str(value), type_.levels)}"
            )
        return float(type_.levels.index(str(value)))
    with suppress(TypeError, ValueError):
        number = float(value)  # type: ignore[arg-type]
        if levels is not None and number not in levels:
            known = [f"{each:g}" for each in levels]
            raise ConfigurationError(f"`given`: {unknown_name(f'level of `{name}`', str(value), known)}")
        if math.isfinite(number):
            return number
    raise ConfigurationError(f"`given`: the value of `{name}` must be a finite number; got {value!r}")


def _restore(
    columns: tuple[str, ...], types: Mapping[str, ColumnType], encoder: TableEncoder
) -> Restore | None:
    """What rounds rows to the values that their table can hold; None where it can hold any.

    A value that would be rounded out of its column's support, or onto an atom, stays as it is.
    """
    rounding = {
        number: types[name]
        for number, name in enumerate(columns)
        if name in types and types[name].rounds and name not in encoder.dequantiser.lattices
    }
    if not rounding:
        return None

    def restore(rows: Floats) -> Floats:
        rounded = rows.copy()
        for number, each in rounding.items():
            rounded[:, number] = each.restore(rows[:, number])
        # What is rounded onto the high end of a period is its low end.
        rounded = encoder.wrap(torch.from_numpy(rounded)).numpy()
        held = encoder.support.holds(torch.from_numpy(rounded))
        # A value that is no atom must not become one.
        becomes_atom = encoder.absent(torch.from_numpy(rounded)) & ~encoder.absent(torch.from_numpy(rows))
        return np.where((held & ~becomes_atom).numpy(), rounded, rows)

    return restore
