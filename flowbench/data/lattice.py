"""Evenly spaced values of a column, such as whole numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError

Floats = NDArray[np.float64]

#: How far a value may be from the nearest lattice point, as a share of the spacing.
LOOSE = 0.05
#: Share of the rows that have to lie on the lattice. Any other value is put into the cell that it falls into.
IN_PLACE = 0.99
#: The largest probability that values without a lattice lie as close to one by chance.
ACCIDENT = 1e-3
#: Relative difference up to which two numbers count as the same value.
SAME = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Lattice:
    """The points at `origin` plus whole multiples of `step`, data units."""

    step: float
    origin: float = 0.0

    def off(self, values: Floats) -> Floats:
        """The distances of `values: (n,)` from the nearest lattice points, as shares of `step`."""
        places = (values - self.origin) / self.step
        return np.abs(places - np.rint(places))


def is_repeating(values: Floats) -> bool:
    """Whether most of the `values: (n,)` occur more than once."""
    counts = np.unique(values, return_counts=True)[1]
    return bool(counts[counts > 1].sum() > len(values) / 2)


def find_lattice(values: Floats) -> Lattice | None:
    """The lattice on which all but a few of the `values: (n,)` lie, or None.

    Rounded numbers lie on a lattice to within `LOOSE` of its spacing, also after a shift or a change of
    units. The lattice is found from values that repeat, if the others fit it, so a stray value does not make
    it finer. Otherwise it is found from all values.
    """
    distinct, counts = np.unique(values, return_counts=True)
    for telling in (distinct[counts > 1], distinct):
        lattice = _lattice_of(telling)
        # If the values that define the lattice lie on it exactly, the others may not lie near it by chance.
        if lattice is not None and share_in_place(lattice, values, _allowed(lattice, telling)) >= IN_PLACE:
            return lattice
    return None


def lattice_of_repeats(values: Floats) -> Lattice | None:
    """The lattice of `values: (n,)` if most of them occur more than once, as rounded values do; else None."""
    return find_lattice(values) if is_repeating(values) else None


def anchored(name: str, values: Floats, step: float, where: str) -> Lattice:
    """The lattice with this `step` for the values `(n,)` of the column `name`.

    It goes through 0, or through their commonest offset. The latter is taken only if more values lie on it,
    and more than half of all. Raises `ConfigurationError`, which says `where`, for a step that the values
    cannot have.
    """
    low, high = float(values.min()), float(values.max())
    if not 1e3 * SAME * max(abs(low), abs(high)) <= step <= high - low:
        raise ConfigurationError(
            f"{where}: a spacing of {step:g} is too {'wide' if step > high - low else 'fine'} for the "
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


def share_in_place(lattice: Lattice, values: Floats, allowed: float) -> float:
    """The share of the `values: (n,)` that are off the lattice by at most `allowed` of the spacing."""
    return float((lattice.off(values) <= allowed).mean())


def _allowed(lattice: Lattice, values: Floats) -> float:
    """How far other values may be off a lattice that is found from these `values: (m,)`."""
    return min(3 * float(lattice.off(values).max()) + 1e-6, LOOSE)


def _lattice_of(distinct: Floats) -> Lattice | None:
    """The lattice of all of the ascending values `(m,)`, or None."""
    gaps = np.diff(distinct)
    wide = gaps > SAME * np.abs(distinct).max(initial=0.0)
    if not wide.any():
        return None
    # The smallest gap may be rounded; the median of gaps of about that width is a better spacing.
    least = gaps[wide & (gaps < 1.5 * gaps[wide].min())]
    step = float(np.median(least))
    places = np.concatenate([[0.0], np.cumsum(np.rint(gaps / step))])
    slope, start = (float(each) for each in np.polyfit(places, distinct, 1))
    # A line through all points is the best estimate, unless a value off the lattice has bent it.
    if abs(slope - step) > np.ptp(least) / 2 + 1e-6 * step:
        slope, start = step, float(distinct[0])
    lattice = Lattice(slope, start)
    off = float(lattice.off(distinct).max())
    # Any two values define a lattice; the fit of the others must not be explained by chance.
    if off > LOOSE or (len(distinct) > 2 and (2 * off) ** (len(distinct) - 2) > ACCIDENT):
        return None
    return _tidied(distinct, lattice, _allowed(lattice, distinct))


def _tidied(distinct: Floats, lattice: Lattice, allowed: float) -> Lattice:
    """A lattice with as few digits as keep the distance of the worst value within `allowed`.

    It goes through 0 if that fits as well as through the first of the `distinct` values.
    """
    first = float(distinct[0])
    for digits in range(1, 16):
        step = float(f"{lattice.step:.{digits}g}")
        if (off := Lattice(step, first).off(distinct).max()) <= allowed:
            through_zero = Lattice(step).off(distinct).max() <= 1.01 * off + 1e-6
            return Lattice(step, 0.0 if through_zero else first % step)
    return lattice
