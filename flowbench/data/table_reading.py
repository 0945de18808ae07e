"""Reads a table of finite numbers from a file, and checks every cell."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowbench.data.bookkeeping import find_bookkeeping
from flowbench.data.cell_faults import check_cells, leave_out_hint, listed, shown
from flowbench.data.cells import Cells
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.files import TableFile
from flowbench.data.formats import read_raw_table, reading_errors
from flowbench.data.gaps import find_gaps
from flowbench.data.level_reading import (
    categorical_columns,
    describe_levels,
    is_of_levels,
    known_levels,
    read_known_levels,
    read_levels,
)
from flowbench.data.raw_table import RawTable
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.row_draw import RowDraw
from flowbench.data.row_weights import counts, weights_of
from flowbench.data.split_column import part_numbers
from flowbench.data.unfit_rows import UnfitCell, rows_of_cells
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError, unknown_name

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Column names and finite rows: `names` has d entries, `rows` is (n, d) float64 with n >= 1.

    `types` are the types and notations of the columns in the file. `notes` are sentences on what reading
    guessed or left out. `row_numbers: (n,)` are the rows' numbers in the file, from 0, if these are some of
    them. `categories` names the columns of few levels: those of text hold the places of their levels, as
    their type says, and those of numbers the numbers. `groups: (n,)` number the cells of the column that
    groups rows, if there is one. `parts: (n,)` number the parts of the split that a column gives: 0 train, 1
    validation, 2 test. `weights: (n,)` say how much each row counts, if there is such a column. `levels` are
    those of some categorical columns of numbers, ascending, if the user told them.
    """

    names: tuple[str, ...]
    rows: Floats
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    row_numbers: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    categories: tuple[str, ...] = ()
    parts: NDArray[np.int64] | None = None
    weights: Floats | None = None
    levels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def read_table(
    path: str | Path | TableFile,
    columns: Sequence[str] | None = None,
    *,
    reading: ReadOptions = AUTOMATIC,
    may_leave_out: bool = True,
    types: Mapping[str, ColumnType] | None = None,
    few_are_categories: bool = True,
    draw: RowDraw | None = None,
) -> Table:
    """Read a table file of any format in `flowbench.data.files.KINDS`; only `columns`, in this order.

    Without `columns`, those that only number or name the rows are left out, with a note. Columns of text or
    of truth values are read as the places of their levels. `types` are the known types of columns, by name.
    `may_leave_out` says whether errors may advise to leave columns out; a model that needs all columns sets
    it to false. `few_are_categories` says whether columns of few numbers are categorical. `draw` says which
    rows to take, by default all.

    Raises `DataError` for a file that cannot be read, for repeated names, for no rows, and for cells that are
    missing, infinite or not numbers. The error names the file, and the column and row (from 1, without the
    header) if there is one. Raises `UnknownColumnError` for a column that is not there, and
    `ConfigurationError` for a selection that is empty or repeats a column.
    """
    file = path if isinstance(path, TableFile) else TableFile.of(path)
    chosen = read_columns(file, columns, reading, types, draw=draw)
    with reading_errors(file):
        if types is None:
            chosen = _with_levels(chosen, reading, named=columns is not None)
        return _checked_table(chosen, reading, may_leave_out, few_are_categories)


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a file by name, before their cells are checked, and notes on reading them.

    `aside` are further columns that are no data, such as one that groups the rows. `left_out` are columns
    that nobody asked for and that are no data by themselves, each with the reason.
    """

    cells: Mapping[str, Cells]
    notes: tuple[str, ...]
    aside: Mapping[str, Cells] = field(default_factory=dict)
    left_out: Mapping[str, tuple[Cells, str]] = field(default_factory=dict)


def read_columns(
    path: Path | TableFile,
    columns: Sequence[str] | None = None,
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
    aside: Mapping[str, str] | None = None,
    draw: RowDraw | None = None,
) -> Columns:
    """The columns of a table, whatever their cells are; `types` are those that are known.

    `aside` maps the names of columns that are read beside the data to the options that name them. `draw` says
    which rows to take, by default all. Raises as `read_table` does, except for cells.
    """
    file = path if isinstance(path, TableFile) else TableFile(path)
    with reading_errors(file):
        own = {
            reading.group: "--group",
            reading.split_column: "--split-column",
            reading.weights: "--weights",
        }
        aside = {**{name: option for name, option in own.items() if name}, **(aside or {})}
        wanted = None if columns is None else [*columns, *aside]
        raw = read_raw_table(file, reading, wanted, draw)
        names, named = _named(raw)
        _check_names(names, None if columns is None else [*columns, *aside])
        for option in ("--keep", "--categories", "numeric", "leave_out"):
            if told := getattr(reading, option.strip("-")):
                select_columns(names, told, f"{file}: `{option}`")
        for name, option in aside.items():
            select_columns(names, [name], f"{file}: `{option}`")
        if raw.n_rows == 0 or not names:
            raise DataError("it holds no rows")
        wanted_indices, omitted = select_columns(names, columns, str(file)), reading.leave_out or ()
        if columns is None:
            wanted_indices = [i for i in wanted_indices if names[i] not in (*aside, *omitted)]
            if omitted and not wanted_indices:
                raise DataError("no column is left to learn")
        as_data = {*reading.as_numbers, *(reading.categories or ())}
        indices = {i: why for i, why in raw.bookkeeping.items() if names[i] not in as_data}
        listed = [i for i in wanted_indices if columns is not None or i not in indices]
        expected = dict.fromkeys(reading.keep or (), FLOAT64) | dict(types or {})
        cells = {}
        for index in listed or wanted_indices:
            known = expected.get(names[index])
            cells[names[index]] = as_expected(raw.cells(index, known), known, raw.has_signs)
        notes, left_out = list(raw.notes), dict[str, tuple[Cells, str]]()
        if columns is None:
            unnamed = [name for name, own in zip(names, raw.names, strict=True) if not own]
            found = find_bookkeeping(list(cells), cells, unnamed, as_data)
            reasons = {names[i]: why for i, why in indices.items() if listed and names[i] not in omitted}
            reasons |= {name: each.why for name, each in found.items() if each.is_certain}
            kept = {name: each for name, each in cells.items() if name not in reasons}
            if not kept:
                kept, reasons = cells, {}
            notes += [f"column `{name}` is left out, as the schema says" for name in omitted]
            notes += [
                f"column `{name}` is left out: {why}; `--columns` keeps what it names"
                for name, why in reasons.items()
                if why
            ]
            warnings = {
                name: f"column `{name}` {each.why.removeprefix('it ')}, and is learnt as data"
                for name, each in found.items()
                if not each.is_certain
            }
            hint = leave_out_hint(list(kept), warnings)
            notes += [f"{each}; {hint}" if hint else each for each in warnings.values()]
            for name, why in reasons.items():
                if why:
                    there = cells[name] if name in cells else raw.cells(names.index(name), None)
                    left_out[name] = (there, why)
            cells = kept
        notes += [note for name, note in named.items() if columns is None and name in cells]
        notes += notes_on_cells((name, *note) for name, each in cells.items() for note in each.notes)
        if types is None and reading.missing_values:
            held = frozenset().union(*(each.markers for each in cells.values()))
            notes += [
                f"no cell is `{marker}`, which `--missing-value` names"
                for marker in reading.missing_values
                if marker not in held
            ]
        others = {name: raw.cells(names.index(name), expected.get(name)) for name in aside}
        return Columns(cells, tuple(notes), others, left_out)


def as_expected(cells: Cells, expected: ColumnType | None, has_signs: bool) -> Cells:
    """`cells`, with a fault or a note if they are not of the type that was `expected`."""
    if expected is None or cells.fault is not None:
        return cells
    if expected.levels is not None:
        return read_known_levels(cells, expected)
    if not np.isfinite(cells.numbers).any():
        return replace(cells, type=expected)
    if cells.type.unit != expected.unit and expected.unit == "days since 1970-01-01":
        days = cells.numbers / 86400
        if cells.type.storage.startswith("timestamp") and np.array_equal(days, np.rint(days), equal_nan=True):
            return replace(cells, numbers=days, type=expected)
    if cells.type.unit != expected.unit:
        found = [each or "plain numbers" for each in (cells.type.unit, expected.unit)]
        fault = f"it holds {found[0]} where {found[1]} are known to stand"
        return replace(cells, fault=fault)
    if has_signs and cells.type.mark != expected.mark:
        marks = [f"`{each}`" if each else "no sign" for each in (cells.type.mark, expected.mark)]
        what = f"numbers have {marks[0]} beside them where {marks[1]} is known to stand; they are read alike"
        return replace(cells, notes=(*cells.notes, (what, f"{cells.numbers[0]:g}")))
    return cells


def notes_on_cells(notes: Iterable[tuple[str, str, str]]) -> list[str]:
    """The `notes` on cells, column and note and example of each, once for all columns of one note."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, what, example in notes:
        found.setdefault(what, []).append((name, example))
    return [
        f"{what}, such as `{shown(each[0][1])}`: {listed([f'`{name}`' for name, _ in each])}"
        for what, each in found.items()
    ]


def read_rows(
    path: str | Path | TableFile,
    columns: Sequence[str],
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
    *,
    strict: bool = False,
) -> tuple[Floats, dict[int, UnfitCell], tuple[str, ...]]:
    """The rows `(n, d)` of a table file, data units, its unfit rows, and notes.

    A cell is NaN if it is missing or not a number. An unfit row is given by its index, from 0, with its first
    unfit cell in the order of the columns. A missing cell is none if such cells are modelled, and others of
    the row are there. Raises as `read_table` does; for cells it does so if `strict`.
    """
    file = path if isinstance(path, TableFile) else TableFile.of(path)
    found = read_columns(file, columns, reading, types)
    with reading_errors(file):
        if strict:
            check_cells(found.cells, may_be_missing=reading.missing == "model", may_leave_out=False)
        return *rows_of_cells(found.cells, gaps=reading.missing == "model"), found.notes


def select_columns(names: Sequence[str], wanted: Sequence[str] | None, where: str) -> list[int]:
    """Indices of the `wanted` columns among `names`; all of them if `wanted` is None.

    Raises `UnknownColumnError` for a name that is not there, and `ConfigurationError` for an empty selection
    or one that repeats a name. `where` names the table in the message.
    """
    if wanted is None:
        return list(range(len(names)))
    if not wanted:
        raise ConfigurationError("`columns` is empty; name at least one column")
    if unknown := [name for name in wanted if name not in names]:
        raise UnknownColumnError(f"{where}: {unknown_name('column', unknown[0], names)}")
    if repeated := _repeated(wanted):
        raise ConfigurationError(f"`columns` names `{repeated}` more than once")
    return [names.index(name) for name in wanted]


def group_numbers(cells: Cells) -> NDArray[np.int64]:
    """A number for each distinct cell: `(n,)`; each missing cell is a group of its own."""
    foreign, missing = cells.is_foreign, cells.is_missing
    keys = cells.numbers.astype(object)
    for row in np.flatnonzero(foreign):
        keys[row] = cells.text(int(row))
    for row in np.flatnonzero(missing):
        keys[row] = ("missing", int(row))
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _named(raw: RawTable) -> tuple[list[str], dict[str, str]]:
    """The names of all columns, with names for those that have none, and notes about these."""
    names, notes = list(raw.names), dict[str, str]()
    for index, name in enumerate(raw.names):
        if not name and raw.bookkeeping.get(index) != "":
            place = f"c{index + 1}"
            names[index] = place + "_" * sum(other == place for other in raw.names)
            notes[names[index]] = f"column {index + 1} has no name, and is called `{names[index]}`"
    return names, notes


def _check_names(names: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Raise `DataError` if two columns that are used have the same name."""
    used = [name for name in names if name] if wanted is None else [name for name in names if name in wanted]
    if repeated := _repeated(used):
        raise DataError(f"two columns are called `{repeated}`; give every column a name of its own")


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _with_levels(columns: Columns, reading: ReadOptions, *, named: bool) -> Columns:
    """The same `columns`, those of text as the places of their levels; names of rows are left out.

    The user has `named` all columns, or else a column that cannot be read so is left out with a note.
    """
    wanted = reading.categories or ()
    text = {
        name: read_levels(name, each, wanted=name in wanted, levels=reading.levels_of(name))
        for name, each in columns.cells.items()
        if is_of_levels(each)
    }
    unfit = {name: each.fault for name, each in text.items() if each.fault is not None}
    kept = {name: text.get(name, each) for name, each in columns.cells.items()}
    notes = list(columns.notes)
    if not named and len(unfit) < len(kept):
        kept = {name: each for name, each in kept.items() if name not in unfit}
        notes += [f"column `{name}` is left out: {why}" for name, why in unfit.items()]
    return replace(columns, cells=kept, notes=tuple(notes))


def _checked_table(
    columns: Columns, reading: ReadOptions, may_leave_out: bool, few_are_categories: bool
) -> Table:
    first = next(iter(columns.cells.values()))
    n, read = len(first.numbers), first.rows
    kept, notes = None, list(columns.notes)
    weights = weights_of(reading.weights, columns.aside[reading.weights]) if reading.weights else None
    if reading.missing == "drop":
        missing = np.zeros(n, dtype=bool)
        for each in columns.cells.values():
            missing |= each.is_missing
        if missing.all():
            raise DataError(
                "every row has a missing cell; leave columns out that have many, with `--columns`"
            )
        if missing.any():
            kept = np.flatnonzero(~missing)
            notes.append(f"{int(missing.sum()):,} of {n:,} rows have missing cells, and are left out")
    if reading.missing == "model":
        kept, said = find_gaps(columns.cells)
        notes += said
    may_be_missing = kept is not None or reading.missing == "model"
    check_cells(columns.cells, may_be_missing=may_be_missing, may_leave_out=may_leave_out)
    if weights is not None:
        kept, lost = _weighty(weights, kept)
        if lost:
            told = f"{lost:,} of {n:,} rows have the weight 0 in `{reading.weights}`, or next to it"
            notes.append(f"{told}, and are left out")
    rows = np.empty((n if kept is None else len(kept), len(columns.cells)))
    for number, each in enumerate(columns.cells.values()):
        rows[:, number] = each.numbers if kept is None else each.numbers[kept]
    rows.setflags(write=False)
    groups = None
    if reading.group:
        groups = group_numbers(columns.aside[reading.group])
        groups = groups if kept is None else groups[kept]
    parts = None
    if reading.split_column:
        parts = part_numbers(columns.aside[reading.split_column], reading.split_column)
        parts = parts if kept is None else parts[kept]
    numbers = read if kept is None else kept if read is None else read[kept]
    types = {name: each.type for name, each in columns.cells.items()}
    values = dict(zip(columns.cells, rows.T, strict=True))
    categories = categorical_columns(values if few_are_categories else {}, types, reading)
    levels = {
        name: known_levels(name, values[name], named, numbers)
        for name in categories
        if types[name].levels is None and (named := reading.levels_of(name)) is not None
    }
    notes += [describe_levels(name, each, types[name]) for name, each in values.items() if name in categories]
    if weights is not None and kept is not None:
        weights = weights[kept]
    names = tuple(columns.cells)
    return Table(names, rows, types, tuple(notes), numbers, groups, categories, parts, weights, levels)


def _weighty(weights: Floats, kept: NDArray[np.int64] | None) -> tuple[NDArray[np.int64] | None, int]:
    """The numbers of the rows that are `kept` and count by `weights: (n,)`, and how many do not count.

    None stands for all rows.
    """
    wanted = np.arange(len(weights)) if kept is None else kept
    left = wanted[counts(weights)[wanted]]
    if not len(left):
        raise DataError("no row is left that counts: those of weight above 0 have missing cells")
    return (kept if len(left) == len(wanted) else left), len(wanted) - len(left)
