"""A column that says which rows train, choose and test a model."""

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import shown
from flowbench.data.cells import Cells
from flowbench.data.column_values import values_of
from flowbench.errors import DataError

#: The number of each part, by the names that it may have.
PART_NUMBERS = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


def part_numbers(cells: Cells, name: str) -> NDArray[np.int64]:
    """The part `(n,)` of each row: 0 for train, 1 for validation and 2 for test rows.

    `name` is that of the column. Raises `DataError` for a cell that names no part.
    """
    values = values_of(cells)
    known = [PART_NUMBERS.get(str(each).strip().lower(), -1) for each in values.distinct]
    # Missing cells have the code -1.
    numbers = np.array([*known, -1], dtype=np.int64)[values.codes]
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        code = int(values.codes[row])
        found = "a missing cell" if code < 0 else f"`{shown(values.distinct[code])}`"
        raise DataError(
            f"column `{name}`, row {cells.row(row)}: {found} names no part of the split; `--split-column` "
            "takes a column of train, validation and test"
        )
    return numbers
