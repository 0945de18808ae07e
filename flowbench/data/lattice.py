"""Evenly spaced values of a column, such as whole numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: How far a value may be from its place, as a share of the spacing.
LOOSE = 0.05
#: Share of the rows that have to be in their places: a stray value is put into the cell that it falls in.
IN_PLACE = 0.99
#: Chance that values of no lattice lie as close to one, above which they are taken for such.
ACCIDENT = 1e-3
#: Digits that two numbers of one value may differ in, relative to the largest.
SAME = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Lattice:
    """Where a column's values lie: at `origin` plus whole multiples of `step`, data units."""

    step: float
    origin: float = 0.0

    def off(self, values: Floats) -> Floats:
        """How far `values: (n,)` are from their places, as shares of `step`."""
        places = (values - self.origin) / self.step
        return np.abs(places - np.rint(places))


def is_repeating(values: Floats) -> bool:
    """Whether most of the `values: (n,)` can be found more than once."""
    counts = np.unique(values, return_counts=True)[1]
    return bool(counts[counts > 1].sum() > len(values) / 2)


def find_lattice(values: Floats) -> Lattice | None:
    """The lattice on which all but a few of the `values: (n,)` lie; None where there is none.

    Numbers that were rounded lie on one to within `LOOSE` of its spacing, and so do these after a shift or a
    change of units. Values that repeat tell it, where others fit; a stray one does not make it finer.
    """
    distinct, counts = np.unique(values, return_counts=True)
    for telling in (distinct[counts > 1], distinct):
        lattice = _lattice_of(telling)
        # Where the telling values are in their places exactly, the others may not be so by accident.
        if lattice is not None and share_in_place(lattice, values, _allowed(lattice, telling)) >= IN_PLACE:
            return lattice
    return None


def share_in_place(lattice: Lattice, values: Floats, allowed: float) -> float:
    """The share of the `values: (n,)` that are off by `allowed` of the spacing at most."""
    return float((lattice.off(values) <= allowed).mean())


def _allowed(lattice: Lattice, values: Floats) -> float:
    """How far others may be off on a lattice that these `values: (m,)` lie on."""
    return min(3 * float(lattice.off(values).max()) + 1e-6, LOOSE)


def _lattice_of(distinct: Floats) -> Lattice | None:
    """The lattice of all of the ascending values `(m,)`."""
    gaps = np.diff(distinct)
    wide = gaps > SAME * np.abs(distinct).max(initial=0.0)
    if not wide.any():
        return None
    # The least gap may be a rounded one; those about as wide tell the spacing better.
    least = gaps[wide & (gaps < 1.5 * gaps[wide].min())]
    step = float(np.median(least))
    places = np.concatenate([[0.0], np.cumsum(np.rint(gaps / step))])
    slope, start = (float(each) for each in np.polyfit(places, distinct, 1))
    # All places together tell it best, unless a value that is out of place has bent them.
    if abs(slope - step) > np.ptp(least) / 2 + 1e-6 * step:
        slope, start = step, float(distinct[0])
    lattice = Lattice(slope, start)
    off = float(lattice.off(distinct).max())
    # Any two values give a spacing and an origin; that the others fit so well has to be no accident.
    if off > LOOSE or (len(distinct) > 2 and (2 * off) ** (len(distinct) - 2) > ACCIDENT):
        return None
    return _tidied(distinct, lattice, _allowed(lattice, distinct))


def _tidied(distinct: Floats, lattice: Lattice, allowed: float) -> Lattice:
    """A lattice, through the first value or 0, with as few digits as keep the worst within `allowed`."""
    first = float(distinct[0])
    for digits in range(1, 16):
        step = float(f"{lattice.step:.{digits}g}")
        if (off := Lattice(step, first).off(distinct).max()) <= allowed:
            through_zero = Lattice(step).off(distinct).max() <= 1.01 * off + 1e-6
            return Lattice(step, 0.0 if through_zero else first % step)
    return lattice
