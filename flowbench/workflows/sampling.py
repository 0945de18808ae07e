"""Drawing rows from a fitted run."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import load_dataset
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError, unknown_name
from flowbench.evaluation.reported import Restore, drawn_likelihoods
from flowbench.evaluation.solver_levels import OnRows
from flowbench.store import Run, table_format, write_table
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.home import Home
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
        format = table_format(path)
        table: dict[str, NDArray[Any]] = {}
        whole = self.x if self.context is None else np.hstack([self.x, self.context])
        for values, name in zip(whole.T, (*self.columns, *self.given), strict=True):
            each = self.types.get(name, FLOAT64)
            write = {"csv": each.text, "hdf5": each.counted}.get(format, each.typed)
            table[name] = write(values)
        # No table has columns of states.
        table = {name: table[name] for name in self.order or table}
        likelihoods = likelihood_columns(self.log_prob, self.log_prob_error, self.log_mass)
        table |= likelihoods
        units = {name: each.unit for name, each in self.types.items() if each.unit}
        storage = {name: each.storage for name, each in self.types.items()}
        units |= dict.fromkeys(likelihoods, "nats")
        write_table(path, table, attributes(run, self.dequantised), units, types=storage)


@torch.no_grad()
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

    Raises `DataError` for a model of a table that has a column called `log_prob` or `log_prob_error`, and for
    a table of givens that lacks a column or a cell. Raises `ConfigurationError` for values of other columns
    than those given, and for a conditional model without any.
    """
    if n < 1:
        raise ConfigurationError(f"at least one row is drawn; got n = {n}")
    stored = StoredRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    model = stored.model_on_device()
    generator = random_stream(seed, EVALUATION)
    context = None
    if given is None and stored.categorical:
        context = model.draw_context(n, generator)
    log_mass = None if context is None else model.log_mass(context)
    if context is None:
        context = _contexts(stored, given, n, (home or Home()).datasets)
    own = {*LIKELIHOODS, *(PARTS if stored.categorical else ())}
    if taken := own & set(stored.read):
        raise DataError(
            f"the table has a column called `{min(taken)}`, where samples hold theirs; rename it and fit anew"
        )
    dequantiser = model.encoder.dequantiser
    with cpu_threads(stored.config.threads):
        x, found = drawn_likelihoods(
            model,
            n if context is None else len(context),
            options,
            generator,
            context=context,
            restore=_restore(model.columns, stored.types, model.encoder),
            on_rows=on_rows,
        )
    log_prob = (found.log_prob if log_mass is None else found.log_prob + log_mass).numpy()
    error = found.error.numpy()
    above = int(found.flagged.sum())
    cells = tuple(dequantiser.lattices)
    givens = None if context is None else context.numpy()
    return DrawnRows(
        model.columns,
        x.numpy(),
        log_prob,
        error,
        cells,
        above,
        stored.types,
        stored.given,
        givens,
        None if log_mass is None else log_mass.numpy(),
        stored.order,
    )


def _contexts(
    stored: StoredRun, given: Mapping[str, float | str] | str | None, n: int, folder: Path
) -> Tensor | None:
    """The contexts `(n, c)` that `sample` is asked for, data units; None for an unconditional model."""
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
    if not isinstance(given, str):
        for name in given:
            if name not in names:
                raise ConfigurationError(f"`given`: {unknown_name('given column', name, names)}")
        if missing := [name for name in names if name not in given]:
            raise ConfigurationError(
                f"`given` lacks a value for `{missing[0]}`; name all of {', '.join(names)}"
            )
        values = [_number(name, given[name], stored.types[name]) for name in names]
        return torch.tensor([values], dtype=torch.float64).expand(n, -1)
    types = {name: stored.types[name] for name in names}
    options = reading_of(stored.config.data, {}, types)
    try:
        table = load_dataset(given, columns=names, folder=folder, for_fit=False, reading=options, types=types)
    except UnknownColumnError as error:
        raise DataError(f"{error}; the run is given {', '.join(names)}") from error
    return torch.tensor(table.rows).repeat_interleave(n, 0)


def _number(name: str, value: object, type_: ColumnType) -> float:
    """The value of a given column; raises `ConfigurationError` unless it is a finite number, or a level."""
    if type_.levels is not None:
        if value not in type_.levels:
            raise ConfigurationError(
                f"`given`: {unknown_name(f'level of `{name}`', str(value), type_.levels)}"
            )
        return float(type_.levels.index(str(value)))
    with suppress(TypeError, ValueError):
        number = float(value)  # type: ignore[arg-type]
        if math.isfinite(number):
            return number
    raise ConfigurationError(f"`given`: the value of `{name}` must be a finite number; got {value!r}")


def _restore(
    columns: tuple[str, ...], types: Mapping[str, ColumnType], encoder: TableEncoder
) -> Restore | None:
    """What rounds rows to the values that their table can hold; None where it can hold any.

    A value that would be rounded out of its column's support stays as it is.
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
        held = encoder.support.holds(torch.from_numpy(rounded)).numpy()
        return np.where(held, rounded, rows)

    return restore
