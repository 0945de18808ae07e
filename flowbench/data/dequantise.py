"""Columns of evenly spaced values, such as whole numbers, spread over the cells that these stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError, unknown_name

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

#: How far a value may be from its place, as a share of the spacing.
LOOSE = 0.05
#: Values closer than this part of a column's range are one value, written with other last digits.
SAME = 1e-12


@dataclass(frozen=True)
class Lattice:
    """Where a column's values lie: at `origin` plus whole multiples of `step`, data units."""

    step: float
    origin: float = 0.0


@dataclass(frozen=True)
class Dequantiser:
    """Rows with evenly spaced values as rows that have a density, and back (Uria et al. 2013).

    A value v of a column with the spacing s stands for the cell from v - s/2 to v + s/2, and what lies
    between such values for the cell that it is in. A model learns the density of values spread evenly over
    their cells. What it says of a row is the mean of its log-density over the cell: a lower bound of the
    logarithm of the cell's mass by its volume (Theis et al. 2016), so that no model gains by spikes.
    Columns without a lattice are left as they are.
    """

    columns: tuple[str, ...]
    lattices: Mapping[str, Lattice]

    @classmethod
    def of_values(cls, columns: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        """The dequantiser that `values` stand for, as `to_values` gave them.

        Raises `ValueError`, `TypeError` or `KeyError` if they are none of these.
        """
        lattices = {
            name: Lattice(float(values[name]["step"]), float(values[name]["origin"]))
            for name in columns
            if name in values
        }
        if not all(lattice.step > 0 for lattice in lattices.values()):
            raise ValueError("a `step` is not positive")
        return cls(columns, lattices)

    def to_values(self) -> dict[str, dict[str, float]]:
        """Plain values: by column, `step` and `origin`."""
        return {
            name: {"step": lattice.step, "origin": lattice.origin} for name, lattice in self.lattices.items()
        }

    def __bool__(self) -> bool:
        """Whether any column has a lattice."""
        return bool(self.lattices)

    def jitter(self, rows: Floats, generator: np.random.Generator) -> Floats:
        """Rows `(n, d)`, each value at a random place in its cell."""
        return self._moved(rows, generator.random((len(rows), len(self.lattices)))) if self else rows

    def spread(self, rows: Floats, draw: int) -> Floats:
        """Rows `(n, d)` at the place in their cells that number `draw` has for them.

        It follows from the row alone, whatever rows are beside it. Places are random from row to row, and
        those of one row are spread evenly: multiples of irrational numbers, shifted by what the row's digits
        hash to (Cranley and Patterson 1976). Draws 2k and 2k + 1 lie on either side of the middle, so that
        in their mean the slope of a function cancels (Hammersley and Morton 1956).
        """
        if not self:
            return rows
        count = len(self.lattices)
        places = (draw // 2 * _irrational(count) + _places(rows, count)) % 1.0
        return self._moved(rows, 1 - places if draw % 2 else places)

    def restore(self, rows: Floats) -> Floats:
        """Rows `(n, d)` with each value in the middle of the cell that it lies in."""
        restored = np.array(rows)
        for column, lattice in self._each():
            steps = np.rint((rows[:, column] - lattice.origin) / lattice.step)
            # As many digits as tell the cells apart, and no noise behind them.
            digits = min(max(0, 10 - int(np.floor(np.log10(lattice.step)))), 300)
            restored[:, column] = np.round(lattice.origin + lattice.step * steps, digits)
        return restored

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


def choose_dequantiser(
    names: tuple[str, ...], rows: Floats, spacings: Mapping[str, float] | None = None
) -> Dequantiser:
    """That of the columns whose `spacings` are given; without them, of those whose values tell.

    These are the columns, called `names`, in which most of the train `rows: (n, d)` share their value with
    another and the values are evenly spaced. Raises `ConfigurationError` for a column that is not there.
    """
    if spacings:
        for name in spacings:
            if name not in names:
                raise ConfigurationError(f"`spacings`: {unknown_name('column', name, names)}")
        # A value of the column gives the lattice its place.
        first = dict(zip(names, rows[0].tolist(), strict=True))
        return Dequantiser(
            names, {name: Lattice(step, first[name] % step) for name, step in spacings.items()}
        )
    found = {}
    for name, values in zip(names, rows.T, strict=True):
        if is_repeating(values) and (lattice := find_lattice(values)):
            found[name] = lattice
    return Dequantiser(names, found)


def is_repeating(values: Floats) -> bool:
    """Whether most of the `values: (n,)` can be found more than once."""
    counts = np.unique(values, return_counts=True)[1]
    return bool(counts[counts > 1].sum() > len(values) / 2)


def find_lattice(values: Floats) -> Lattice | None:
    """The widest lattice on which all `values: (n,)` lie, to within `LOOSE` of its spacing; None without one.

    Numbers that were rounded lie on one, and so do these after a shift or a change of units.
    """
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    gaps = gaps[gaps > SAME * np.abs(distinct).max()]
    if not len(gaps):
        return None
    # The least gap may be a rounded one; those about as wide tell the spacing better.
    step = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    places = np.concatenate([[0.0], np.cumsum(np.rint(np.diff(distinct) / step))])
    slope, start = np.polyfit(places, distinct, 1)
    off = _off(distinct, slope, start)
    if not off <= LOOSE:
        return None
    return _tidied(distinct, Lattice(float(slope), float(start)), min(3 * off + 1e-6, LOOSE))


def _off(distinct: Floats, step: float, origin: float) -> float:
    """How far the worst value is from its place, as a share of `step`."""
    places = (distinct - origin) / step
    return float(np.abs(places - np.rint(places)).max())


def _tidied(distinct: Floats, lattice: Lattice, allowed: float) -> Lattice:
    """A lattice, through the first value or 0, with as few digits as keep the worst within `allowed`."""
    first = float(distinct[0])
    for digits in range(1, 16):
        step = float(f"{lattice.step:.{digits}g}")
        if (off := _off(distinct, step, first)) <= allowed:
            through_zero = _off(distinct, step, 0.0) <= 1.01 * off + 1e-6
            return Lattice(step, 0.0 if through_zero else first % step)
    return lattice


def _irrational(count: int) -> Floats:
    """Numbers `(k,)` whose multiples, modulo 1, fill a cube evenly: powers of the root of r^(k+1) = r + 1.

    One over the golden ratio where k is 1 (Roberts 2018, "The unreasonable effectiveness of quasirandom
    sequences").
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (count + 1))
    return np.asarray(root ** -np.arange(1, count + 1, dtype=np.float64))


def _places(rows: Floats, count: int) -> Floats:
    """Numbers `(n, k)` from 0 to 1 that follow from the digits of each row `(n, d)`, evenly spread."""
    bits: Hashes = np.ascontiguousarray(rows + 0.0).view(np.uint64)
    column: Hashes = np.arange(1, rows.shape[1] + 1, dtype=np.uint64)
    whole: Hashes = np.bitwise_xor.reduce(_mixed(bits + column * _GOLDEN), axis=1, keepdims=True)
    mixed = _mixed(whole + np.arange(count, dtype=np.uint64) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
