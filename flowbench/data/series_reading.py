"""Reads irregular time series from a long table: one row for each observation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowbench.data.catalogue import file_provenance, table_stem
from flowbench.data.cell_faults import check_cells, leave_out_hint, listed, shown
from flowbench.data.cells import Cells
from flowbench.data.column_type import ColumnType
from flowbench.data.dataset import Column
from flowbench.data.files import TableFile, unchanged
from flowbench.data.formats import reading_errors
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.series_dataset import Floats, SeriesDataset
from flowbench.data.table_reading import group_numbers, read_columns
from flowbench.errors import ConfigurationError, DataError

#: What is done with observations of one series at one time.
Repeated = Literal["average", "refuse"]


@dataclass(frozen=True)
class SeriesColumns:
    """Which columns of a long table name the series and hold the times.

    Raises `ConfigurationError` if one column shall do both.
    """

    series: str
    time: str

    def __post_init__(self) -> None:
        if self.series == self.time:
            raise ConfigurationError(
                f"`--series` and `--time` both name `{self.time}`; the series and the times are two columns"
            )


def read_series(
    file: TableFile,
    places: SeriesColumns,
    columns: Sequence[str] | None = None,
    *,
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
    repeated: Repeated = "average",
    for_fit: bool = True,
) -> SeriesDataset:
    """The series of a table file of any format; `columns` hold the values, by default all other columns.

    Rows are sorted by time. Rows of one series at one time are averaged, cell by cell, or refused. Rows
    without any value are left out. The notes say so. `types` are the known types of columns. `for_fit` also
    leaves out columns that have one value throughout.

    Raises `DataError` for a file that cannot be read, for a cell that is no finite number, for a row without
    a series or a time, and for no values at all. It names the column and the row, from 1, without the header.
    Raises `UnknownColumnError` for a column that is not there.
    """
    aside = {places.series: "--series", places.time: "--time"}
    if columns is not None and (both := [name for name in columns if name in aside]):
        raise ConfigurationError(
            f"`--columns` names `{both[0]}`, and so does `{aside[both[0]]}`; name columns of values alone"
        )
    if reading.missing == "drop":
        raise ConfigurationError(
            "`--missing drop` is for tables of rows; in series a missing cell is left out by itself"
        )
    with unchanged(file.path):
        found = read_columns(file, columns, reading, types, aside)
        provenance = file_provenance(file)
    with reading_errors(file):
        check_cells(found.cells, may_be_missing=True, may_leave_out=for_fit)
        rows = _Rows.of(found.cells, found.aside[places.series], found.aside[places.time], places)
        rows, notes = _tidied(rows, places, repeated)
        names = list(found.cells)
        kept = list(range(len(names)))
        if for_fit:
            kept, more = _varying(rows, names)
            notes += more
        return SeriesDataset(
            table_stem(file),
            tuple(Column(names[i], type=found.cells[names[i]].type) for i in kept),
            rows.ids,
            rows.starts,
            rows.times,
            np.ascontiguousarray(rows.values[:, kept]),
            provenance,
            places.series,
            places.time,
            found.aside[places.time].type,
            notes=(*found.notes, *notes),
        )


def read_points(
    file: TableFile,
    places: SeriesColumns,
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
) -> tuple[tuple[str, ...], Floats]:
    """The series and the time of each row of a table, for which values are asked: `(N,)` each.

    Raises as `read_series` does.
    """
    found = read_columns(file, [places.time], reading, types, {places.series: "--series"})
    with reading_errors(file):
        time = found.cells[places.time]
        check_cells({places.time: time}, may_be_missing=False, may_leave_out=False)
        ids, numbers = _ids(found.aside[places.series], places.series)
    return tuple(ids[number] for number in numbers), time.numbers


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a long table: `series: (N,)` are indices into `ids`, in the order of their first rows."""

    ids: tuple[str, ...]
    series: NDArray[np.int64]
    times: Floats
    values: Floats

    @classmethod
    def of(cls, cells: Mapping[str, Cells], series: Cells, time: Cells, places: SeriesColumns) -> "_Rows":
        check_cells({places.time: time}, may_be_missing=False, may_leave_out=False)
        ids, numbers = _ids(series, places.series)
        values = np.column_stack([each.numbers for each in cells.values()])
        return cls(ids, numbers, time.numbers, values)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each series starts, once the rows are sorted: `(n + 1,)`."""
        return np.searchsorted(self.series, np.arange(len(self.ids) + 1))

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "_Rows":
        """These rows alone; the ids stay."""
        return _Rows(self.ids, self.series[rows], self.times[rows], self.values[rows])


def _ids(series: Cells, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the series of a column, in the order of their first rows, and that of each row."""
    if series.is_missing.any():
        row = int(series.is_missing.argmax()) + 1
        raise DataError(
            f"column `{name}`, row {row}: the cell is missing, so the row belongs to no series; fill it in, "
            "or take the row out"
        )
    numbers = group_numbers(series)
    _, first = np.unique(numbers, return_index=True)
    plain = series.type.text(series.numbers[first])
    foreign = series.is_foreign
    ids = tuple(
        series.text(int(row)) if foreign[row] else _as_text(each)
        for row, each in zip(first, plain, strict=True)
    )
    return ids, numbers


def _as_text(value: object) -> str:
    """A number as a name: a whole one without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tidied(rows: _Rows, places: SeriesColumns, repeated: Repeated) -> tuple[_Rows, list[str]]:
    """The rows sorted by series and time, one for each time, without empty ones, and what was done."""
    notes = []
    order = np.lexsort((rows.times, rows.series))
    by_series = np.argsort(rows.series, kind="stable")
    if not np.array_equal(rows.times[order], rows.times[by_series]):
        backward = (np.diff(rows.times[by_series]) < 0) & (np.diff(rows.series[by_series]) == 0)
        late = np.unique(rows.series[by_series][1:][backward])
        notes.append(
            f"the times of {len(late):,} of {len(rows.ids):,} series are not in order, and are sorted by "
            f"`{places.time}`: {listed([f'`{shown(rows.ids[i])}`' for i in late[:4]])}"
        )
    numbers = order + 1  # of the rows, from 1
    rows = rows.at(order)
    filled = np.asarray(~np.isnan(rows.values).all(axis=1))
    if not filled.any():
        raise DataError("no row has a value; every cell of the columns of values is missing")
    if not filled.all():
        notes.append(f"{int((~filled).sum()):,} of {len(filled):,} rows have no value, and are left out")
        rows, numbers = rows.at(filled), numbers[filled]
    same = (np.diff(rows.times) == 0) & (np.diff(rows.series) == 0)
    if same.any():
        first = int(same.argmax())
        where = (
            f"rows {numbers[first]} and {numbers[first + 1]} are both of series "
            f"`{shown(rows.ids[rows.series[first]])}` at `{places.time}` = {rows.times[first]:g}"
        )
        if repeated == "refuse":
            raise DataError(
                f"{where}, as are {int(same.sum()):,} in all; give every observation a time of its own, or "
                "say `--repeated average`"
            )
        notes.append(
            f"{int(same.sum()):,} rows repeat the series and the time of another, and are averaged with it, "
            f"cell by cell: {where}"
        )
        rows = _averaged(rows, np.concatenate([[0], np.cumsum(~same)]))
    gaps = np.isnan(rows.values)
    if gaps.any():
        notes.append(
            f"{int(gaps.sum()):,} of {gaps.size:,} cells are missing; their observations have the others"
        )
    present = np.unique(rows.series)
    if len(present) < len(rows.ids):
        gone = [rows.ids[i] for i in np.setdiff1d(np.arange(len(rows.ids)), present)]
        notes.append(
            f"{len(gone):,} series have no value at all, and are left out: "
            f"{listed([f'`{shown(each)}`' for each in gone[:4]])}"
        )
        ids = tuple(rows.ids[i] for i in present)
        rows = _Rows(ids, np.searchsorted(present, rows.series), rows.times, rows.values)
    return rows, notes


def _averaged(rows: _Rows, number: NDArray[np.int64]) -> _Rows:
    """One row for each `number: (N,)`, whose cells are the means of those that are not missing."""
    count = int(number[-1]) + 1
    held = ~np.isnan(rows.values)
    sums, counts = np.zeros((count, rows.values.shape[1])), np.zeros((count, rows.values.shape[1]))
    np.add.at(sums, number, np.where(held, rows.values, 0.0))
    np.add.at(counts, number, held)
    _, first = np.unique(number, return_index=True)
    with np.errstate(invalid="ignore"):
        means = np.where(counts > 0, sums / counts, np.nan)
    # A row that repeats no other keeps its values bit for bit.
    single = np.bincount(number) == 1
    means[single] = rows.values[first[single]]
    return _Rows(rows.ids, rows.series[first], rows.times[first], means)


def _varying(rows: _Rows, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The indices of the columns that can be learnt, and notes on the others.

    A column needs two different values. One that has a single value in each series is of the series, not of
    its observations, which a note says.
    """
    kept, notes, steady = [], [], []
    for number, (name, values) in enumerate(zip(names, rows.values.T, strict=True)):
        held = ~np.isnan(values)
        known = values[held]
        if len(known) == 0 or np.ptp(known) == 0:
            what = "is empty" if len(known) == 0 else f"is constant ({known[0]:g})"
            notes.append(f"column `{name}` {what}, and is left out")
            continue
        kept.append(number)
        series = rows.series[held]
        changes = (np.diff(known) != 0) & (np.diff(series) == 0)
        if not changes.any() and len(np.unique(series)) < len(series):
            steady.append(name)
    if not kept:
        raise DataError("no column varies; give a table with values that change")
    if steady:
        hint = leave_out_hint([names[i] for i in kept], steady)
        are = "have" if len(steady) > 1 else "has"
        notes.append(
            f"{listed([f'`{name}`' for name in steady])} {are} one value in each series, and would be "
            f"learnt as if measured each time{f'; {hint}' if hint else ''}"
        )
    return kept, notes
