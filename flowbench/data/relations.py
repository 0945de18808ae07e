"""Columns of which one follows exactly from the others."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: The most rows in which relations are looked for, and the most columns for which products of two count.
RELATION_ROWS = 20_000
PRODUCT_COLUMNS = 30
#: A sum of terms, each with unit variance, is constant if its standard deviation is below this.
CONSTANT = 1e-4
#: A value is far from its column's median if the distance is above this many times the range from the 5th
#: to the 95th percentile.
FAR = 5.0
#: The least weight, beside a largest weight of 1, with which a term belongs to a relation.
NAMED = 1e-2
#: The most columns of levels that are compared, and the fewest rows that hold each level of one that follows.
LEVEL_COLUMNS, FEWEST_OF_A_LEVEL = 30, 5
#: The fewest rows for each level of a column from which another may follow.
ROWS_FOR_A_LEVEL = 10


def find_relations(rows: Floats) -> list[tuple[int, ...]]:
    """Groups of columns of `rows: (n, d)` that satisfy an equation of degree one or two.

    A weighted sum of columns, and of their squares and products, is then constant. A column that is a sum, a
    difference, a product or a quotient of others makes such a group, even if each is shifted or scaled.
    Products are left out for many columns or few rows.
    """
    # Powers of two keep all digits, and sums do not overflow.
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(0))[1])
    rows = rows[_ordinary(rows)]
    n, d = rows.shape
    spread = rows.std(0)
    columns = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1)
    # The square of a column of two values follows from the column itself, not from other columns.
    squared = [i for i in range(d) if len(np.unique(rows[:, i])) > 2]
    pairs = [(i, j) for i in range(d) for j in range(i, d) if i != j or i in squared]
    sets: list[list[tuple[int, ...]]] = [[(i,) for i in range(d)]]
    if d <= PRODUCT_COLUMNS:
        sets.append([*sets[0], *pairs])
    found: list[tuple[int, ...]] = []
    for terms in sets:
        if n < 4 * len(terms):
            continue
        values = np.stack([columns[:, list(term)].prod(1) for term in terms], 1)
        values -= values.mean(0)
        varies = values.std(0) > CONSTANT
        kept = [term for term, keep in zip(terms, varies, strict=True) if keep]
        values = values[:, varies] / values[:, varies].std(0)
        for weights in _constant_sums(values):
            heavy = [term for term, weight in zip(kept, weights, strict=True) if abs(weight) > NAMED]
            group = tuple(sorted({i for term in heavy for i in term}))
            if len(group) > 1 and group not in found:
                found.append(group)
    # A group that contains another says nothing new.
    return [group for group in found if not any(set(other) < set(group) for other in found)]


def _ordinary(rows: Floats) -> NDArray[np.bool_]:
    """Which rows `(n,)` have no value far from its column's median.

    Beside a far value, the others have next to no variance.
    """
    low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], axis=0)
    reach = np.where(high > low, high - low, np.inf)
    return np.asarray((np.abs(rows - middle) <= FAR * reach).all(1))


def _constant_sums(values: Floats) -> Floats:
    """Linear combinations of the columns of `values: (n, m)` that are zero, or nearly, in every row.

    The columns have mean zero. Returns the coefficients `(k, m)` of a basis of these combinations. The basis
    is brought to reduced row echelon form, so that relations among different columns are not mixed. Each row
    is then divided by its largest magnitude.
    """
    from scipy.linalg import qr

    variances, vectors = np.linalg.eigh(values.T @ values / len(values))
    null = vectors[:, variances < CONSTANT**2].T
    if not len(null):
        return null
    _, triangle, order = qr(null, pivoting=True)
    reduced = np.empty_like(null)
    reduced[:, order] = np.linalg.solve(triangle[:, : len(null)], triangle)
    return np.asarray(reduced / np.abs(reduced).max(1, keepdims=True))


def find_following(codes: Mapping[str, Integers]) -> list[tuple[str, str]]:
    """Pairs of columns of levels of which the second follows from the first: each level has only one there.

    `codes` are the levels of each row, `(n,)`, from 0, or -1 where there is none. Levels that few rows hold
    tell nothing.
    """
    names = list(codes)[:LEVEL_COLUMNS]
    return [
        (first, second)
        for first in names
        for second in names
        if first != second and _follows(codes[first], codes[second])
    ]


def _follows(first: Integers, second: Integers) -> bool:
    known = (first >= 0) & (second >= 0)
    first, second = first[known], second[known]
    k = len(np.unique(first))
    held = np.unique(second, return_counts=True)[1]
    if len(held) < 2 or held.min() < FEWEST_OF_A_LEVEL or k * ROWS_FOR_A_LEVEL > len(first):
        return False
    return len(np.unique(first * (second.max() + 1) + second)) == k
