"""A table as the rest of the package sees it: named columns, rows, where they come from, and a split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from flowbench.data.toy_density import ToyDensity


@dataclass(frozen=True)
class Column:
    """A column's name, what kind of values it holds and the interval they lie in (data units).

    `type` says how its table has them.
    """

    name: str
    kind: Literal["continuous"] = "continuous"
    support: tuple[float, float] = (-math.inf, math.inf)
    type: ColumnType = FLOAT64


@dataclass(frozen=True)
class Provenance:
    """Where a dataset comes from.

    `sha256` is that of the file's bytes for a file, and of the rows' bytes (float64, row by row) for toys
    and for scikit-learn's tables.
    """

    source: str
    sha256: str
    licence: str = ""
    description: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows `(n, d)` float64 in data units, read-only, with their columns and provenance.

    `density` is the density that the rows were drawn from, where it is known. `notes` say what reading the
    table guessed or left out. `row_numbers: (n,)` count rows of the source, from 0, where some were dropped.
    Rows with the same number in `groups: (n,)` belong together. Raises `DataError` if the rows are not a
    matrix with one column per `Column`.
    """

    name: str
    columns: tuple[Column, ...]
    rows: NDArray[np.float64]
    provenance: Provenance
    density: "ToyDensity | None" = None
    notes: tuple[str, ...] = ()
    row_numbers: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        # Rows that nobody can change are nobody else's to copy for.
        owned = not self.rows.flags.writeable and self.rows.base is None
        rows = np.array(self.rows, dtype=np.float64, order="C", copy=None if owned else True)
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            raise DataError(
                f"dataset `{self.name}`: rows of shape {rows.shape} do not fit {len(self.columns)} columns"
            )
        rows.setflags(write=False)
        object.__setattr__(self, "rows", rows)

    @property
    def features(self) -> int:
        """The number of columns d."""
        return len(self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, eq=False)
class Split:
    """Row ids (int64, counted from 0) of the training, validation and test parts.

    The parts are disjoint, not empty, and together hold every row, in random order.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def draw(cls, n: int, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Self:
        """Split `n` rows at random into parts of about these fractions (train, validation, test).

        Raises `ConfigurationError` for fractions that are not three positive numbers with the sum 1, and
        `DataError` if a part would be empty.
        """
        if len(fractions) != 3 or not all(fraction > 0 for fraction in fractions):
            raise ConfigurationError(f"`split` takes three positive fractions; got {tuple(fractions)}")
        if not math.isclose(sum(fractions), 1, abs_tol=1e-9):
            raise ConfigurationError(f"`split` takes fractions with the sum 1; got {tuple(fractions)}")
        ends = np.rint(np.cumsum(fractions) * n).astype(np.int64)
        if min(ends[0], ends[1] - ends[0], n - ends[1]) < 1:
            raise DataError(
                f"{n} rows are too few for a split of {tuple(fractions)}: every part needs at least one row"
            )
        # The second entry keeps this stream apart from that of a toy drawn with the same seed.
        order = np.random.default_rng((seed, 1)).permutation(n)
        return cls(*np.split(order, ends[:2]))
