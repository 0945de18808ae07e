"""Values and rows that occur more than once, and whether that is to be expected."""

import numpy as np
from numpy.typing import NDArray

from flowbench.data.lattice import Lattice, find_lattice, is_repeating
from flowbench.data.row_hashes import hash_rows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: The share of the rows that an atom has at least, and its least ratio to the typical count of other values.
#: Counts of rounded values vary by less, also for densities with heavy tails.
ATOM_SHARE, ATOM_EXCESS = 0.01, 8
#: Where other values hold more than this share of the rows each, all values repeat alike.
TYPICAL_SHARE = 0.05
#: Rows that are hashed at once.
_BLOCK = 2**16
#: Stands for a missing value among others.
_MISSING = -1.1125369292536007e308
#: With more lattice cells than this for each distinct value, a density can still have spikes at the values.
SPARSE = 20


def find_atoms(values: Floats) -> tuple[tuple[float, float], ...]:
    """The atoms of `values: (n,)`, NaN where missing: values with a probability of their own, and shares.

    They are sorted by share, largest first. Each atom has at least `ATOM_SHARE` of the rows and at least
    `ATOM_EXCESS` times a typical count. Three quarters of the other rows have a value with at most the
    typical count, which is itself below `TYPICAL_SHARE` of the rows. There are no atoms if all values repeat
    alike, as whole numbers do, or if there are hardly any other values.
    """
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    held = np.cumsum(counts)
    least = max(ATOM_SHARE * len(values), ATOM_EXCESS)
    # With only a few other values, as in the tails of whole numbers, there is no typical count.
    for size in range(min(int((counts >= least).sum()), len(counts) - ATOM_EXCESS), 0, -1):
        # A quarter of the other rows have a value that is at least as frequent.
        typical = counts[np.searchsorted(held, 0.75 * held[size - 1] + 0.25 * held[-1])]
        if typical < max(least, TYPICAL_SHARE * len(values)) and counts[size - 1] >= ATOM_EXCESS * typical:
            found = order[:size]
            shares = counts[:size] / len(values)
            return tuple(zip(distinct[found].tolist(), shares.tolist(), strict=True))
    return ()


def is_atom(values: Floats) -> NDArray[np.bool_]:
    """Which of the `values: (n,)` are atoms: `(n,)`."""
    return np.isin(values, [value for value, _ in find_atoms(values)])


def fills(lattice: Lattice | None, values: Floats) -> bool:
    """Whether `values: (n,)` occupy a fair share of a lattice's cells; false without a lattice."""
    if lattice is None:
        return False
    return bool(np.ptp(values) / lattice.step <= SPARSE * len(np.unique(values)))


def number_rows(rows: Floats) -> Integers:
    """Numbers `(n,)` that are equal for two of the `rows: (n, d)` if all of their values are.

    Missing values, NaN, are equal.
    """
    if np.isnan(rows).any():
        rows = np.where(np.isnan(rows), _MISSING, rows)
    # Block by block, since hashing takes several times the memory of the rows; `+ 0.0` removes negative
    # zeros.
    blocks = np.array_split(rows, len(rows) // _BLOCK + 1)
    hashes = np.concatenate([hash_rows(block + 0.0).reshape(-1) for block in blocks])
    if len(np.unique(hashes)) == len(rows):
        return np.arange(len(rows))
    _, first, numbers = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first[numbers]], rows):  # rows that differ share a hash
        numbers = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers.astype(np.int64)


def find_copies(rows: Floats) -> Integers:
    """The index `(n,)` of the first row that each of the `rows: (n, d)` copies; its own if there is none.

    Identical rows count as copies if one of their values is unlikely to repeat by chance. A value is unlikely
    to repeat if it is no atom, that is, no value which many rows share, and if most other values of its
    column occur once among the distinct rows. All other identical rows count as equal by chance. Examples
    are rows of atoms, and rows of whole numbers in columns that all hold repeats.

    In a table of one column the values of distinct rows are distinct, so that their repeats tell nothing.
    There, equal values count as chance if the values occupy most points of an even spacing.
    """
    alone = np.arange(len(rows))
    numbers = number_rows(rows)
    first = np.unique(numbers, return_index=True)[1]
    if len(first) == len(rows):
        return alone
    by_chance = np.ones(len(rows), dtype=np.bool_)
    for values in rows.T:
        atoms = is_atom(values) | np.isnan(values)
        others = values[first][~atoms[first]]
        repeating = fills(find_lattice(others), others) if rows.shape[1] == 1 else is_repeating(others)
        by_chance &= atoms | repeating
    return np.where(by_chance, alone, first[numbers])


def unite_groups(first: Integers, second: Integers) -> Integers:
    """Groups `(n,)` that join rows with the same number in `first: (n,)` or in `second: (n,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = (np.unique(each, return_inverse=True)[1] for each in (first, second))
    count = int(one.max()) + 1
    size = count + int(other.max()) + 1
    joined = coo_array((np.ones(len(one), dtype=np.int8), (one, count + other)), shape=(size, size))
    labels = connected_components(joined, directed=False)[1]
    return np.asarray(labels[one], dtype=np.int64)
