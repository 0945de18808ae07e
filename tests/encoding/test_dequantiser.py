"""Lattices are found, and values are spread evenly over their cells, row by row, and restored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from flowbench.data import load_dataset
from flowbench.data.lattice import Lattice, find_lattice, is_repeating
from flowbench.data.row_hashes import hash_rows, uniform_of_hashes
from flowbench.encoding.dequantiser import Dequantiser, choose_dequantiser, parse_spacings
from flowbench.errors import ConfigurationError

CONTINUOUS = Dequantiser(("a", "b"))
BOTH = Dequantiser(("a", "b", "c"), {"a": Lattice(1.0), "c": Lattice(0.5, 0.2)})
steps = st.sampled_from([1.0, 2.0, 25.0, 0.1, 0.01, 0.25, 1 / 60, 1e-7, 3e5, 0.0953])
whole = st.lists(st.integers(-300, 300), min_size=3, max_size=40)


def by_name(columns: tuple[str, ...], rows: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(columns, rows.T, strict=True))


def names(rows: np.ndarray) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(rows.shape[1]))


@given(steps, whole, st.floats(-1, 1))
@example(1.0, [105, 105, -273, -273], 0.0)  # 500 and 501 lie within LOOSE of the lattice of the first two
@example(1.0, [-17, -17, 26, 26, 110, 110], 0.0)  # so do 26 and 110 of that of 43
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
    assert centred.step == 1.0 and centred.origin == pytest.approx(0.2)


def test_what_is_not_evenly_spaced_has_no_lattice() -> None:
    assert find_lattice(np.log(np.arange(1.0, 30))) is None
    assert find_lattice(np.random.default_rng(0).normal(size=1000)) is None
    assert find_lattice(np.full(5, 3.0)) is None


def test_the_columns_that_are_dequantised_are_told_by_their_values(shared_data: Path) -> None:
    faithful = load_dataset(str(shared_data / "small" / "faithful.csv"))
    found = choose_dequantiser(by_name(faithful.column_names, faithful.rows))
    assert found.to_values() == {
        "eruptions": {"step": 0.001, "origin": 0.0},
        "waiting": {"step": 1.0, "origin": 0.0},
    }
    assert Dequantiser.of_values(faithful.column_names, found.to_values()).lattices == found.lattices
    protein = np.loadtxt(shared_data / "protein" / "protein.csv.gz", delimiter=",")
    # Two others repeat too, but were rounded after a change of units.
    assert [i for i, values in enumerate(protein.T) if is_repeating(values)] == [2, 7, 9]
    found = choose_dequantiser(by_name(names(protein), protein))
    assert list(found.lattices) == ["c7"]
    assert found.lattices["c7"].step == 1.0


def test_values_that_hardly_repeat_are_left_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 2)).round(6)
    assert not choose_dequantiser(by_name(names(rows), rows))
    assert choose_dequantiser(by_name(names(rows), rows), {"c1": 1e-6}).lattices["c1"] == Lattice(1e-6)


def test_what_cannot_be_dequantised_says_so() -> None:
    rows = np.arange(20.0)[:, None]
    with pytest.raises(ConfigurationError, match="unknown column `d1`"):
        choose_dequantiser(by_name(names(rows), rows), {"d1": 1.0})


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_rows_come_back_from_any_place_in_their_cells(draw: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    table = np.stack([random.integers(-9, 9, 50), random.normal(size=50), random.integers(-9, 9, 50)], 1)
    table[:, 2] = np.round(table[:, 2] * 0.5 + 0.2, 10)
    rows = torch.tensor(table)
    for moved in (BOTH.spread(rows, draw), BOTH.jitter(rows, random)):
        assert torch.equal(moved[:, 1], rows[:, 1])
        assert ((moved - rows).abs() <= torch.tensor([0.5, 0, 0.25])).all()
        assert torch.equal(BOTH.restore(moved), rows)


def test_places_follow_from_the_row_alone() -> None:
    rows = torch.tensor(np.random.default_rng(1).normal(size=(30, 3)).round(1))
    together = BOTH.spread(rows, 3)
    assert torch.equal(together.flip(0), BOTH.spread(rows.flip(0), 3))
    assert torch.equal(together[7:8], BOTH.spread(rows[7:8], 3))
    # Minus zero is zero.
    zero = torch.zeros(1, 3, dtype=torch.float64)
    assert torch.equal(BOTH.spread(zero, 2), BOTH.spread(-zero, 2))


def test_cells_are_filled_evenly_over_rows_and_over_draws() -> None:
    rows = np.stack([np.arange(2000.0), np.zeros(2000), np.full(2000, 0.2)], 1)
    over_rows = BOTH.spread(torch.tensor(rows), 0).numpy()[:, [0, 2]] - rows[:, [0, 2]]
    for places in (over_rows / [1.0, 0.5]).T:
        assert stats.kstest(places + 0.5, "uniform").pvalue > 1e-3
    assert abs(stats.spearmanr(*over_rows.T).statistic) < 0.08
    # One place in each of as many parts of the cell as there are draws.
    spread = [BOTH.spread(torch.tensor(rows[:50]), draw, 16).numpy() for draw in range(16)]
    first = np.stack(spread) - rows[:50]
    for column, step in ((0, 1.0), (2, 0.5)):
        parts = np.sort(np.floor((first[:, :, column] / step + 0.5) * 16), axis=0)
        assert (parts == np.arange(16)[:, None]).all()


def test_places_come_in_pairs_about_the_middle() -> None:
    rows = BOTH.restore(torch.tensor(np.random.default_rng(3).normal(size=(20, 3))))
    for draw in (0, 6):
        middle = (BOTH.spread(rows, draw) + BOTH.spread(rows, draw + 1)) / 2
        assert torch.allclose(middle, rows, atol=1e-12)


def test_nothing_is_done_to_continuous_columns() -> None:
    rows = torch.tensor(np.random.default_rng(2).normal(size=(4, 2)))
    assert CONTINUOUS.spread(rows, 1) is rows
    assert CONTINUOUS.jitter(rows, np.random.default_rng(0)) is rows


def test_a_stray_value_makes_no_finer_lattice_and_an_outlier_bends_none() -> None:
    ages = np.random.default_rng(0).integers(18, 90, 2000).astype(float)
    ages[7] = 45.0001
    assert find_lattice(ages) == Lattice(1.0)
    counts = np.random.default_rng(0).poisson(3, 2000).astype(float)
    counts[3] = 1234.5
    assert find_lattice(counts) == Lattice(1.0)
    # A code for missing values that most would take as one.
    counts[:100] = -99.9
    assert find_lattice(counts) is None


def test_large_and_tiny_numbers_keep_their_lattice() -> None:
    places = np.random.default_rng(0).integers(0, 300, 5000).astype(float)
    assert find_lattice(1.6e12 + places) == Lattice(1.0)
    assert find_lattice(1e-9 * places) == Lattice(1e-9)
    single = find_lattice(places.astype(np.float32).astype(float) * float(np.float32(0.1)))
    assert single is not None and single.step == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "step", "lattice"),
    [
        ([5.1, 4.9, 5.0], 0.1, Lattice(0.1)),
        ([3.37, 5.99, 7.1, 2.0], 1.0, Lattice(1.0)),
        ([0.25, 1.25, 7.25, 3.0], 1.0, Lattice(1.0, 0.25)),
    ],
)
def test_a_given_spacing_lies_where_most_values_do(
    values: list[float], step: float, lattice: Lattice
) -> None:
    rows = np.array(values)[:, None]
    assert choose_dequantiser(by_name(("a",), rows), {"a": step}).lattices["a"] == lattice


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("most", "takes auto, none"),
        ("a=", "takes auto, none"),
        ("=1", "takes auto, none"),
        ("a=nan", "takes auto, none"),
        ("a=inf", "takes auto, none"),
        ("a=1,", "takes auto, none"),
        ("a=1,a=2", "names `a` twice"),
    ],
)
def test_spacings_that_mean_nothing_are_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_spacings(text)
    assert parse_spacings(" a=1, b c = 0.5,d=e=2 ") == {"a": 1.0, "b c": 0.5, "d=e": 2.0}


def test_places_are_those_that_numpy_computes_bit_for_bit() -> None:
    """Written out with numpy, column by column, as the places of runs that are kept were found."""
    cells = Dequantiser(
        ("a", "x", "b", "c"),
        {"b": Lattice(0.1), "a": Lattice(1 / 60, 0.003), "c": Lattice(25.0, -7.5)},
    )
    rows = np.random.default_rng(0).normal(size=(200, 4)) * [1, 1, 3, 900]
    middles, numbers = rows.copy(), rows.copy()
    for column, step, origin, digits in ((0, 1 / 60, 0.003, 12), (2, 0.1, 0.0, 11), (3, 25.0, -7.5, 9)):
        numbers[:, column] = np.rint((rows[:, column] - origin) / step) + 0.0
        middles[:, column] = np.round(origin + step * numbers[:, column], digits)
    assert np.array_equal(cells.restore(torch.tensor(rows)).numpy(), middles)
    hashes = hash_rows(numbers)
    for draw in range(8):
        order, inside, side = (
            uniform_of_hashes(hashes, each, 3) for each in (0, 2 * (draw // 2) + 1, 2 * (draw // 2) + 2)
        )
        places = ((draw // 2 + np.floor(order * 4)) % 4 + inside) / 8
        places = np.where((side < 0.5) == (draw % 2 == 0), places, 1 - places)
        expected = middles.copy()
        expected[:, [0, 2, 3]] += np.array([1 / 60, 0.1, 25.0]) * (places - 0.5)
        assert np.array_equal(cells.spread(torch.tensor(rows), draw, 8).numpy(), expected)


def test_values_that_are_out_of_place_are_counted() -> None:
    ages = Dequantiser(("age", "x", "height"), {"age": Lattice(1.0), "height": Lattice(0.1)})
    rows = torch.tensor([[30.0, 0.123, 1.7], [31.5, 2.0, 1.71], [32.2, 1.0, 1.8]], dtype=torch.float64)
    assert ages.out_of_place(rows) == {"age": 2, "height": 1}
    assert ages.out_of_place(rows[:1]) == CONTINUOUS.out_of_place(rows[:, :2]) == {}


def test_a_box_is_grown_until_it_cuts_no_cell() -> None:
    (low, high), other, (left, right) = BOTH.whole_cells(((-0.25, 1.25), (0.1, 0.2), (0.0, 0.65)))
    assert (low, high) == (-0.5, 1.5) and other == (0.1, 0.2)
    assert left == pytest.approx(-0.05) and right == pytest.approx(0.95)
