"""Lattices are found as they are, and cells are filled evenly, row by row, and left again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flowbench.data import load_dataset
from flowbench.data.dequantise import (
    CONTINUOUS,
    Dequantiser,
    Lattice,
    choose_dequantiser,
    find_lattice,
    is_repeating,
)
from flowbench.errors import ConfigurationError

BOTH = Dequantiser(("a", "b", "c"), {"a": Lattice(1.0), "c": Lattice(0.5, 0.2)})
steps = st.sampled_from([1.0, 2.0, 25.0, 0.1, 0.01, 0.25, 1 / 60, 1e-7, 3e5, 0.0953])
whole = st.lists(st.integers(-300, 300), min_size=3, max_size=40)


def names(rows: np.ndarray) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(rows.shape[1]))


@given(steps, whole, st.floats(-1, 1))
def test_a_lattice_that_is_there_is_found(step: float, places: list[int], shift: float) -> None:
    # Neighbours in it make the spacing known.
    values = step * (np.array([*places, 500, 501]) + shift)
    found = find_lattice(values)
    assert found is not None
    assert found.step == pytest.approx(step, rel=1e-6)
    off = (values - found.origin) / found.step
    assert np.abs(off - np.rint(off)).max() < 1e-4


@given(whole, st.integers(0, 2**31))
def test_rounding_and_units_do_not_hide_a_lattice(places: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.unique([*(np.array(places) % 40), *range(40, 60)]) * 2.54 - 11
    values += random.uniform(-0.01, 0.01, len(values)) * 2.54
    found = find_lattice(values)
    assert found is not None and found.step == pytest.approx(2.54, rel=0.01)


def test_a_lattice_is_told_in_few_digits() -> None:
    minutes = np.array([43.0, 48, 51, 52, 90])
    assert find_lattice(minutes) == Lattice(1.0, 0.0)
    assert find_lattice(minutes / 10) == Lattice(0.1, 0.0)
    assert find_lattice(minutes * 25) == Lattice(25.0, 0.0)
    centred = find_lattice(np.round(minutes - 56.8, 4))
    assert centred is not None
    assert (centred.step, centred.origin) == (1.0, pytest.approx(0.2))


def test_what_is_not_evenly_spaced_has_no_lattice() -> None:
    assert find_lattice(np.log(np.arange(1.0, 30))) is None
    assert find_lattice(np.random.default_rng(0).normal(size=1000)) is None
    assert find_lattice(np.full(5, 3.0)) is None


def test_the_columns_that_are_dequantised_are_told_by_their_values(shared_data: Path) -> None:
    faithful = load_dataset(str(shared_data / "small" / "faithful.csv"))
    found = choose_dequantiser(faithful.column_names, faithful.rows)
    assert found.to_values() == {
        "eruptions": {"step": 0.001, "origin": 0.0},
        "waiting": {"step": 1.0, "origin": 0.0},
    }
    assert Dequantiser.of_values(faithful.column_names, found.to_values()) == found
    protein = np.loadtxt(shared_data / "protein" / "protein.csv.gz", delimiter=",")
    # Two others repeat too, but were rounded after a change of units.
    assert [i for i, values in enumerate(protein.T) if is_repeating(values)] == [2, 7, 9]
    found = choose_dequantiser(names(protein), protein)
    assert list(found.lattices) == ["c7"]
    assert found.lattices["c7"].step == 1.0


def test_values_that_hardly_repeat_are_left_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 2)).round(6)
    assert not choose_dequantiser(names(rows), rows)
    assert choose_dequantiser(names(rows), rows, {"c1": 1e-6}).lattices["c1"].step == 1e-6


def test_what_cannot_be_dequantised_says_so() -> None:
    rows = np.arange(20.0)[:, None]
    with pytest.raises(ConfigurationError, match="unknown column `d1`"):
        choose_dequantiser(names(rows), rows, {"d1": 1.0})


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_rows_come_back_from_any_place_in_their_cells(draw: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = np.stack([random.integers(-9, 9, 50), random.normal(size=50), random.integers(-9, 9, 50)], 1)
    rows[:, 2] = np.round(rows[:, 2] * 0.5 + 0.2, 10)
    for moved in (BOTH.spread(rows, draw), BOTH.jitter(rows, random)):
        assert np.array_equal(moved[:, 1], rows[:, 1])
        assert (np.abs(moved - rows) <= [0.5, 0, 0.25]).all()
        assert np.array_equal(BOTH.restore(moved), rows)


def test_places_follow_from_the_row_alone() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 3)).round(1)
    together = BOTH.spread(rows, 3)
    assert np.array_equal(together[::-1], BOTH.spread(rows[::-1], 3))
    assert np.array_equal(together[7:8], BOTH.spread(rows[7:8], 3))
    # Minus zero is zero.
    zero = np.zeros((1, 3))
    assert np.array_equal(BOTH.spread(zero, 2), BOTH.spread(-zero, 2))


def test_cells_are_filled_evenly_over_rows_and_over_draws() -> None:
    rows = np.stack([np.arange(2000.0), np.zeros(2000), np.full(2000, 0.2)], 1)
    over_rows = BOTH.spread(rows, 0)[:, [0, 2]] - rows[:, [0, 2]]
    for places in (over_rows / [1.0, 0.5]).T:
        assert stats.kstest(places + 0.5, "uniform").pvalue > 1e-3
    assert abs(stats.spearmanr(*over_rows.T).statistic) < 0.08
    (first, *_) = np.stack([BOTH.spread(rows, draw) for draw in range(0, 128, 2)], 1)
    gaps = np.diff(np.sort(first[:, 0]))
    # Random points would leave a gap of about 0.07.
    assert gaps.max() < 0.035


def test_places_come_in_pairs_about_the_middle() -> None:
    rows = BOTH.restore(np.random.default_rng(3).normal(size=(20, 3)))
    for draw in (0, 6):
        middle = (BOTH.spread(rows, draw) + BOTH.spread(rows, draw + 1)) / 2
        assert np.allclose(middle, rows, atol=1e-12)


def test_nothing_is_done_to_continuous_columns() -> None:
    rows = np.random.default_rng(2).normal(size=(4, 2))
    assert CONTINUOUS.spread(rows, 1) is rows
    assert CONTINUOUS.jitter(rows, np.random.default_rng(0)) is rows
