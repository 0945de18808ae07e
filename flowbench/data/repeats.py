"""Values and rows that can be found more than once, and whether that is to be expected."""

import numpy as np
from numpy.typing import NDArray

from flowbench.data.lattice import Lattice, find_lattice, is_repeating
from flowbench.data.row_hashes import hash_rows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Share of the rows that a value has to hold to be an atom, and how many times as many of them as a value
#: of the other rows typically does: rounded values scatter by less, also where their density has heavy tails.
ATOM_SHARE, ATOM_EXCESS = 0.01, 8
#: Rows that are hashed together.
_BLOCK = 2**16
#: Cells for each value in them beyond which a density can spike on values nevertheless.
SPARSE = 20


def find_atoms(values: Floats) -> tuple[tuple[float, float], ...]:
    """Values that hold so many of the `values: (n,)` that they are points with a mass, and their shares.

    Largest first. They are the most frequent values, as many as hold `ATOM_SHARE` of the rows each and
    `ATOM_EXCESS` times as many rows as the value of three other rows in four, which holds less than that.
    Where all values repeat alike, as whole numbers do, or there are hardly any others, there is none.
    """
    distinct, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    held = np.cumsum(counts)
    least = max(ATOM_SHARE * len(values), ATOM_EXCESS)
    # Of a handful of other values, as in the tails of whole numbers, none is typical.
    for size in range(min(int((counts >= least).sum()), len(counts) - ATOM_EXCESS), 0, -1):
        # A quarter of the other rows hold a value that is as frequent or more.
        typical = counts[np.searchsorted(held, 0.75 * held[size - 1] + 0.25 * held[-1])]
        if typical < least and counts[size - 1] >= ATOM_EXCESS * typical:
            found = order[:size]
            shares = counts[:size] / len(values)
            return tuple(zip(distinct[found].tolist(), shares.tolist(), strict=True))
    return ()


def is_atom(values: Floats) -> NDArray[np.bool_]:
    """Which of the `values: (n,)` are atoms: `(n,)`."""
    return np.isin(values, [value for value, _ in find_atoms(values)])


def fills(lattice: Lattice | None, values: Floats) -> bool:
    """Whether the `values: (n,)` are in a fair share of a lattice's cells; false without a lattice."""
    if lattice is None:
        return False
    return bool(np.ptp(values) / lattice.step <= SPARSE * len(np.unique(values)))


def number_rows(rows: Floats) -> Integers:
    """Numbers `(n,)` that two of the `rows: (n, d)` share where all of their values are the same."""
    # Block by block, since a hash takes several times the memory of its rows; and without negative zeros.
    blocks = np.array_split(rows, len(rows) // _BLOCK + 1)
    hashes = np.concatenate([hash_rows(block + 0.0).reshape(-1) for block in blocks])
    if len(np.unique(hashes)) == len(rows):
        return np.arange(len(rows))
    _, first, numbers = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first[numbers]], rows):  # different rows with one hash
        numbers = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers.astype(np.int64)


def find_copies(rows: Floats) -> Integers:
    """The numbers `(n,)`, counted from 0, of the first of the `rows: (n, d)` that each is a copy of.

    Identical rows are copies where a value of theirs is not to be expected twice: it is no atom, and most
    other values of its column differ among distinct rows. Rows of whole numbers that repeat in every column,
    or of atoms, are the same by chance, and each has its own number. A single column has to fill an
    even spacing for that, since its distinct rows never repeat.
    """
    alone = np.arange(len(rows))
    numbers = number_rows(rows)
    first = np.unique(numbers, return_index=True)[1]
    if len(first) == len(rows):
        return alone
    by_chance = np.ones(len(rows), dtype=np.bool_)
    for values in rows.T:
        atoms = is_atom(values)
        others = values[first][~atoms[first]]
        repeating = fills(find_lattice(others), others) if rows.shape[1] == 1 else is_repeating(others)
        by_chance &= atoms | repeating
    return np.where(by_chance, alone, first[numbers])


def unite_groups(first: Integers, second: Integers) -> Integers:
    """Groups `(n,)` in which two rows are together that share a number in `first` or `second: (n,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = (np.unique(each, return_inverse=True)[1] for each in (first, second))
    count = int(one.max()) + 1
    size = count + int(other.max()) + 1
    joined = coo_array((np.ones(len(one), dtype=np.int8), (one, count + other)), shape=(size, size))
    labels = connected_components(joined, directed=False)[1]
    return np.asarray(labels[one], dtype=np.int64)
