"""Columns that follow from others, values that repeat, and rows that were trained on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowbench.data import Dataset, Split, load_dataset
from flowbench.data.dataset import Column, Provenance
from flowbench.data.lattice import Lattice
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.evaluation.pitfalls import find_pitfalls, find_relations

#: Of no columns, so that all are left as they are.
CONTINUOUS = Dequantiser(())


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def table(rows: np.ndarray) -> tuple[Dataset, Split]:
    columns = tuple(Column(f"c{i}") for i in range(rows.shape[1]))
    dataset = Dataset("t", columns, rows, Provenance("made up", "0" * 64))
    return dataset, Split.draw(len(rows), (0.8, 0.1, 0.1), 0)


RELATIONS = {
    "sum": lambda a, b: 3 * a - 2 * b + 7,
    "product": lambda a, b: (a + 4) * (b - 9),
    "quotient": lambda a, b: (a + 1) / (b + 12) - 5,
    "square": lambda a, b: a**2 + 0 * b,
}


@pytest.mark.parametrize("name", RELATIONS)
@settings(max_examples=settings().max_examples // 5)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_a_column_that_follows_from_others_is_found(name: str, seed: int, scale: float) -> None:
    rows = normal(2000, 5, seed)
    rows[:, 3] = scale * RELATIONS[name](rows[:, 0], rows[:, 1])
    expected = (0, 3) if name == "square" else (0, 1, 3)
    assert find_relations(rows) == [expected]


def test_a_little_noise_makes_it_no_relation() -> None:
    rows = normal(5000, 4)
    rows[:, 3] = rows[:, 0] * rows[:, 1] + 1e-3 * normal(5000, 1, 1)[:, 0]
    assert find_relations(rows) == []


@pytest.mark.parametrize("name", ["moons", "iris", "wine", "breast-cancer", "diabetes"])
def test_tables_without_relations_have_none(name: str) -> None:
    rows = load_dataset(name, rows=5000 if name == "moons" else None).rows
    assert find_relations(rows) == []


def test_relations_of_different_columns_stay_apart() -> None:
    rows = normal(5000, 7)
    rows[:, 2] = rows[:, 0] + rows[:, 1]
    rows[:, 5] = rows[:, 3] - rows[:, 4]
    assert sorted(find_relations(rows)) == [(0, 1, 2), (3, 4, 5)]
    rows[:, 6] = 2 * rows[:, 0]
    assert (0, 6) in find_relations(rows)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
@settings(max_examples=settings().max_examples // 5)
def test_columns_of_two_values_are_not_related(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.random((3000, count)) < 0.3, rng.standard_normal((3000, 2))], 1).astype(float)
    assert find_relations(rows) == []


def test_a_single_extreme_value_relates_nothing() -> None:
    rows = normal(3000, 4)
    rows[7, 2] = 1e6
    assert find_relations(rows) == []


def test_few_rows_tell_nothing() -> None:
    assert find_relations(normal(10, 5)) == []


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


def test_proteins_third_column_follows_from_the_first_two(shared_data: Path) -> None:
    rows = np.loadtxt(shared_data / "protein" / "protein.csv.gz", delimiter=",")
    assert find_relations(rows[:, :9]) == [(0, 1, 2)]
    assert find_relations(np.delete(rows, 2, 1)) == []
