"""Properties of a table that make its likelihoods misleading."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.data.dataset import Dataset, Split
from flowbench.data.lattice import is_repeating
from flowbench.data.relations import RELATION_ROWS, find_relations
from flowbench.data.repeats import fills, find_atoms, find_copies, is_atom, number_rows
from flowbench.encoding.dequantiser import Dequantiser

Floats = NDArray[np.float64]


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
    names, targets = dataset.own_names, dataset.target_names
    train = dataset.rows[split.train][:, : len(names)]
    train = train[~np.isnan(train).any(1)][:RELATION_ROWS]
    modelled = [names.index(name) for name in targets]
    jittered = train.copy()
    jittered[:, modelled] = dequantiser.jitter(
        torch.tensor(train[:, modelled]), np.random.default_rng(0)
    ).numpy()
    # Givens may determine one another: nothing is learnt of their density.
    groups = find_relations(jittered) if len(jittered) > 1 else []
    found = [group for group in groups if set(group) & set(modelled)]
    originals = _without_copies(dataset)
    return Pitfalls(
        relations=tuple(tuple(names[i] for i in group) for group in found),
        repeating=_repeating(targets, originals[:, modelled], dequantiser),
        atoms={
            name: each
            for name, each in _atoms(targets, dataset.targets, dequantiser).items()
            if name not in dataset.atoms
        },
        repeated_test_rows=_repeated(dataset.rows[split.train], dataset.rows[split.test[:test_rows]]),
        copied_rows=len(dataset.rows) - len(originals),
    )


def _repeating(names: tuple[str, ...], rows: Floats, dequantiser: Dequantiser) -> dict[str, int]:
    found = {}
    for name, column in zip(names, rows.T, strict=True):
        values = column[~np.isnan(column)]
        if is_repeating(values[~is_atom(values)]) and not fills(dequantiser.lattices.get(name), values):
            found[name] = len(np.unique(values))
    return found


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
