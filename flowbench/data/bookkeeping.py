"""Columns that number or name the rows of a table and hold no data about them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cells import Cells

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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
#: Names that are an identifier's even if its values repeat: those of groups of rows.
_GROUP = re.compile(r"(^|[^a-z])(id|ids|uuid|guid)$")
#: The name that pandas gives a column without one.
_UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?")
#: Columns that flowbench writes beside a table's own. `_OWN_TOO` are left out only where both of `_OWN` are
#: there: by themselves they could be the user's.
_OWN = ("log_prob", "log_prob_error")
_OWN_TOO = ("flagged", "row")


@dataclass(frozen=True)
class Bookkeeping:
    """What speaks for a column being no data: `why`, in words that follow its name.

    A fit leaves a column out where this `is_certain`, and warns where it is not.
    """

    why: str
    is_certain: bool


def find_bookkeeping(
    names: Sequence[str], columns: Mapping[str, Cells], unnamed: Sequence[str], keep: Collection[str]
) -> dict[str, Bookkeeping]:
    """Columns that may be no data, by name.

    `names` are those of the file. `columns` holds the cells of the columns that are numbers or could be;
    those in `unnamed` have no name in the file. Columns in `keep` are data whatever they look like.
    """
    found: dict[str, Bookkeeping] = {}
    if set(_OWN) <= set(names):
        why = "flowbench wrote it beside the table's own columns"
        own = [name for name in (*_OWN, *_OWN_TOO) if name in names and name not in keep]
        found = {name: Bookkeeping(why, True) for name in own}
    for name, cells in columns.items():
        if name in found or name in keep:
            continue
        numbers = cells.numbers
        if cells.is_missing.all():
            if name in unnamed or re.fullmatch(r"Unnamed: \d+", name):
                found[name] = Bookkeeping("it has neither a name nor a value", True)
            continue
        counts = _counts(numbers, cells.rows)
        if name in unnamed or _UNNAMED.fullmatch(name):
            if counts or _are_distinct(cells):
                why = "it has no name and values that all differ, as an index that pandas wrote"
                found[name] = Bookkeeping(why, True)
        elif counts and name.strip().lower() in _INDEX_NAMES:
            why = f"it numbers the rows, from {numbers[0]:.0f} to {numbers[-1]:.0f}"
            found[name] = Bookkeeping(why, True)
        elif counts:
            why = f"it counts the rows, from {numbers[0]:.0f} to {numbers[-1]:.0f}, as an index does"
            found[name] = Bookkeeping(why, False)
        elif _rises_evenly(numbers, cells.rows):
            why = "it rises by the same step from row to row, as an index or a time does"
            found[name] = Bookkeeping(why, False)
        elif _IDENTIFIER.search(name.strip().lower()) and _are_whole(numbers) and _are_distinct(cells):
            found[name] = Bookkeeping("it has whole numbers that all differ, as identifiers do", False)
    return found


def why_identifier(name: str, numbers: Floats) -> str | None:
    """Why a column of finite `numbers: (n,)` holds identifiers, in words; None if it does not.

    The order of the rows does not matter, unlike in `find_bookkeeping`, whose indices this finds too.
    """
    n, lower = len(numbers), name.strip().lower()
    if n < _FEWEST or not _are_whole(numbers):
        return None
    distinct = np.unique(numbers)
    low, high = distinct[0], distinct[-1]
    if len(distinct) < n:
        if has_name_of_groups(name):
            return f"its name is an identifier's, and its whole numbers repeat, {len(distinct):,} of them"
        return None
    if high / 2 - low / 2 == (n - 1) / 2:  # the difference itself may overflow
        return f"each whole number from {low:.0f} to {high:.0f} once, as in an index"
    if lower in _INDEX_NAMES or _IDENTIFIER.search(lower) or _UNNAMED.fullmatch(name):
        return "whole numbers that all differ, under the name of an identifier"
    return None


def has_name_of_groups(name: str) -> bool:
    """Whether a column's name is that of an identifier, even of one that repeats, as of groups of rows."""
    return bool(_GROUP.search(name.strip().lower()))


def _counts(numbers: Floats, rows: Integers | None) -> bool:
    """Whether `numbers: (n,)` rise by one from row to row, of all rows or of those with these numbers."""
    with np.errstate(over="ignore"):
        return len(numbers) >= _FEWEST and all(
            np.array_equal(np.diff(numbers[:k]), _apart(rows, k)) for k in (3, len(numbers))
        )


def _rises_evenly(numbers: Floats, rows: Integers | None) -> bool:
    if len(numbers) < _FEWEST:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        step = (numbers[1] - numbers[0]) / _apart(rows, 2)[0]
        if not np.isfinite(step) or step == 0:
            return False
        return all(
            np.all(np.abs(np.diff(numbers[:k]) - step * _apart(rows, k)) <= 1e-6 * abs(step))
            for k in (3, len(numbers))
        )


def _apart(rows: Integers | None, k: int) -> Floats:
    """How many rows each of the first `k` is behind the one before: `(k - 1,)`."""
    return np.ones(k - 1) if rows is None else np.diff(rows[:k]).astype(np.float64)


def _are_distinct(cells: Cells) -> bool:
    if cells.is_foreign.any():
        return len({cells.text(row) for row in range(len(cells.numbers))}) == len(cells.numbers)
    return _are_whole(cells.numbers) and len(np.unique(cells.numbers)) == len(cells.numbers)


def _are_whole(numbers: Floats) -> bool:
    return bool(np.all(numbers == np.rint(numbers)))
