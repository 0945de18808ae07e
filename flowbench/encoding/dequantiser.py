"""Columns of evenly spaced values, such as whole numbers, spread over the cells that these stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowbench.data.lattice import LOOSE, SAME, Lattice, find_lattice, is_repeating, share_in_place
from flowbench.data.row_hashes import hash_rows, uniform_of_hashes
from flowbench.errors import ConfigurationError, unknown_name

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dequantiser:
    """Rows with evenly spaced values as rows that have a density, and back (Uria et al. 2013).

    A value v of a column with the spacing s stands for the cell from v - s/2 to v + s/2, and what lies
    between such values for the cell that it is in. A model learns the density of values spread evenly over
    their cells. What it says of a row is the mean of its log-density over the cell: a lower bound of the
    logarithm of the cell's mass by its volume (Theis et al. 2016), so that nothing is gained by spikes that
    are narrower than a cell. Columns without a lattice are left as they are.
    """

    columns: tuple[str, ...]
    lattices: Mapping[str, Lattice]

    @classmethod
    def of_values(cls, columns: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        """The dequantiser that `values` stand for, as `to_values` gave them.

        Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` if they are none of these.
        """
        lattices = {
            name: Lattice(float(values[name]["step"]), float(values[name]["origin"]))
            for name in columns
            if name in values
        }
        if not all(0 < each.step < np.inf and np.isfinite(each.origin) for each in lattices.values()):
            raise ValueError("a `step` is not positive, or an `origin` not finite")
        return cls(columns, lattices)

    def to_values(self) -> dict[str, dict[str, float]]:
        """Plain values: by column, `step` and `origin`."""
        return {name: asdict(lattice) for name, lattice in self.lattices.items()}

    def __bool__(self) -> bool:
        """Whether any column has a lattice."""
        return bool(self.lattices)

    def jitter(self, rows: Floats, generator: np.random.Generator) -> Floats:
        """Rows `(n, d)`, each value at a random place in its cell."""
        return self._moved(rows, generator.random((len(rows), len(self.lattices)))) if self else rows

    def spread(self, rows: Floats, draw: int, draws: int = 2) -> Floats:
        """Rows `(n, d)` at the place in their cells that number `draw` of `draws`, an even number, has.

        It follows from the cell alone, whatever rows are beside it. Draws 2k and 2k + 1 lie on either side
        of the middle, so that in their mean the slope of a function cancels (Hammersley and Morton 1956);
        all draws together fill each column of a cell evenly, in an order that is random from column to column
        (McKay, Beckman and Conover 1979).
        """
        if not self:
            return rows
        pairs, pair = draws // 2, draw // 2
        whole = hash_rows(self._cells(rows))
        order, inside, side = (
            uniform_of_hashes(whole, number, len(self.lattices)) for number in (0, 2 * pair + 1, 2 * pair + 2)
        )
        places = ((pair + np.floor(order * pairs)) % pairs + inside) / (2 * pairs)
        return self._moved(rows, np.where((side < 0.5) == (draw % 2 == 0), places, 1 - places))

    def restore(self, rows: Floats) -> Floats:
        """Rows `(n, d)` with each value in the middle of the cell that it lies in."""
        restored = np.array(rows)
        for column, lattice in self._each():
            restored[:, column] = lattice.middles(lattice.cells(rows[:, column]))
        return restored

    def out_of_place(self, rows: Floats) -> dict[str, int]:
        """By column, where there are any, how many values of `rows: (n, d)` only fall into a cell."""
        counts = {
            self.columns[column]: int((lattice.off(rows[:, column]) > LOOSE).sum())
            for column, lattice in self._each()
        }
        return {name: count for name, count in counts.items() if count}

    def whole_cells(self, box: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """A `box`, low and high of each of the d columns, grown until it cuts no cell."""
        grown = list(box)
        for column, lattice in self._each():
            low, high = lattice.cells(np.array(box[column]))
            grown[column] = tuple(lattice.origin + lattice.step * end for end in (low - 0.5, high + 0.5))
        return tuple(grown)

    def _cells(self, rows: Floats) -> Floats:
        """Rows `(n, d)` with the number of its cell in the place of each value that has one."""
        cells = rows + 0.0  # no negative zeros
        for column, lattice in self._each():
            cells[:, column] = lattice.cells(rows[:, column]) + 0.0
        return cells

    def _moved(self, rows: Floats, places: Floats) -> Floats:
        """Rows at `places: (n, k)`, from 0 to 1, in the cells of the k columns that have any."""
        moved = self.restore(rows)
        for place, (column, lattice) in zip(places.T, self._each(), strict=True):
            moved[:, column] += lattice.step * (place - 0.5)
        return moved

    def _each(self) -> list[tuple[int, Lattice]]:
        return [(self.columns.index(name), lattice) for name, lattice in self.lattices.items()]


#: Leaves all columns as they are.
CONTINUOUS = Dequantiser((), {})


def parse_spacings(text: str) -> dict[str, float]:
    """The spacing of each column in "age=1, height=0.1"; raises `ConfigurationError` for anything else."""
    spacings: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (part.strip() for part in item.rpartition("="))
        try:
            step = float(number)
        except ValueError:
            step = -1
        if not (name and 0 < step < np.inf):
            raise ConfigurationError(
                f"takes auto, none, or positive spacings such as age=1,height=0.1; got `{text}`"
            )
        if name in spacings:
            raise ConfigurationError(f"names `{name}` twice; got `{text}`")
        spacings[name] = step
    return spacings


def choose_dequantiser(
    names: tuple[str, ...], rows: Floats, spacings: Mapping[str, float] | None = None
) -> Dequantiser:
    """That of the columns whose `spacings` are given; without them, of those whose values tell.

    These are the columns, called `names`, in which most of the train `rows: (n, d)` share their value with
    another and the values are evenly spaced. Raises `ConfigurationError` for a column that is not there, and
    a spacing that its values cannot have.
    """
    columns = dict(zip(names, rows.T, strict=True))
    if spacings:
        for name in spacings:
            if name not in names:
                raise ConfigurationError(f"`dequantise`: {unknown_name('column', name, names)}")
        return Dequantiser(
            names, {name: _anchored(name, columns[name], step) for name, step in spacings.items()}
        )
    found = {
        name: lattice
        for name, values in columns.items()
        if is_repeating(values) and (lattice := find_lattice(values))
    }
    return Dequantiser(names, found)


def _anchored(name: str, values: Floats, step: float) -> Lattice:
    """The lattice of this `step` on which most of `values: (n,)` lie: through 0, or the commonest."""
    low, high = float(values.min()), float(values.max())
    if not 1e3 * SAME * max(abs(low), abs(high)) <= step <= high - low:
        raise ConfigurationError(
            f"`dequantise`: a spacing of {step:g} is too {'wide' if step > high - low else 'fine'} for the "
            f"values of `{name}`, from {low:g} to {high:g}"
        )
    shares, counts = np.unique(np.round(values % step / step, 9), return_counts=True)
    common = Lattice(step, float(shares[counts.argmax()]) * step)
    zero = Lattice(step)
    return (
        common
        if share_in_place(common, values, LOOSE) > max(share_in_place(zero, values, LOOSE), 0.5)
        else zero
    )
