"""Columns that follow from others, values that repeat, and rows that were trained on."""

import numpy as np

from flowbench.data import Dataset, Split, load_dataset
from flowbench.data.dataset import Column, Provenance
from flowbench.data.lattice import Lattice
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.evaluation.pitfalls import find_pitfalls

#: Of no columns, so that all are left as they are.
CONTINUOUS = Dequantiser(())


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def table(rows: np.ndarray) -> tuple[Dataset, Split]:
    columns = tuple(Column(f"c{i}") for i in range(rows.shape[1]))
    dataset = Dataset("t", columns, rows, Provenance("made up", "0" * 64))
    return dataset, Split.draw(len(rows), (0.8, 0.1, 0.1), 0)


def test_repeating_values_and_rows_are_counted() -> None:
    rows = normal(1000, 2)
    rows[:, 1] = np.round(rows[:, 1], 1)
    dataset, split = table(rows)
    found = find_pitfalls(dataset, split, CONTINUOUS, 1000)
    assert list(found.repeating) == ["c1"]
    assert found.repeating["c1"] == len(np.unique(rows[:, 1]))
    assert found.repeated_test_rows == 0
    assert not find_pitfalls(dataset, split, cells(dataset, 0.1), 1000).repeating
    # In cells that are far finer than the values, spikes are possible as ever.
    assert list(find_pitfalls(dataset, split, cells(dataset, 1e-4), 1000).repeating) == ["c1"]
    dataset, split = table(np.concatenate([rows, rows]))
    assert list(find_pitfalls(dataset, split, CONTINUOUS, 1000).repeating) == ["c1"]
    repeated = find_pitfalls(dataset, split, CONTINUOUS, 1000).repeated_test_rows
    assert 0.7 * len(split.test) < repeated <= len(split.test)
    assert 0.5 * 40 < find_pitfalls(dataset, split, CONTINUOUS, 40).repeated_test_rows <= 40


def test_points_with_a_mass_are_told_by_column_and_value() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack(
        [rng.normal(size=2000), np.where(rng.random(2000) < 0.6, 0.0, rng.lognormal(size=2000))]
    )
    dataset, split = table(rows)
    found = find_pitfalls(dataset, split, CONTINUOUS, 1000)
    share = float((rows[:, 1] == 0).mean())
    assert found.atoms == {"c1": ((0.0, share),)}
    # Most rows share their value, but only with the atom's.
    assert not found.repeating
    # In cells a mass is bounded.
    assert not find_pitfalls(dataset, split, cells(dataset, 0.1), 1000).atoms
    rounded, split = table(np.round(rows, 1) + 0.5)
    assert list(find_pitfalls(rounded, split, CONTINUOUS, 1000).repeating) == ["c0", "c1"]


def test_copies_are_counted_and_draws_of_a_density_are_not_looked_at() -> None:
    rows = normal(500, 2)
    dataset, split = table(np.concatenate([rows, rows[:60], rows[:20]]))
    assert find_pitfalls(dataset, split, CONTINUOUS, 1000).copied_rows == 80
    five, split = table(np.repeat(rows, 5, axis=0))
    found = find_pitfalls(five, split, CONTINUOUS, 1000)
    # Copies stay in one part: spikes on train values gain nothing on test rows.
    assert found.copied_rows == 2000 and not found.repeating
    whole, split = table(np.random.default_rng(0).poisson(3.0, (500, 2)).astype(float))
    assert find_pitfalls(whole, split, cells(whole, 1.0, 1.0), 1000).copied_rows == 0
    toy = load_dataset("moons", rows=300)
    assert find_pitfalls(toy, Split.draw(300), CONTINUOUS, 1000).copied_rows == 0


def cells(dataset: Dataset, *steps: float) -> Dequantiser:
    names = dataset.column_names[-len(steps) :]
    return Dequantiser(
        dataset.column_names, {name: Lattice(step) for name, step in zip(names, steps, strict=True)}
    )


def test_whole_numbers_that_add_up_have_a_density_in_their_cells() -> None:
    rows = np.random.default_rng(0).poisson(5.0, (1000, 2)).astype(float)
    dataset, split = table(np.column_stack([rows, rows.sum(1)]))
    assert find_pitfalls(dataset, split, CONTINUOUS, 100).relations == (("c0", "c1", "c2"),)
    assert not find_pitfalls(dataset, split, cells(dataset, 1.0, 1.0, 1.0), 100).relations
