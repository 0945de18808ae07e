"""How a table is read for a run that is fitted already."""

from collections.abc import Mapping
from typing import Any

from flowbench.data.column_type import ColumnType
from flowbench.data.read_options import ReadOptions
from flowbench.workflows.config import RunConfig


def reading_of(config: RunConfig, given: Mapping[str, Any], types: Mapping[str, ColumnType]) -> ReadOptions:
    """How such a table is read: as that of the run, unless something else is `given`."""
    told = {name: value for name, value in config.data if name in ReadOptions.model_fields}
    formats = tuple(dict.fromkeys(each.format for each in types.values() if each.format))
    # All rows are scored, whatever part of a split they were in, and columns are of types that are known.
    told |= {"missing": None, "group": None, "keep": None}
    told["date_format"] = told["date_format"] or formats or None
    return ReadOptions(**{**told, **given})
