"""Columns that number or name the rows of a table and hold no data about them."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cells import Cells

Floats = NDArray[np.float64]

#: A column of fewer rows may count up by chance.
_FEWEST = 10
#: Names of columns that number the rows.
_INDEX_NAMES = frozenset(
    {"index", "idx", "id", "_id", "row", "rowid", "row_id", "row.id", "row_no", "row_number", "rownum"}
    | {
        "row.names",
        "rownames",
        "row_names",
        "rownumber",
        "rn",
        "no",
        "no.",
        "nr",
        "nr.",
        "num",
        "number",
        "#",
    }
    | {"obs", "obs.", "observation", "record", "record_id", "sample_id", "level_0"}
)
_IDENTIFIER = re.compile(r"(^|[^a-z])(id|ids|uuid|guid|key)$")
#: Columns that flowbench writes beside a table's own. `_OWN_TOO` are left out only where both of `_OWN` are
#: there: by themselves they could be the user's.
_OWN = ("log_prob", "log_prob_error")
_OWN_TOO = ("flagged", "row")


def find_bookkeeping(
    names: Sequence[str], columns: Mapping[str, Cells], unnamed: Sequence[str], keep: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Columns to leave out, each with the reason, and warnings about others, by column name.

    `names` are those of the file. `columns` holds the cells of the columns that are numbers or could be;
    those in `unnamed` have no name in the file. Columns in `keep` are neither left out nor warned about.
    """
    out: dict[str, str] = {}
    warnings: dict[str, str] = {}
    if set(_OWN) <= set(names):
        for name in (*_OWN, *_OWN_TOO):
            if name in names:
                out[name] = "flowbench wrote it beside the table's own columns"
    for name, cells in columns.items():
        if name in out or name in keep:
            continue
        numbers = cells.numbers
        if cells.is_missing.all():
            if name in unnamed or re.fullmatch(r"Unnamed: \d+", name):
                out[name] = "it has neither a name nor a value"
            continue
        counts = _counts(numbers)
        if name in unnamed or re.fullmatch(r"Unnamed: \d+(_level_\d+)?", name):
            if counts or _are_distinct(cells):
                out[name] = "it has no name and values that all differ, as an index that pandas wrote"
        elif counts and name.strip().lower() in _INDEX_NAMES:
            out[name] = f"it numbers the rows, from {numbers[0]:.0f} to {numbers[-1]:.0f}"
        elif counts:
            warnings[name] = (
                f"column `{name}` counts the rows, from {numbers[0]:.0f} to {numbers[-1]:.0f}, as an index "
                "does, and is learnt as data"
            )
        elif _rises_evenly(numbers):
            warnings[name] = (
                f"column `{name}` rises by the same step from row to row, as an index or a time does, and is "
                "learnt as data"
            )
        elif _IDENTIFIER.search(name.strip().lower()) and _are_whole(numbers) and _are_distinct(cells):
            warnings[name] = (
                f"column `{name}` has whole numbers that all differ, as identifiers do, and is learnt as data"
            )
    return out, warnings


def _counts(numbers: Floats) -> bool:
    return (
        len(numbers) >= _FEWEST
        and bool(np.all(numbers[1:3] - numbers[:2] == 1))
        and bool(np.all(np.diff(numbers) == 1))
    )


def _rises_evenly(numbers: Floats) -> bool:
    if len(numbers) < _FEWEST:
        return False
    step = numbers[1] - numbers[0]
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(step) or step == 0 or abs(numbers[2] - numbers[1] - step) > 1e-6 * abs(step):
            return False
        return bool(np.all(np.abs(np.diff(numbers) - step) <= 1e-6 * abs(step)))


def _are_distinct(cells: Cells) -> bool:
    if cells.is_foreign.any():
        return len({cells.text(row) for row in range(len(cells.numbers))}) == len(cells.numbers)
    return _are_whole(cells.numbers) and len(np.unique(cells.numbers)) == len(cells.numbers)


def _are_whole(numbers: Floats) -> bool:
    return bool(np.all(numbers == np.rint(numbers)))
