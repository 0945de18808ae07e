"""Columns that follow from others."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowbench.data import load_dataset
from flowbench.data.relations import find_following, find_relations


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


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


def test_a_group_that_contains_another_is_left_out() -> None:
    rows = normal(3000, 5)
    rows[:, 1] = 2 * rows[:, 0] + 1
    rows[:, 3] = rows[:, 2] + rows[:, 4] - rows[:, 1]
    found = find_relations(rows)
    assert (0, 1) in found
    assert not any(set(one) < set(other) for one in found for other in found)


def test_levels_that_follow_from_others() -> None:
    random = np.random.default_rng(0)
    city = random.integers(0, 6, 600)
    land = city // 2
    codes = {"city": city, "land": land, "code": 5 - city, "other": random.integers(0, 2, 600)}
    assert set(find_following(codes)) == {
        ("city", "land"), ("code", "land"), ("city", "code"), ("code", "city"),
    }  # fmt: skip
    # A cell without a value tells nothing; a single exception does.
    gaps = np.where(random.random(600) < 0.3, -1, land)
    assert find_following({"city": city, "land": gaps}) == [("city", "land")]
    land[0] = (land[0] + 1) % 3
    assert find_following({"city": city, "land": land}) == []
    # Levels of a few rows follow from many others by chance.
    many = np.arange(600) // 2
    assert find_following({"many": many, "pairs": many % 2}) == []


def test_a_single_extreme_value_relates_nothing() -> None:
    rows = normal(3000, 4)
    rows[7, 2] = 1e6
    assert find_relations(rows) == []


def test_few_rows_tell_nothing() -> None:
    assert find_relations(normal(10, 5)) == []


def test_proteins_third_column_follows_from_the_first_two(shared_data: Path) -> None:
    rows = np.loadtxt(shared_data / "protein" / "protein.csv.gz", delimiter=",")
    assert find_relations(rows[:, :9]) == [(0, 1, 2)]
    assert find_relations(np.delete(rows, 2, 1)) == []
