"""How well draws of a conditional density foretell single values: one set of draws for each row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.statistics.calibration import Coverage, coverages

Floats = NDArray[np.float64]

#: Parts that the rows are divided into by the size of a given: low, middle and high.
TERCILES = 3


def crps(draws: Floats, values: Floats, period: float | None = None) -> Floats:
    """The continuous ranked probability score `(n,)` of `values: (n,)`, in their units; lower is better.

    E|X - y| - E|X - X'| / 2 over the `draws: (n, m)` of each row (Gneiting and Raftery 2007). The second mean
    is over pairs of different draws, so that the score of m draws has the mean of that of the density (the
    fair score of Ferro 2014). Of a column with a `period` all distances are along the circle (Grimit,
    Gneiting, Berrocal and Johnson 2006). Raises `ValueError` for fewer than two draws.
    """
    m = draws.shape[1]
    if m < 2:
        raise ValueError(f"a ranked probability score takes two draws of each row at least; got {m}")
    if period is not None:
        pairs = sum(_along(draws - np.roll(draws, shift, 1), period).sum(1) for shift in range(1, m))
        return np.asarray(_along(draws - values[:, None], period).mean(1) - pairs / (2 * m * (m - 1)))
    ascending = np.sort(draws, axis=1)
    # The sum over ordered pairs, by how many pairs each sorted draw is the larger of.
    weights = 2 * np.arange(1, m + 1) - m - 1
    apart = ascending @ weights / (m * (m - 1))
    return np.asarray(np.abs(draws - values[:, None]).mean(1) - apart)


def _along(differences: Floats, period: float) -> Floats:
    """The distances along a circle of this period, from `differences`."""
    turned = np.abs(differences) % period
    return np.minimum(turned, period - turned)


def pit(draws: Floats, values: Floats, generator: np.random.Generator) -> Floats:
    """The probability integral transform `(n,)` of `values: (n,)`: uniform where the density is right.

    The place of a value among the `draws: (n, m)` of its row, each of the m + 1 places spread evenly over its
    part of [0, 1] and equal values placed by chance (Czado, Gneiting and Held 2009).
    """
    below = (draws < values[:, None]).sum(1)
    equal = (draws == values[:, None]).sum(1)
    place = below + generator.integers(0, equal, endpoint=True)
    return np.asarray((place + generator.random(len(values))) / (draws.shape[1] + 1))


@dataclass(frozen=True)
class PartCoverage:
    """Coverage of regions in the rows whose `given` is low, middle or high: in `part` 0, 1 or 2."""

    given: str
    part: int
    coverage: Coverage


def coverages_by_tercile(ranks: Floats, givens: Floats, names: tuple[str, ...]) -> list[PartCoverage]:
    """How many rows with these `ranks: (n,)` lie in each region, by terciles of the `givens: (n, c)`.

    A rank is the share of draws, given that row's context, which are likelier than the row. A given with
    fewer than three values has no terciles and is left out.
    """
    found: list[PartCoverage] = []
    for name, values in zip(names, givens.T, strict=True):
        edges = np.quantile(values, [1 / TERCILES, 2 / TERCILES])
        if len(np.unique(values)) < TERCILES or edges[0] == edges[1]:
            continue
        part = np.searchsorted(edges, values, side="left")
        for number in range(TERCILES):
            those = ranks[part == number]
            if len(those):
                found += [PartCoverage(name, number, each) for each in coverages(those)]
    return found
