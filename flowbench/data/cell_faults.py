"""What is wrong with cells, in words that name the column, the row and a remedy."""

import csv
import io
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowbench.data.cells import Cells
from flowbench.data.dialect import COMMENTS
from flowbench.data.header import is_date, is_plain_number
from flowbench.errors import DataError

# How many names a message lists before it stops.
_MOST_NAMES_LISTED = 10
_LONGEST_CELL_SHOWN = 40


def check_cells(
    cells: Mapping[str, Cells], *, may_be_missing: bool, may_leave_out: bool, first: int | None = None
) -> None:
    """Raise `DataError`, which names the first of them, if cells of these columns are no finite numbers.

    Missing cells may stand if they `may_be_missing`. `may_leave_out` says whether the error may advise to
    leave columns out. The cells of a part of a table begin with row number `first`, from 0; the error then
    does not count them.
    """
    faults = {
        name: replace(fault, row=fault.row + (first or 0) * (fault.row > 0))
        for name, each in cells.items()
        if (fault := _fault(each, may_be_missing, may_leave_out)) is not None
    }
    if faults:
        n = len(next(iter(cells.values())).numbers) if first is None else None
        hint = leave_out_hint(list(cells), faults) if may_leave_out else ""
        raise DataError("; ".join([*_describe_faults(faults, n), *([f"or {hint}"] if hint else [])]))


def leave_out_hint(names: Sequence[str], unfit: Collection[str]) -> str:
    """Advice on how to leave the `unfit` columns out; empty if no column would be left."""
    fit = [name for name in names if name not in unfit]
    if not fit:
        return ""
    if len(fit) > _MOST_NAMES_LISTED:
        return "leave out what cannot be used by naming the other columns with `--columns`"
    return f"leave out what cannot be used with `--columns {shlex.quote(join_names(fit))}`"


def join_names(names: Sequence[str]) -> str:
    """Names joined by commas, quoted if necessary, in the form that `--columns` takes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a column: with the cell in `row`, counted from 1, or with the whole column (0).

    `count` is the number of such cells, and `remedy` the advice; it is the same for all columns of one
    `kind`.
    """

    kind: str
    row: int
    complaint: str
    count: int = 1
    remedy: str = ""


def _fault(cells: Cells, may_be_missing: bool, may_leave_out: bool) -> _Fault | None:
    if cells.fault is not None:
        return _Fault("column", 0, cells.fault)
    unfit = ~np.isfinite(cells.numbers)
    if not unfit.any():
        return None
    missing, foreign, infinite = cells.is_missing, cells.is_foreign, np.isinf(cells.numbers)
    if may_be_missing:
        unfit &= ~missing
        if not unfit.any():
            return None
    row = int(np.argmax(unfit))
    if missing[row]:
        remedy = "fill in missing cells"
        if may_leave_out:
            remedy += (
                ", leave their rows out with `--missing drop`, or learn from the other cells with "
                "`--missing model`"
            )
        return _Fault("missing", cells.row(row), "the cell is missing", int(missing.sum()), remedy)
    if infinite[row]:
        return _Fault(
            "infinite",
            cells.row(row),
            "the value is infinite",
            int(infinite.sum()),
            "replace infinite values",
        )
    text = shown(cells.text(row))
    remedy = "turn text into numbers"
    if not np.isfinite(cells.numbers).any() and may_leave_out:
        remedy += ", or name the column with `--categories`"
    if cells.is_typed and is_plain_number(text):
        return _Fault("text", cells.row(row), f"`{text}` is text, not a number", int(foreign.sum()), remedy)
    if text.startswith(COMMENTS):
        remedy = "it looks like a comment: take the line out"
    elif is_date(text):
        remedy = "say how dates are written with `--date-format`, such as %d.%m.%y"
    elif foreign.sum() < len(foreign) / 2 and cells.text(row).strip():
        remedy += f", or say `--missing-value {shlex.quote(text)}` if that stands for nothing"
    return _Fault("text", cells.row(row), f"`{text}` is not a number", int(foreign.sum()), remedy)


def shown(cell: object) -> str:
    """The text of a cell on one line, shortened if it is long."""
    text = " ".join(str(cell).split())
    return text if len(text) <= _LONGEST_CELL_SHOWN else f"{text[:_LONGEST_CELL_SHOWN]}..."


def _describe_faults(faults: Mapping[str, _Fault], n: int | None) -> list[str]:
    (name, fault), *others = faults.items()
    where = f", row {fault.row}" if fault.row else ""
    more = f" ({fault.count:,} of {n:,} cells)" if n is not None and fault.count > 1 else ""
    parts = [f"column `{name}`{where}: {fault.complaint}{more}"]
    if others:
        each = [f"`{other}`" + (f" (row {fault.row})" if fault.row else "") for other, fault in others]
        parts.append(f"also unfit: {listed(each)}")
    remedies = {each.kind: each.remedy for each in reversed(list(faults.values())) if each.remedy}
    order = ("missing", "infinite", "text")
    return [*parts, *(remedies[kind] for kind in order if kind in remedies)]


def listed(names: Sequence[str]) -> str:
    """The names with commas between them, the first few where there are many."""
    shown = list(names[:_MOST_NAMES_LISTED])
    return ", ".join(shown + ["..."] * (len(names) > len(shown)))
