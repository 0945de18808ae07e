"""How a table is read for a run that is fitted already."""

from collections.abc import Mapping
from typing import Any

from flowbench.data.column_type import ColumnType
from flowbench.data.csv_table import is_own_text
from flowbench.data.files import TableFile
from flowbench.data.read_options import LAYOUT, ReadOptions


def reading_of(
    data: ReadOptions,
    given: Mapping[str, Any],
    types: Mapping[str, ColumnType],
    file: TableFile | None = None,
) -> ReadOptions:
    """How such a table is read: as that of the run, which `data` tells, unless something else is `given`.

    A `file` of text that flowbench wrote has a layout of its own.
    """
    told = {name: value for name, value in data if name in ReadOptions.model_fields}
    formats = tuple(dict.fromkeys(each.format for each in types.values() if each.format))
    # All rows are scored, whatever part of a split they were in and whatever they count, and columns are of
    # types that are known.
    told |= dict.fromkeys(("group", "split_column", "weights", "keep", "categories"))
    told |= dict.fromkeys(("numeric", "leave_out", "levels"))
    told["missing"] = "model" if data.missing == "model" else None
    told["date_format"] = told["date_format"] or formats or None
    if file is not None and is_own_text(file):
        told |= dict.fromkeys(LAYOUT)
    return ReadOptions(**{**told, **given})
