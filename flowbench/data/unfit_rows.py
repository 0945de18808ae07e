"""Rows of numbers out of cells, and which of them cannot be used."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cell_faults import shown
from flowbench.data.cells import Cells
from flowbench.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnfitCell:
    """A cell that is not a finite number: its `column`, and its `text`, None if it is missing or infinite."""

    column: str
    is_infinite: bool = False
    text: str | None = None

    @property
    def kind(self) -> str:
        """What is wrong with the cell, in words that are the same for all such cells of the column."""
        complaint = (
            "infinite value" if self.is_infinite else "missing cell" if self.text is None else "no number"
        )
        return f"{complaint} in `{shown(self.column)}`"

    @property
    def reason(self) -> str:
        """What is wrong with the cell, in words for a single row."""
        return self.kind if self.text is None else f"`{self.text}` in `{shown(self.column)}` is not a number"


def rows_of_cells(columns: Mapping[str, Cells], *, gaps: bool) -> tuple[Floats, dict[int, UnfitCell]]:
    """The rows `(n, d)` in the cells of `columns`, and the unfit rows, as `read_rows` gives them.

    With `gaps`, missing cells are modelled.
    Raises `DataError` for a column that cannot be read without a guess.
    """
    rows = np.empty((len(next(iter(columns.values())).numbers), len(columns)))
    unfit = dict[int, UnfitCell]()
    for number, (name, cells) in enumerate(columns.items()):
        if cells.fault is not None:
            raise DataError(f"column `{name}`: {cells.fault}")
        rows[:, number] = cells.numbers
        foreign = cells.is_foreign
        unfit_cells = ~np.isfinite(cells.numbers)
        if gaps:
            unfit_cells &= ~cells.is_missing
        for row in np.flatnonzero(unfit_cells).tolist():
            text = shown(cells.text(row)) if foreign[row] else None
            unfit.setdefault(row, UnfitCell(name, bool(np.isinf(cells.numbers[row])), text))
    if gaps:
        for row in np.flatnonzero(np.isnan(rows).all(1)).tolist():
            unfit.setdefault(row, UnfitCell(next(iter(columns))))
    return rows, unfit
