"""A table of finite numbers, read from a file and checked cell by cell."""

import json
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowbench.data.formats import file_errors, read_raw_table
from flowbench.data.raw_table import Array, is_number
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError, unknown_name

# How many names a message lists before it stops.
_MOST_NAMES_LISTED = 10
_LONGEST_CELL_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Table:
    """Column names and finite rows: `names` has d entries, `rows` is (n, d) float64 with n >= 1."""

    names: tuple[str, ...]
    rows: NDArray[np.float64]


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, *, may_leave_out: bool = True
) -> Table:
    """Read a CSV (also .gz), Parquet, NPY, NPZ or HDF5 file; with `columns`, only these, in this order.

    `may_leave_out` lets errors advise to leave columns out, as a model that needs them all does not.
    Raises `DataError`, which names the file, and the column and row (counted from 1, without the header)
    where there is one, for a file that cannot be read, names among them that repeat or are empty, no rows,
    and cells that are missing, infinite or no numbers; `UnknownColumnError` for a column that is not there;
    `ConfigurationError` for a selection that is empty or repeats a column.
    """
    path = Path(path)
    cells = read_cells(path, columns)
    with file_errors(path):
        return Table(tuple(cells), _checked_rows(cells, may_leave_out))


def read_cells(path: Path, columns: Sequence[str] | None = None) -> dict[str, Array]:
    """The columns of a table as its file has them, whatever their cells are: numbers (n,) or objects.

    Missing cells are NaN among numbers and None among objects. Raises as `read_table` does, but for cells.
    """
    with file_errors(path):
        raw = read_raw_table(path)
        _check_names(raw.names, columns)
        wanted = select_columns(raw.names, columns, str(path))
        if raw.n_rows == 0 or not raw.names:
            raise DataError("it holds no rows")
        return {raw.names[index]: raw.column(index) for index in wanted}


def select_columns(names: Sequence[str], wanted: Sequence[str] | None, where: str) -> list[int]:
    """Indices of the `wanted` columns among `names`; all of them if `wanted` is None.

    Raises `UnknownColumnError` for a name that is not there, `ConfigurationError` for an empty selection or
    one that repeats a name; `where` says whose columns they are.
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


def leave_out_hint(names: Sequence[str], unfit: Collection[str]) -> str:
    """How to leave the `unfit` columns out; empty if no column would be left."""
    fit = [name for name in names if name not in unfit]
    if not fit:
        return ""
    if len(fit) > _MOST_NAMES_LISTED:
        return "leave out what cannot be used by naming the other columns with `--columns`"
    if any("," in name for name in fit):
        return f"leave out what cannot be used with `--set {shlex.quote(f'data.columns={json.dumps(fit)}')}`"
    return f"leave out what cannot be used with `--columns {shlex.quote(','.join(fit))}`"


@dataclass(frozen=True)
class _Fault:
    """The first cell of a column that is no finite number: its row, counted from 1, and what is wrong."""

    row: int
    complaint: str


_MISSING = "the cell is missing"
_INFINITE = "the value is infinite"


def _check_names(names: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Every column that is used needs a name of its own, whatever the others are called."""
    used = names if wanted is None else [name for name in names if name in wanted]
    if repeated := _repeated(used):
        raise DataError(f"two columns are called `{repeated}`; give every column a name of its own")
    if "" in used:
        raise DataError(
            f"column {names.index('') + 1} has no name; give it one, or name the others with `--columns`"
        )


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _checked_rows(columns: Mapping[str, Array], may_leave_out: bool) -> NDArray[np.float64]:
    checked = {name: _check_cells(cells) for name, cells in columns.items()}
    faults = {name: cells for name, cells in checked.items() if isinstance(cells, _Fault)}
    if faults:
        hint = leave_out_hint(list(columns), faults) if may_leave_out else ""
        raise DataError("; ".join([*_describe_faults(faults), *([f"or {hint}"] if hint else [])]))
    return np.column_stack([cells for cells in checked.values() if not isinstance(cells, _Fault)])


def _check_cells(cells: Array) -> NDArray[np.float64] | _Fault:
    if cells.dtype.kind not in "iuf":
        return _first_non_number(cells)
    numbers = cells.astype(np.float64)
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers
    row = int(np.argmin(finite))
    return _Fault(row + 1, _MISSING if np.isnan(numbers[row]) else _INFINITE)


def _first_non_number(cells: Array) -> _Fault:
    for row, cell in enumerate(cells.tolist(), start=1):
        if cell is None:
            return _Fault(row, _MISSING)
        if not (isinstance(cell, str) and is_number(cell)):
            return _Fault(row, f"`{_shown(cell)}` is not a number")
    # A column of text whose every cell looks like a number was still stored as text.
    return _Fault(1, f"`{_shown(cells[0])}` is text, not a number")


def _shown(cell: object) -> str:
    """A cell's text on one line, cut where it is long."""
    text = " ".join(str(cell).split())
    return text if len(text) <= _LONGEST_CELL_SHOWN else f"{text[:_LONGEST_CELL_SHOWN]}..."


def _describe_faults(faults: Mapping[str, _Fault]) -> list[str]:
    (name, fault), *others = faults.items()
    parts = [f"column `{name}`, row {fault.row}: {fault.complaint}"]
    if others:
        parts.append(f"also unfit: {_listed([f'`{other}` (row {fault.row})' for other, fault in others])}")
    complaints = {fault.complaint for fault in faults.values()}
    if _MISSING in complaints:
        parts.append("fill in missing cells or drop their rows")
    if _INFINITE in complaints:
        parts.append("replace infinite values")
    if complaints - {_MISSING, _INFINITE}:
        parts.append("turn text into numbers")
    return parts


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_NAMES_LISTED])
    return ", ".join(shown + ["..."] * (len(names) > len(shown)))
