"""Some rows of a table, drawn at random."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowbench.data.cells import Cells
from flowbench.data.raw_table import RawTable

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class RowDraw:
    """`count` rows of a table, each as likely as any other, none twice; all of them if it has no more.

    The same `seed` draws the same rows of a table, whatever format it is stored in.
    """

    count: int
    seed: int

    @classmethod
    def asked(cls, count: int | None, seed: int) -> Self | None:
        """The draw of `count` rows; None stands for all rows."""
        return None if count is None else cls(count, seed)

    def rows(self, n: int) -> Integers | None:
        """The rows to take of `n`, from 0, ascending: `(count,)`; None for all."""
        if self.count >= n:
            return None
        drawn = np.random.default_rng(self.seed).choice(n, self.count, replace=False, shuffle=False)
        return np.sort(drawn)

    def note(self, n: int) -> str:
        """What is drawn of `n` rows, in words."""
        if self.count >= n:
            return f"`--rows` asks for {self.count:,} rows, and the table has {n:,}, which are all used"
        return f"{self.count:,} of {n:,} rows are read, drawn at random; `--rows` says how many"

    def of(self, table: RawTable) -> RawTable:
        """The drawn rows of a `table` that has been read whole."""
        rows, notes = self.rows(table.n_rows), (*table.notes, self.note(table.n_rows))
        if rows is None:
            return replace(table, notes=notes)
        return replace(
            table,
            n_rows=len(rows),
            cells=lambda index, expected: _at(table.cells(index, expected), rows),
            notes=notes,
        )


def _at(cells: Cells, rows: Integers) -> Cells:
    return replace(
        cells,
        numbers=cells.numbers[rows],
        missing=None if cells.missing is None else cells.missing[rows],
        text=lambda place: cells.text(int(rows[place])),
        source=None if cells.source is None else cells.source.take(rows),
        rows=rows,
    )
