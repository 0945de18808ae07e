"""What in a table can make likelihoods say less than they seem to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from flowbench.data.dataset import Dataset, Split
from flowbench.data.lattice import is_repeating
from flowbench.data.repeats import fills, find_atoms, find_copies, is_atom, number_rows
from flowbench.encoding.dequantiser import Dequantiser

Floats = NDArray[np.float64]

#: Rows that relations are sought in, and columns up to which products of two are among them.
RELATION_ROWS = 20_000
PRODUCT_COLUMNS = 30
#: Standard deviation, in units of the terms that it is made of, below which a sum of terms is constant.
CONSTANT = 1e-4
#: Spans between the 5th and the 95th percentile that a value may be from its column's middle.
FAR = 5.0
#: Share that a term has to have in a relation for its columns to be named.
NAMED = 1e-2


@dataclass(frozen=True)
class Pitfalls:
    """Columns that determine one another, values and rows that repeat, and test rows that were trained on.

    `relations` are groups of columns of which one follows exactly from the others, also when each is
    dequantised; `repeating` gives, for each column in which most rows share their value with another and that
    is not dequantised, or in cells of which hardly any holds a value, how many different values there are;
    `atoms` gives, for each column that is not dequantised and in which single values hold many rows while the
    others do not, pairs of such a value and its share of the rows. Neither these nor copies of rows, which no
    split tears apart, count for `repeating`;
    `repeated_test_rows` counts the scored test rows that are, digit by digit, also train rows, and
    `copied_rows` all that repeat another although its values are not to be expected twice.
    """

    relations: tuple[tuple[str, ...], ...]
    repeating: dict[str, int]
    atoms: dict[str, tuple[tuple[float, float], ...]]
    repeated_test_rows: int
    copied_rows: int


def find_pitfalls(dataset: Dataset, split: Split, dequantiser: Dequantiser, test_rows: int) -> Pitfalls:
    """What there is of them in `dataset`, of whose `split` the first `test_rows` test rows are scored."""
    names = dataset.column_names
    train = dataset.rows[split.train][:RELATION_ROWS]
    found = find_relations(dequantiser.jitter(train, np.random.default_rng(0)))
    originals = _without_copies(dataset)
    return Pitfalls(
        relations=tuple(tuple(names[i] for i in group) for group in found),
        repeating=_repeating(dataset, originals, dequantiser),
        atoms=_atoms(dataset, dequantiser),
        repeated_test_rows=_repeated(dataset.rows[split.train], dataset.rows[split.test[:test_rows]]),
        copied_rows=len(dataset.rows) - len(originals),
    )


def find_relations(rows: Floats) -> list[tuple[int, ...]]:
    """Groups of columns of `rows: (n, d)` of which a sum of multiples, squares and products is constant.

    A column that is a sum, a difference, a product or a quotient of others gives one, also where each of
    them was shifted or scaled. Where there are many columns or few rows, products are left out.
    """
    rows = rows[_ordinary(rows)]
    n, d = rows.shape
    spread = rows.std(0)
    columns = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1)
    # The square of a column of two values is a multiple of it, which is no matter of other columns.
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
            # With a known relation in it, a further one says nothing new.
            if len(group) > 1 and not any(set(known) <= set(group) for known in found):
                found.append(group)
    return found


def _ordinary(rows: Floats) -> NDArray[np.bool_]:
    """Rows `(n,)` without a value that is far from its column's others: beside it these are all alike."""
    low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], axis=0)
    reach = np.where(high > low, high - low, np.inf)
    return np.asarray((np.abs(rows - middle) <= FAR * reach).all(1))


def _constant_sums(values: Floats) -> Floats:
    """Weights `(k, m)` of the sums of the columns of `values: (n, m)` that are constant.

    In reduced echelon form, each scaled to a largest weight of 1, so that relations of different columns stay
    apart where there are several.
    """
    variances, vectors = np.linalg.eigh(values.T @ values / len(values))
    null = vectors[:, variances < CONSTANT**2].T
    if not len(null):
        return null
    _, triangle, order = qr(null, pivoting=True)
    reduced = np.empty_like(null)
    reduced[:, order] = np.linalg.solve(triangle[:, : len(null)], triangle)
    return np.asarray(reduced / np.abs(reduced).max(1, keepdims=True))


def _repeating(dataset: Dataset, rows: Floats, dequantiser: Dequantiser) -> dict[str, int]:
    return {
        name: len(np.unique(values))
        for name, values in zip(dataset.column_names, rows.T, strict=True)
        if is_repeating(values[~is_atom(values)]) and not fills(dequantiser.lattices.get(name), values)
    }


def _atoms(dataset: Dataset, dequantiser: Dequantiser) -> dict[str, tuple[tuple[float, float], ...]]:
    columns = zip(dataset.column_names, dataset.rows.T, strict=True)
    found = {name: find_atoms(values) for name, values in columns if name not in dequantiser.lattices}
    return {name: atoms for name, atoms in found.items() if atoms}


def _repeated(train: Floats, test: Floats) -> int:
    numbers = number_rows(np.concatenate([train, test]))
    return int(np.isin(numbers[len(train) :], numbers[: len(train)]).sum())


def _without_copies(dataset: Dataset) -> Floats:
    # Draws of a density are never the same, and there may be a million of them.
    if dataset.density is not None:
        return dataset.rows
    return dataset.rows[np.unique(find_copies(dataset.rows))]
