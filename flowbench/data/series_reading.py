"""Reads irregular time series from a long table: one row for each observation."""

from collections.abc import Collection, Mapping, Sequence
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

    An id is what the file has, without blanks around it. Rows are sorted by time. Rows of one series at one
    time are averaged, cell by cell, or refused. Rows without any value are left out. The notes say so.
    `types` are the known types of columns. `for_fit` also leaves out columns that have one value throughout.

    Raises `DataError` for a file that cannot be read, for a cell that is no finite number, for a row without
    a series or a time, and for no values at all. It names the column and the row, from 1, without the header.
    Raises `UnknownColumnError` for a column that is not there.
    """
    aside = {places.series: "--series", places.time: "--time"}
    if columns is not None and (both := [name for name in columns if name in aside]):
        raise ConfigurationError(
            f"`--columns` names `{both[0]}`, and so does `{aside[both[0]]}`; name columns of values alone"
        )
    if reading.missing in ("drop", "model"):
        raise ConfigurationError(
            f"`--missing {reading.missing}` is for tables of rows; in series a missing cell is left out by "
            "itself"
        )
    if reading.categories:
        raise ConfigurationError("`--categories` is for tables of rows; a series has numbers alone")
    if reading.weights:
        raise ConfigurationError(
            f"`--weights {reading.weights}` is for tables of rows; every series counts alike"
        )
    for option, column in {"--group": reading.group, "--split-column": reading.split_column}.items():
        if column:
            raise ConfigurationError(
                f"`{option} {column}` is for tables of rows; a series always stays in one part of the split"
            )
    with unchanged(file.path):
        found = read_columns(file, columns, reading, types, aside)
        provenance = file_provenance(file)
    time, names = found.aside[places.time], list(found.cells)
    with reading_errors(file):
        if not names:
            raise DataError(f"it has no column of values beside `{places.series}` and `{places.time}`")
        check_cells(found.cells, may_be_missing=True, may_leave_out=for_fit)
        check_cells({places.time: time}, may_be_missing=False, may_leave_out=False)
        ids, series, notes = _identified(found.aside[places.series], places.series)
        notes += _notes_on(time, places.time)
        values = np.column_stack([each.numbers for each in found.cells.values()])
        rows, more = _tidied(_Rows(ids, series, time.numbers, values), places, time.type, repeated)
        notes += more
        if for_fit:
            kept, more = _varying(rows, names)
            notes += more
            if len(kept) < len(names):
                names = [names[i] for i in kept]
                rows, more = _with_values(rows.of(kept), "with values in left-out columns alone")
                notes += more
        if gaps := int(np.isnan(rows.values).sum()):
            notes.append(
                f"cells are missing, {gaps:,} of {rows.values.size:,}; their observations keep the others"
            )
        rows, more = _named(rows)
        notes += more
        return SeriesDataset(
            table_stem(file),
            tuple(Column(name, type=found.cells[name].type) for name in names),
            rows.ids,
            rows.starts,
            rows.times,
            rows.values,
            provenance,
            places.series,
            places.time,
            time.type,
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
        ids, numbers, _ = _identified(found.aside[places.series], places.series)
    return tuple(ids[number] for number in numbers), time.numbers


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a long table: `series: (N,)` are indices into `ids`, in the order of their first rows."""

    ids: tuple[str, ...]
    series: NDArray[np.int64]
    times: Floats
    values: Floats

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each series starts, once the rows are sorted: `(n + 1,)`."""
        return np.searchsorted(self.series, np.arange(len(self.ids) + 1))

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "_Rows":
        """These rows alone; the ids stay."""
        return _Rows(self.ids, self.series[rows], self.times[rows], self.values[rows])

    def of(self, columns: Sequence[int]) -> "_Rows":
        """The same rows with these columns of values alone."""
        return _Rows(self.ids, self.series, self.times, np.ascontiguousarray(self.values[:, columns]))


def _identified(cells: Cells, name: str) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    """The ids of all series, the index into them of each row, `(N,)`, and notes.

    An id is the text of its cells, without blanks around it, or the number where the file has numbers.
    """
    if cells.is_missing.any():
        row = int(cells.is_missing.argmax()) + 1
        raise DataError(
            f"column `{name}`, row {row}: the cell is missing, so the row belongs to no series; fill it in, "
            "or take the row out"
        )
    numeric = np.isfinite(cells.numbers)
    # Cells that were read as text have it, whatever number it means; others do not.
    if not numeric.any() or cells.text(int(numeric.argmax())) != "nan":
        texts = [cells.text(row) for row in range(len(numeric))]
        return _identified_by_text(texts, cells.numbers, name)
    if cells.fault is not None:
        raise DataError(
            f"column `{name}`: {cells.fault.partition(';')[0]}; put a letter before every id, so "
            "that ids are read as text"
        )
    numbers = group_numbers(cells)
    _, first = np.unique(numbers, return_index=True)
    ids = tuple(map(_as_text, cells.type.text(cells.numbers[first])))
    return ids, numbers, [] if cells.type.unit else _notes_on(cells, name)


def _identified_by_text(
    texts: Sequence[str], numbers: Floats, name: str
) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    """The result of `_identified` for cells with these `texts`, which mean `numbers: (N,)`, NaN for none."""
    plain = [text.strip() for text in texts]
    places: dict[str, int] = {}
    series = np.array([places.setdefault(text, len(places)) for text in plain], dtype=np.int64)
    spelt, same, notes = dict[str, str](), dict[float, str](), []
    padded = {own: "" for own, text in zip(plain, texts, strict=True) if spelt.setdefault(own, text) != text}
    if padded:
        notes.append(
            f"ids in `{name}` that differ in the blanks around them alone are one series: {_some(padded)}"
        )
    for own, number in zip(plain, numbers.tolist(), strict=True):
        if np.isfinite(number) and (other := same.setdefault(number, own)) != own:
            notes.append(
                f"ids `{shown(other)}` and `{shown(own)}` in `{name}` are one number, and two series; write "
                "them alike if they are one series"
            )
            break
    return tuple(places), series, notes


def _as_text(value: object) -> str:
    """A number as a name: a whole one without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _notes_on(cells: Cells, name: str) -> list[str]:
    """What was guessed in reading the cells of the column `name`."""
    return [f"{what}, such as `{shown(example)}`: `{name}`" for what, example in cells.notes]


def _some(names: Collection[str]) -> str:
    """The first few names, with dots if there are more."""
    first = [f"`{shown(name)}`" for name in list(names)[:4]]
    return ", ".join([*first, *(["..."] if len(names) > 4 else [])])


def _tidied(
    rows: _Rows, places: SeriesColumns, time_type: ColumnType, repeated: Repeated
) -> tuple[_Rows, list[str]]:
    """The rows sorted by series and time, one for each time, without empty ones, and what was done."""
    notes = []
    order = np.lexsort((rows.times, rows.series))
    by_series = np.argsort(rows.series, kind="stable")
    if not np.array_equal(rows.times[order], rows.times[by_series]):
        backward = (np.diff(rows.times[by_series]) < 0) & (np.diff(rows.series[by_series]) == 0)
        late = [rows.ids[i] for i in np.unique(rows.series[by_series][1:][backward])]
        notes.append(
            f"the times of {len(late):,} of {len(rows.ids):,} series are not in order, and are sorted by "
            f"`{places.time}`: {_some(late)}"
        )
        if time_type.unit == "seconds since midnight":
            notes[-1] += "; a time of day begins anew at midnight, so add the date if series run past it"
    total, rows, numbers = len(order), rows.at(order), order + 1  # numbers of the rows, from 1
    numbers = numbers[~np.isnan(rows.values).all(axis=1)]
    if not len(numbers):
        raise DataError("no row has a value; every cell of the columns of values is missing")
    rows, more = _with_values(rows, "without a value")
    notes += more
    same = (np.diff(rows.times) == 0) & (np.diff(rows.series) == 0)
    if same.any():
        first, count = int(same.argmax()), int(same.sum())
        where = (
            f"rows {numbers[first]} and {numbers[first + 1]} are both of series "
            f"`{shown(rows.ids[rows.series[first]])}` at `{places.time}` = "
            f"{time_type.text(rows.times[[first]])[0]}"
        )
        if repeated == "refuse":
            others = f", and {count:,} of {total:,} rows repeat the series and time of another"
            raise DataError(
                f"{where}{others if count > 1 else ''}; give every observation a time of its own, or say "
                "`--repeated average`"
            )
        notes.append(
            "rows of one series at one time are averaged, cell by cell, so that "
            f"{len(same) + 1:,} become {len(same) + 1 - count:,}: {where}"
        )
        rows = _averaged(rows, np.concatenate([[0], np.cumsum(~same)]))
    return rows, notes


def _with_values(rows: _Rows, which: str) -> tuple[_Rows, list[str]]:
    """The rows that have a value, and a note on `which` rows are left out."""
    empty = np.asarray(np.isnan(rows.values).all(axis=1))
    if not empty.any():
        return rows, []
    return rows.at(~empty), [f"rows {which} are left out: {int(empty.sum()):,} of {len(empty):,}"]


def _named(rows: _Rows) -> tuple[_Rows, list[str]]:
    """The rows with the ids that occur alone, and a note on the others."""
    present = np.unique(rows.series)
    if len(present) == len(rows.ids):
        return rows, []
    gone = [rows.ids[i] for i in np.setdiff1d(np.arange(len(rows.ids)), present)]
    ids = tuple(rows.ids[i] for i in present)
    note = f"series without a value are left out, {len(gone):,} of {len(rows.ids):,}: {_some(gone)}"
    return _Rows(ids, np.searchsorted(present, rows.series), rows.times, rows.values), [note]


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
