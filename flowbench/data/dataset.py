"""Datasets: named columns, rows, their provenance, and splits into training, validation and test rows."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flowbench.data.benchmarks import PARTS, PublishedFigure
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError, unknown_name

if TYPE_CHECKING:
    from flowbench.data.toy_density import ToyDensity


@dataclass(frozen=True)
class Column:
    """The name of a column, the kind of its values and the interval they lie in (data units).

    A categorical column has few values, its levels: numbers, or the places of the levels that `type` names.
    `type` is the type and notation of the values in the column's table. `levels` are the levels of a
    categorical column of numbers, ascending, if there may be others than those in the rows.
    """

    name: str
    kind: Literal["continuous", "categorical"] = "continuous"
    support: tuple[float, float] = (-math.inf, math.inf)
    type: ColumnType = FLOAT64
    levels: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a dataset comes from.

    For a file, `sha256` is the hash of the file's bytes. For toys and scikit-learn's tables it is the hash of
    the rows' bytes (float64, row by row).
    """

    source: str
    sha256: str
    licence: str = ""
    description: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows `(n, d)` float64 in data units, NaN where missing, read-only, with columns and provenance.

    `density` is the density that the rows were drawn from, if it is known. `notes` say what reading the table
    guessed or left out. `row_numbers: (n,)` are the rows' numbers in the source, from 0, if these are some of
    them. `groups: (n,)` are integers that are equal for rows that belong together, such as those of one
    patient; a split keeps them in one part. It is None if there are no such groups. `given` names columns
    whose values a conditional density is given; the others are its targets. `categorical` are those of
    `given` whose probability mass is learnt as well. `atoms` are values of target columns with a probability
    of their own; a state column for each of these, the last ones, tells which atom a row holds.

    `parts: (n,)` is the part of each row, 0 for train, 1 for validation and 2 for test, if the table says so.
    `published` are figures of papers on the same rows and split; there are none unless the table is the
    complete one. `weights: (n,)`, float64, say how much each row counts: a row of weight 2 as much as two of
    weight 1. Only their ratios matter, and None stands for equal weights.

    Raises `DataError` if the rows are not a matrix with one column per `Column`, or the groups not an integer
    or the weights not a positive number for each row.
    """

    name: str
    columns: tuple[Column, ...]
    rows: NDArray[np.float64]
    provenance: Provenance
    density: "ToyDensity | None" = None
    notes: tuple[str, ...] = ()
    row_numbers: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    given: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    atoms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parts: NDArray[np.int64] | None = None
    published: tuple[PublishedFigure, ...] = ()
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        # Rows that are read-only and own their memory need no copy.
        owned = not self.rows.flags.writeable and self.rows.base is None
        rows = np.array(self.rows, dtype=np.float64, order="C", copy=None if owned else True)
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            raise DataError(
                f"dataset `{self.name}`: rows of shape {rows.shape} do not fit {len(self.columns)} columns"
            )
        rows.setflags(write=False)
        object.__setattr__(self, "rows", rows)
        if self.groups is not None:
            object.__setattr__(self, "groups", self._checked(np.array(self.groups)))
        if self.weights is not None:
            weights = np.array(self.weights, dtype=np.float64)
            if weights.shape != (len(rows),) or not np.all((weights > 0) & np.isfinite(weights)):
                raise DataError(
                    f"dataset `{self.name}`: the weights are not a positive number for each of {len(rows)} "
                    "rows; leave rows without weight out"
                )
            weights.setflags(write=False)
            object.__setattr__(self, "weights", weights)

    def _checked(self, groups: NDArray[Any]) -> NDArray[np.int64]:
        if groups.shape != (len(self.rows),) or groups.dtype.kind not in "iu":
            raise DataError(
                f"dataset `{self.name}`: groups of shape {groups.shape} and type {groups.dtype} are not a "
                f"whole number for each of {len(self.rows)} rows"
            )
        numbers = groups.astype(np.int64)
        numbers.setflags(write=False)
        return numbers

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers in the source, from 0, of the rows with the indices `rows: (k,)` here."""
        return rows if self.row_numbers is None else self.row_numbers[rows]

    def giving(self, names: Sequence[str]) -> Self:
        """The same data set, of which a density is given the columns with these `names`.

        Raises `UnknownColumnError` for a column that is not there, and `ConfigurationError` if none is left
        to model.
        """
        known = self.column_names
        for name in names:
            if name not in known:
                raise UnknownColumnError(unknown_name("column", name, known))
        if set(known) <= set(names):
            raise ConfigurationError(
                f"`given` names every column of `{self.name}`; leave one out, whose density is to be learnt"
            )
        return replace(self, given=tuple(names))

    def with_mass(self, told: Sequence[str] = ()) -> Self:
        """The same data set, of which a probability mass of the categories is learnt.

        The density of the other columns is given the categories. If columns are given already, no mass is
        learnt: columns of few numbers, but for those that the user `told`, are numbers then. Raises
        `DataError` for text that is no given column then, and if no column of numbers is left.
        """
        levelled = tuple(
            each.name for each in self.columns if each.kind == "categorical" and each.name not in self.given
        )
        if self.given:
            text = [each.name for each in self.columns if each.type.levels and each.name in levelled]
            if text:
                raise DataError(
                    f"column `{text[0]}` holds categories, whose probabilities are not learnt given other "
                    f"columns; name it in `--given` too, or leave it out with `--columns`"
                )
            columns = (
                each if each.type.levels or each.name in told else replace(each, kind="continuous")
                for each in self.columns
            )
            return replace(self, columns=tuple(columns))
        if len(levelled) == len(self.columns):
            raise DataError(
                f"every column of `{self.name}` holds categories, so that there is no density to learn; give "
                "a table with a column of numbers"
            )
        return replace(self, given=levelled, categorical=levelled) if levelled else self

    def with_atoms(self, atoms: Mapping[str, Sequence[float]]) -> Self:
        """The same data set, of which the probability of `atoms`, ascending values by column, is learnt.

        A state column for each column with atoms is added to the given ones.
        """
        if not atoms:
            return self
        found = {name: tuple(atoms[name]) for name in self.target_names if name in atoms}
        columns, states = list[Column](), list[NDArray[np.float64]]()
        for name, values in found.items():
            place = self.column_names.index(name)
            written = self.columns[place].type.text(np.array(values)).tolist()
            told = [f"{each:g}" if isinstance(each, float) else str(each) for each in written]
            taken = (*self.column_names, *(each.name for each in columns))
            type_ = ColumnType("string", levels=("none", *told))
            columns.append(Column(state_name(name, taken), "categorical", type=type_))
            state = np.where(np.isnan(self.rows[:, place]), np.nan, 0.0)
            for number, value in enumerate(values, start=1):
                state[self.rows[:, place] == value] = number
            states.append(state)
        names = tuple(each.name for each in columns)
        return replace(
            self,
            columns=(*self.columns, *columns),
            rows=np.column_stack([self.rows, *states]),
            given=(*self.given, *names),
            categorical=(*self.categorical, *names),
            atoms=found,
        )

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names of the columns of the table, without those of states."""
        return self.column_names[: len(self.column_names) - len(self.atoms)]

    def levels(self, name: str) -> list[float] | None:
        """The levels of a categorical column, ascending numbers; None for another column."""
        column = self.columns[self.column_names.index(name)]
        if column.kind != "categorical":
            return None
        if column.type.levels is not None:
            return [float(place) for place in range(len(column.type.levels))]
        if column.levels is not None:
            return list(column.levels)
        values = self.rows[:, self.column_names.index(name)]
        return [float(each) for each in np.unique(values[~np.isnan(values)])]

    @property
    def has_gaps(self) -> bool:
        """Whether cells are missing."""
        return bool(np.isnan(self.rows).any())

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names of the d columns whose density is learnt, in order."""
        return tuple(name for name in self.column_names if name not in self.given)

    @property
    def targets(self) -> NDArray[np.float64]:
        """The rows `(n, d)` without the given columns."""
        return self._take(self.rows, self.target_names) if self.given else self.rows

    @property
    def context(self) -> NDArray[np.float64] | None:
        """The given columns `(n, c)`, in the order of `given`; None if there are none."""
        return self._take(self.rows, self.given) if self.given else None

    def at(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Targets `(k, d)` and givens `(k, c)`, if any, of the rows with the indices `ids: (k,)`."""
        rows = self.rows[ids]
        if not self.given:
            return rows, None
        return self._take(rows, self.target_names), self._take(rows, self.given)

    def _take(self, rows: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
        return rows[:, [self.column_names.index(name) for name in names]]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)


def state_name(column: str, taken: Collection[str]) -> str:
    """The name of the column that tells which atom of a `column` a row holds; it is none of those `taken`."""
    name = f"atom of {column}"
    while name in taken:
        name += "_"
    return name


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices (int64, from 0) of the training, validation and test parts.

    The parts are disjoint, not empty, and together hold every row, in random order. Rows of one group are
    adjacent.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def draw(
        cls,
        n: int,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        groups: NDArray[np.int64] | None = None,
    ) -> Self:
        """Split `n` rows at random into parts of about these fractions (training, validation, test).

        Rows with the same number in `groups: (n,)` are put into one part. The order of the groups is then
        random, and each part ends at the end of a group, as near as possible to its fraction.

        Raises `ConfigurationError` for fractions that are not three positive numbers with the sum 1, and
        `DataError` if a part would be empty.
        """
        if len(fractions) != 3 or not all(fraction > 0 for fraction in fractions):
            raise ConfigurationError(f"`split` takes three positive fractions; got {tuple(fractions)}")
        if not math.isclose(sum(fractions), 1, abs_tol=1e-9):
            raise ConfigurationError(f"`split` takes fractions with the sum 1; got {tuple(fractions)}")
        # The second entry makes this random stream differ from that of a toy drawn with the same seed.
        generator = np.random.default_rng((seed, 1))
        ends = np.rint(np.cumsum(fractions) * n).astype(np.int64)
        number = np.arange(n) if groups is None else _by_appearance(groups)
        count = int(number.max(initial=-1)) + 1
        if count < n:
            order, ends = _lay_out(number, ends, generator.permutation(count))
            return cls(*np.split(order, ends[:2]))
        if min(ends[0], ends[1] - ends[0], n - ends[1]) < 1:
            raise DataError(
                f"{n} rows are too few for a split of {tuple(fractions)}: every part needs at least one row"
            )
        return cls(*np.split(generator.permutation(n), ends[:2]))

    @classmethod
    def of_parts(cls, parts: NDArray[np.int64], seed: int = 0) -> Self:
        """The split in which row i belongs to the part `parts[i]`: 0 train, 1 validation, 2 test.

        The order of the rows within a part is random. Raises `DataError` if a part would be empty.
        """
        generator = np.random.default_rng((seed, 1))
        found = [generator.permutation(np.flatnonzero(parts == number)) for number in range(len(PARTS))]
        for name, rows in zip(PARTS, found, strict=True):
            if not len(rows):
                raise DataError(f"no row is a {name} row, and each of {', '.join(PARTS)} needs one")
        return cls(*found)


def _by_appearance(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The `groups: (n,)` renumbered from 0 in the order of their first rows."""
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]


def _lay_out(
    number: NDArray[np.int64], ends: NDArray[np.int64], drawn: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row indices `(n,)` in the order of groups `drawn: (k,)`, and the ends `(2,)` of the first two parts.

    `number: (n,)` are the rows' groups. The parts end as close to `ends` as whole groups allow.
    """
    if len(drawn) < 3:
        raise DataError(
            f"{len(number)} rows are only {len(drawn)} group(s) of rows that belong together or are copies "
            "of one another, and each of train, validation and test rows needs one; give rows of more groups"
        )
    place = np.empty_like(drawn)
    place[drawn] = np.arange(len(drawn))
    ids = np.argsort(place[number], kind="stable")
    boundaries = np.cumsum(np.bincount(number)[drawn])
    # At least one group is left for every later part.
    first = int(np.abs(boundaries[:-2] - ends[0]).argmin())
    second = first + 1 + int(np.abs(boundaries[first + 1 : -1] - ends[1]).argmin())
    return ids, boundaries[[first, second]]
