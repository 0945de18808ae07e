"""Properties of a table that make its likelihoods misleading."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr

from flowbench.data.dataset import Dataset, Split
from flowbench.data.lattice import is_repeating
from flowbench.data.repeats import fills, find_atoms, find_copies, is_atom, number_rows
from flowbench.encoding.dequantiser import Dequantiser

Floats = NDArray[np.float64]

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


@dataclass(frozen=True)
class Pitfalls:
    """Columns that determine one another, values and rows that repeat, and test rows that were trained on.

    `relations` are groups of columns of which one follows exactly from the others, even if each is
    dequantised. `repeating` holds the number of different values of a column in which most rows share their
    value with another row. The column is not dequantised, or hardly any of its cells holds a value. Copies of
    rows, which stay in one part of a split, and atoms do not count.

    `atoms` belong to a column that is not dequantised, in which single values hold many rows and the other
    values do not. They are pairs of such a value and its share of the rows. `repeated_test_rows` is the
    number of scored test rows that equal a train row in every digit. `copied_rows` is the number of rows that
    repeat another row whose values are not expected twice.
    """

    relations: tuple[tuple[str, ...], ...]
    repeating: dict[str, int]
    atoms: dict[str, tuple[tuple[float, float], ...]]
    repeated_test_rows: int
    copied_rows: int


def find_pitfalls(dataset: Dataset, split: Split, dequantiser: Dequantiser, test_rows: int) -> Pitfalls:
    """The pitfalls of `dataset`, of whose `split` the first `test_rows` test rows are scored."""
    names, targets = dataset.column_names, dataset.target_names
    train = dataset.rows[split.train][:RELATION_ROWS]
    modelled = [names.index(name) for name in targets]
    jittered = train.copy()
    jittered[:, modelled] = dequantiser.jitter(
        torch.tensor(train[:, modelled]), np.random.default_rng(0)
    ).numpy()
    # Givens may determine one another: nothing is learnt of their density.
    found = [group for group in find_relations(jittered) if set(group) & set(modelled)]
    originals = _without_copies(dataset)
    return Pitfalls(
        relations=tuple(tuple(names[i] for i in group) for group in found),
        repeating=_repeating(targets, originals[:, modelled], dequantiser),
        atoms=_atoms(targets, dataset.targets, dequantiser),
        repeated_test_rows=_repeated(dataset.rows[split.train], dataset.rows[split.test[:test_rows]]),
        copied_rows=len(dataset.rows) - len(originals),
    )


def find_relations(rows: Floats) -> list[tuple[int, ...]]:
    """Groups of columns of `rows: (n, d)` that satisfy an equation of degree one or two.

    A weighted sum of columns, and of their squares and products, is then constant. A column that is a sum, a
    difference, a product or a quotient of others makes such a group, even if each is shifted or scaled.
    Products are left out for many columns or few rows.
    """
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
            # A group that contains a known relation says nothing new.
            if len(group) > 1 and not any(set(known) <= set(group) for known in found):
                found.append(group)
    return found


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
    variances, vectors = np.linalg.eigh(values.T @ values / len(values))
    null = vectors[:, variances < CONSTANT**2].T
    if not len(null):
        return null
    _, triangle, order = qr(null, pivoting=True)
    reduced = np.empty_like(null)
    reduced[:, order] = np.linalg.solve(triangle[:, : len(null)], triangle)
    return np.asarray(reduced / np.abs(reduced).max(1, keepdims=True))


def _repeating(names: tuple[str, ...], rows: Floats, dequantiser: Dequantiser) -> dict[str, int]:
    return {
        name: len(np.unique(values))
        for name, values in zip(names, rows.T, strict=True)
        if is_repeating(values[~is_atom(values)]) and not fills(dequantiser.lattices.get(name), values)
    }


def _atoms(
    names: tuple[str, ...], rows: Floats, dequantiser: Dequantiser
) -> dict[str, tuple[tuple[float, float], ...]]:
    columns = zip(names, rows.T, strict=True)
    found = {name: find_atoms(values) for name, values in columns if name not in dequantiser.lattices}
    return {name: atoms for name, atoms in found.items() if atoms}


def _repeated(train: Floats, test: Floats) -> int:
    numbers = number_rows(np.concatenate([train, test]))
    return int(np.isin(numbers[len(train) :], numbers[: len(train)]).sum())


def _without_copies(dataset: Dataset) -> Floats:
    # Draws of a density never repeat, and there may be a million of them.
    if dataset.density is not None:
        return dataset.rows
    return dataset.rows[np.unique(find_copies(dataset.rows))]
