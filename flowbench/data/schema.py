"""What the columns of a table are: their kinds, supports, probability masses, spacings and levels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from flowbench.data.dataset import Provenance
from flowbench.errors import UnknownColumnError, unknown_name

Kind = Literal[
    "continuous", "count", "ordinal", "categorical", "boolean", "date", "time", "identifier", "constant"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The kinds whose values are numbers with atoms and perhaps a spacing, and those of them with a support.
NUMERIC: tuple[Kind, ...] = ("continuous", "count", "date", "time")
SUPPORTED: tuple[Kind, ...] = ("continuous", "date", "time")
#: The kinds whose values are a few levels.
LEVELLED: tuple[Kind, ...] = ("ordinal", "categorical", "boolean", "constant")


@dataclass(frozen=True)
class Support:
    """The open interval in which the values of a column lie, apart from its atoms (data units)."""

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of_ends(cls, ends: Sequence[float | None]) -> Self:
        """The support between a low and a high end; None stands for no end."""
        low, high = ends
        return cls(-math.inf if low is None else float(low), math.inf if high is None else float(high))

    @property
    def ends(self) -> list[float | None]:
        """Low and high end; None for no end."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]

    @property
    def name(self) -> Literal["real", "positive", "bounded"]:
        """Real without bounds, positive with the single bound 0, else bounded."""
        if (self.low, self.high) == (-math.inf, math.inf):
            return "real"
        return "positive" if (self.low, self.high) == (0, math.inf) else "bounded"

    @property
    def value(self) -> str | list[float]:
        """The support as `real`, `positive`, or a list of its ends."""
        return [self.low, self.high] if self.name == "bounded" else self.name

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the `values: (n,)` lie in it: `(n,)`."""
        inside: NDArray[np.bool_] = (values > self.low) & (values < self.high)
        return inside

    @property
    def in_words(self) -> str:
        """What a number in it is, such as "above 0"."""
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if math.isinf(self.low) else f"between {self.low:g} and {self.high:g}"

    def of(self, name: str, atoms: Sequence[float] = ()) -> str:
        """What the values of a column are, such as "rain above 0 or equal to 0" where 0 is an atom."""
        outside = [f"{each:g}" for each in atoms if not self.low < each < self.high]
        return f"{name} {self.in_words}" + (f" or equal to {' or '.join(outside)}" if outside else "")

    def __str__(self) -> str:
        return f"({self.low:g}, {self.high:g})" if self.name == "bounded" else self.name


REAL, POSITIVE = Support(), Support(0.0)


@dataclass(frozen=True)
class Level:
    """A value of a column with few values, as text or as a number, and the number of cells that hold it."""

    value: str | float
    count: int


@dataclass(frozen=True)
class Atom:
    """A value with a probability mass of its own, and the share of the known cells that hold it."""

    value: float
    share: float


@dataclass(frozen=True)
class ColumnSchema:
    """What a column holds; `because` is the evidence, a clause for each decision.

    `support`, `atoms` and `spacing` are those of a number, a date or a time, in `unit` where it has one. A
    count has no support but the whole numbers from 0.
    `spacing` is the distance of evenly spaced values most of which repeat. `levels` are those of ordinal,
    categorical, boolean and constant columns: in order of ordinal ones, else sorted. `missing` counts the
    missing cells. `distinct` counts the values that occur. `tails` are heavy if the range of 98% of the
    values is more than `HEAVY` times as wide, in interquartile ranges, as that of a normal distribution. They
    are None where that cannot be told. `overridden` says what a schema file changed.
    """

    name: str
    kind: Kind
    missing: int
    missing_share: float
    distinct: int
    because: tuple[str, ...]
    support: Support = REAL
    atoms: tuple[Atom, ...] = ()
    spacing: float | None = None
    levels: tuple[Level, ...] = ()
    tails: Literal["light", "heavy"] | None = None
    unit: str | None = None
    overridden: tuple[str, ...] = ()

    def saying(self, *clauses: str) -> "ColumnSchema":
        """The same schema with further evidence."""
        return replace(self, because=(*self.because, *clauses))


@dataclass(frozen=True)
class Relation:
    """Columns that determine one another: each of those that `follows` names follows from the others."""

    columns: tuple[str, ...]
    follows: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.follows) == 1:
            others = [f"`{name}`" for name in self.columns if name not in self.follows]
            return f"`{self.follows[0]}` follows from {' and '.join(others)}"
        names = [f"`{name}`" for name in self.columns]
        return f"any one of {', '.join(names[:-1])} and {names[-1]} follows from the rest"


@dataclass(frozen=True)
class TableSchema:
    """What the columns of a table are, and what is true of its rows.

    `repeated_rows` is the number of rows that equal an earlier row in every column that is no identifier.
    `notes` say what reading the table guessed or left out.
    """

    name: str
    rows: int
    columns: tuple[ColumnSchema, ...]
    repeated_rows: int
    relations: tuple[Relation, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def repeated_share(self) -> float:
        """The share of the rows that repeat an earlier one."""
        return self.repeated_rows / self.rows

    def column(self, name: str) -> ColumnSchema:
        """The column with this name; raises `UnknownColumnError` if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UnknownColumnError(unknown_name("column", name, self.column_names))

    def to_values(self) -> Mapping[str, Any]:
        """Plain values, for JSON: a support is `real`, `positive` or two numbers."""
        return {
            "name": self.name,
            "rows": self.rows,
            "columns": [
                {**vars(column), "support": support_value(column)}
                | {"atoms": [vars(each) for each in column.atoms]}
                | {"levels": [vars(each) for each in column.levels]}
                for column in self.columns
            ],
            "repeated_rows": self.repeated_rows,
            "relations": [vars(each) for each in self.relations],
            "provenance": vars(self.provenance),
            "notes": self.notes,
        }


def support_value(column: ColumnSchema) -> str | list[float] | None:
    """The support of a column as `real`, `positive`, or a list of its ends; None if its kind has none."""
    return column.support.value if column.kind in SUPPORTED else None
