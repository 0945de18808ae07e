"""The schema of a whole table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowbench.data.cells import Cells
from flowbench.data.column_inference import infer_column, repeat_often
from flowbench.data.column_values import ColumnValues, values_of
from flowbench.data.description import DatasetCells, read_cells
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.relations import RELATION_ROWS, find_following, find_relations
from flowbench.data.repeats import number_rows
from flowbench.data.row_draw import RowDraw
from flowbench.data.schema import LEVELLED, NUMERIC, ColumnSchema, Kind, Relation, TableSchema
from flowbench.data.schema_settings import ColumnSettings, override
from flowbench.errors import UnknownColumnError, unknown_name


def check_table(
    name_or_path: str,
    *,
    columns: Sequence[str] | None = None,
    folder: Path = Path("datasets"),
    reading: ReadOptions = AUTOMATIC,
    settings: Mapping[str, ColumnSettings] | None = None,
    where: str = "the schema",
    draw: RowDraw | None = None,
) -> TableSchema:
    """The schema of a dataset: all of its columns, or those in `columns`, whatever their cells are.

    `settings` say what some columns are, in place of what their values suggest. Errors about them say
    `where` they are from. Columns that a fit leaves out are there too. `draw` says which rows of a file to
    take, by default all.

    Raises as `load_dataset` does, except for cells. Raises `UnknownColumnError` for settings of a column that
    is not there, and `DataError` for settings that its values contradict.
    """
    read = read_cells(name_or_path, columns, folder, reading, draw)
    given, notes = settings_there(read, settings or {}, columns, where)
    checked = check_columns(read.every, given, where)
    values = {name: each.values for name, each in checked.items()}
    found = []
    for name, each in checked.items():
        schema = each.schema
        if name in read.left_out:
            schema = schema.saying(f"a fit leaves it out: {read.left_out[name][1]}")
        notes += [f"{where}: column `{name}`: {what}" for what in schema.overridden]
        found.append(schema)
    data = [each for each in found if each.kind != "identifier" and each.name not in read.left_out]
    return TableSchema(
        name=read.name,
        rows=len(next(iter(read.cells.values())).numbers),
        columns=tuple(found),
        repeated_rows=_repeated_rows([values[each.name] for each in data]),
        relations=_relations(data, values),
        provenance=read.provenance,
        notes=(*read.notes, *notes),
    )


@dataclass(frozen=True, eq=False)
class CheckedColumn:
    """What a column is by a schema file, its values, and its kind by these values alone."""

    schema: ColumnSchema
    values: ColumnValues
    suggested: Kind


def settings_there(
    read: DatasetCells, settings: Mapping[str, ColumnSettings], columns: Sequence[str] | None, where: str
) -> tuple[dict[str, ColumnSettings], list[str]]:
    """The `settings` of the columns that were read, and notes on those that are passed over.

    These may be of columns that a selection, `columns`, leaves out. Without one, raises `UnknownColumnError`,
    which says `where` they are, for a column that is not there.
    """
    there = read.every
    notes = []
    if unknown := [name for name in settings if name not in there]:
        if columns is None:
            raise UnknownColumnError(f"{where}: {unknown_name('column', unknown[0], list(there))}")
        notes.append(f"{where}: entries of columns that `--columns` leaves out are passed over")
    return {name: each for name, each in settings.items() if name in there}, notes


def check_columns(
    cells: Mapping[str, Cells], settings: Mapping[str, ColumnSettings], where: str
) -> dict[str, CheckedColumn]:
    """What columns with these `cells` are, by what `settings` say of some, and else by their values.

    Raises `DataError`, which says `where` the settings are, for those that the values contradict.
    """
    found = {}
    for name, each in cells.items():
        values = values_of(each)
        inferred = infer_column(name, each, values)
        schema = override(inferred, each, values, settings[name], where) if name in settings else inferred
        found[name] = CheckedColumn(schema, values, inferred.kind)
    return found


def _repeated_rows(columns: Sequence[ColumnValues]) -> int:
    """The number of rows that equal an earlier one in every column; cells without a value are equal."""
    if not columns:
        return 0
    numbers = number_rows(np.column_stack([each.codes.astype(np.float64) for each in columns]))
    return len(numbers) - len(np.unique(numbers))


def _relations(data: Sequence[ColumnSchema], values: Mapping[str, ColumnValues]) -> tuple[Relation, ...]:
    """Columns that follow from others: by an equation of their numbers, or level by level."""
    numeric = [
        each.name
        for each in data
        if each.kind in (*NUMERIC, "ordinal", "boolean") and not values[each.name].is_text
    ]
    found = []
    if len(numeric) > 1:
        known = np.all([values[name].codes >= 0 for name in numeric], axis=0)
        rows = np.flatnonzero(known)[:RELATION_ROWS]
        columns = [np.asarray(values[name].distinct)[values[name].codes[rows]] for name in numeric]
        for group in find_relations(np.column_stack(columns)) if len(rows) else []:
            names = tuple(numeric[i] for i in group)
            found.append(Relation(names, names))
    levelled = {
        each.name: values[each.name].codes
        for each in data
        if each.kind in LEVELLED or repeat_often(values[each.name].counts)
    }
    pairs = find_following(levelled)
    for first, second in pairs:
        both = (second, first) in pairs
        if (both and first > second) or any({first, second} == set(each.columns) for each in found):
            continue
        found.append(Relation((first, second), (first, second) if both else (second,)))
    return tuple(found)
