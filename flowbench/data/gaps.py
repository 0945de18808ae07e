"""Missing cells of a table that are to be modelled."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import listed
from flowbench.data.cells import Cells
from flowbench.errors import DataError


def find_gaps(cells: Mapping[str, Cells]) -> tuple[NDArray[np.int64] | None, list[str]]:
    """The rows with a cell that is there, None for all; and notes on those that are missing."""
    missing = np.column_stack([each.is_missing for each in cells.values()])
    counts = {name: int(count) for name, count in zip(cells, missing.sum(0), strict=True) if count}
    if empty := [name for name, count in counts.items() if count == len(missing)]:
        raise DataError(f"column `{empty[0]}` has no cell that is there; leave it out with `--columns`")
    notes, kept = [], None
    if counts:
        each = [f"`{name}` ({count:,})" for name, count in counts.items()]
        notes.append(
            f"{int(missing.any(1).sum()):,} of {len(missing):,} rows have missing cells, in {listed(each)}; "
            "the density is learnt from the cells that are there, as if which ones are missing said nothing "
            "of their values"
        )
    if missing.all(1).any():
        kept = np.flatnonzero(~missing.all(1))
        notes.append(f"{len(missing) - len(kept):,} rows without any cell are left out")
    return kept, notes
