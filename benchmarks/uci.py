"""Eight UCI tables with a target and ten splits each; they lie beside the checkout, where they are at all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import DATA

Floats = NDArray[np.float64]

FOLDER = DATA / "uci-regression"
SPLITS = 10
#: The share of the rows that are not test rows which chooses among weights, stages or widths.
VALIDATION_SHARE = 0.15

#: From a rounded target to the whole numbers that it stands for, and back.
Scale = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]


@dataclass(frozen=True)
class Source:
    """How a table is read: the column of the `target`, and the `scale` on which it is a whole number, if any.

    `remark` is what a reader of its figures has to know.
    """

    target: int = -1
    scale: Scale | None = None
    remark: str = ""


def _log_of_whole(least: int) -> Scale:
    """Logarithms of whole numbers, of which `least` is the smallest, up to a constant."""

    def to_whole(y: Floats) -> Floats:
        whole: Floats = least * np.exp(y - y.min())
        return whole

    return to_whole, np.log


SOURCES: dict[str, Source] = {
    "yacht": Source(),
    "housing": Source(remark="the target is censored at its largest value, where a density can spike"),
    "energy": Source(),
    "concrete": Source(),
    "airfoil": Source(),
    "wine": Source(
        target=10,
        scale=(lambda y: y - y.min(), lambda whole: whole),
        remark="the target is the grade, which stands last but one in the file, and is scored over its cell; "
        "a seventh of the rows repeat others",
    ),
    "pumadyn32nm": Source(),
    "elevators": Source(
        scale=_log_of_whole(12),
        remark="the target is the logarithm of a whole number, and is scored over its cell",
    ),
}


@dataclass(frozen=True)
class Rows:
    """Rows of a table: inputs `x: (n, c)` and the target `y: (n,)`, in the target's own units.

    `low` and `high`, `(n,)`, bound the cell that a rounded target stands for. They equal `y` where the target
    is continuous.
    """

    x: Floats
    y: Floats
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        return Rows(self.x[index], self.y[index], self.low[index], self.high[index])

    @property
    def is_rounded(self) -> bool:
        """Whether the target stands for cells."""
        return bool((self.high > self.low).any())

    def place(self, rng: np.random.Generator) -> "Rows":
        """The same rows, each rounded target at a random place in its cell: what a density learns from."""
        return Rows(self.x, rng.uniform(self.low, self.high), self.low, self.high)


@dataclass(frozen=True)
class Split:
    """One split: rows that a model learns from, rows that choose, and rows that judge."""

    train: Rows
    validation: Rows
    test: Rows


def is_here() -> bool:
    """Whether the tables lie beside the checkout."""
    return FOLDER.exists()


def read_table(name: str) -> Rows:
    """Every row of the table called `name`."""
    source = SOURCES[name]
    values = np.loadtxt(FOLDER / f"{name}-data.csv.gz", delimiter=",")
    y, x = values[:, source.target], np.delete(values, source.target, axis=1)
    if source.scale is None:
        return Rows(x, y, y, y)
    to_whole, from_whole = source.scale
    whole = np.round(to_whole(y))
    offset = np.mean(y - from_whole(whole))
    return Rows(x, y, from_whole(whole - 0.5) + offset, from_whole(whole + 0.5) + offset)


def read_split(name: str, number: int) -> Split:
    """The split of this `number` of the table called `name`; its validation rows are drawn at random."""
    rows = read_table(name)
    is_test = np.loadtxt(FOLDER / f"{name}-test_mask.csv.gz", delimiter=",")[:, number] == 1
    rng = np.random.default_rng(number)
    others = rng.permutation(np.flatnonzero(~is_test))
    held_out = round(VALIDATION_SHARE * len(others))
    learning = rows.place(rng)
    return Split(learning[others[held_out:]], learning[others[:held_out]], rows[is_test])
