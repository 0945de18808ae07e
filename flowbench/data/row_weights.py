"""The weights of a table's rows, from the column that holds them."""

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import check_cells
from flowbench.data.cells import Cells
from flowbench.errors import DataError

Floats = NDArray[np.float64]

#: A weight of less than this share of the largest is lost in every sum, and counts as 0.
NEGLIGIBLE = 1e-15


def weights_of(name: str, cells: Cells) -> Floats:
    """The weights `(n,)` in the column called `name`: finite, not negative, and not all 0.

    A row of weight 2 counts as two rows of weight 1. Only the ratios of weights matter. Raises `DataError`,
    which names column, row and remedy, for cells that are no weights.
    """
    try:
        check_cells({name: cells}, may_be_missing=False, may_leave_out=False)
    except DataError as error:
        raise DataError(f"{error}; `--weights` needs a weight in every row, 0 for one not to count") from None
    if cells.type.unit:
        raise DataError(
            f"column `{name}` holds {cells.type.unit}, and no weights; name another column with `--weights`"
        )
    weights = cells.numbers
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        more = f", and {len(negative) - 1:,} more are below 0" if len(negative) > 1 else ""
        raise DataError(
            f"column `{name}`, row {cells.row(negative[0])}: a weight cannot be negative, as "
            f"{weights[negative[0]]:g} is{more}; correct it, give it 0 to leave the row out, or name another "
            "column with `--weights`"
        )
    if len(weights) and not weights.any():
        raise DataError(
            f"column `{name}`, rows 1 to {len(weights):,}: every weight is 0, so no row counts; name another "
            "column with `--weights`"
        )
    return weights


def counts(weights: Floats) -> NDArray[np.bool_]:
    """Which rows count, by their `weights: (n,)`: those above `NEGLIGIBLE` of the largest weight."""
    return np.asarray(weights > NEGLIGIBLE * weights.max(initial=0.0))
