"""Values with a probability mass, copies of rows, and rows that are equal by chance."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowbench.data import repeats
from flowbench.data.repeats import find_atoms, find_copies, number_rows, unite_groups

seeds = st.integers(0, 2**32 - 1)


def spread(shape: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    draws: dict[str, Callable[..., np.ndarray]] = {
        "normal": rng.normal,
        "lognormal": rng.lognormal,
        "cauchy": rng.standard_cauchy,
    }
    return draws[shape](size=n)


@given(
    seed=seeds,
    n=st.integers(500, 3000),
    shape=st.sampled_from(["normal", "lognormal", "cauchy"]),
    wanted=st.lists(st.sampled_from([-999.0, 0.0, 1.0, 1e9]), min_size=1, max_size=3, unique=True),
    share=st.floats(0.1, 0.3),
    digits=st.sampled_from([2, 6, 15]),
)
def test_atoms_are_found_whatever_is_beside_them(
    seed: int, n: int, shape: str, wanted: list[float], share: float, digits: int
) -> None:
    values = spread(shape, n, seed).round(digits) * (1 + 1e-3)
    size = int(share * n)
    for number, value in enumerate(wanted):
        values[number * size : (number + 1) * size] = value
    found = dict(find_atoms(np.random.default_rng(seed).permutation(values)))
    assert set(found) == set(wanted)
    assert all(found[value] == pytest.approx((values == value).mean()) for value in wanted)


@given(
    seed=seeds,
    n=st.integers(500, 5000),
    shape=st.sampled_from(["normal", "lognormal", "cauchy"]),
    digits=st.integers(0, 4),
)
def test_rounded_values_are_no_atoms(seed: int, n: int, shape: str, digits: int) -> None:
    # Of fewer rows of heavy tails, the few values that repeat cannot be told from atoms.
    assert find_atoms(spread(shape, n, seed).round(digits)) == ()


@pytest.mark.parametrize("high", [2, 5, 100])
def test_whole_numbers_that_repeat_alike_are_no_atoms(high: int) -> None:
    values = np.random.default_rng(0).integers(0, high, 2000).astype(float)
    assert find_atoms(values) == ()
    assert find_atoms(np.repeat(np.random.default_rng(0).normal(size=400), 5)) == ()
    assert find_atoms(np.zeros(100)) == ()
    assert find_atoms(np.empty(0)) == ()


@pytest.mark.parametrize("seed", range(5))
def test_zeros_beside_rounded_amounts_are_an_atom(seed: int) -> None:
    """Tenths of a millimetre of rain, of which a frequent one holds more than a hundredth of the rows."""
    rng = np.random.default_rng(seed)
    rain = np.where(rng.random(1500) < 0.55, 0, rng.lognormal(0.8, 0.9, 1500).round(1))
    assert np.sort(np.unique(rain, return_counts=True)[1])[-10] > 15
    assert [value for value, _ in find_atoms(rain)] == [0.0]


def test_frequent_zeros_of_counts_are_no_atom() -> None:
    rng = np.random.default_rng(0)
    assert find_atoms(rng.poisson(0.1, 5000).astype(float)) == ()
    assert find_atoms(rng.geometric(0.3, 5000).astype(float)) == ()
    assert find_atoms(rng.lognormal(1, 1.5, 5000).round()) == ()


def test_both_ends_of_a_censored_column_are_atoms() -> None:
    values = np.random.default_rng(0).normal(size=4000).clip(-1, 2)
    (first, share), (second, other) = find_atoms(values)
    assert (first, second) == (-1.0, 2.0)
    assert share == pytest.approx((values == -1).mean())
    assert other == pytest.approx((values == 2).mean())


def test_a_few_rows_can_show_an_atom() -> None:
    values = np.concatenate([np.zeros(8), np.random.default_rng(0).lognormal(size=12)])
    assert find_atoms(values) == ((0.0, 0.4),)
    assert find_atoms(values[5:]) == ()


def test_copies_of_every_row_do_not_hide_an_atom() -> None:
    values = np.random.default_rng(0).lognormal(size=400)
    values[:160] = 0
    assert find_atoms(np.repeat(values, 5)) == ((0.0, 0.4),)


@given(
    rows=arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.integers(1, 3)),
        elements=st.sampled_from([0.0, -0.0, 1, 2]),
    )
)
def test_rows_share_a_number_where_they_are_the_same(rows: np.ndarray) -> None:
    numbers = number_rows(rows)
    same = (rows[:, None] == rows[None]).all(2)
    assert np.array_equal(numbers[:, None] == numbers[None], same)


def test_rows_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "hash_rows", lambda rows: np.zeros((len(rows), 1), dtype=np.uint64))
    numbers = number_rows(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    assert numbers[0] == numbers[2] != numbers[1]


def copied(rows: np.ndarray) -> int:
    return len(rows) - len(np.unique(find_copies(rows)))


@given(seed=seeds, features=st.integers(1, 4), times=st.integers(2, 6))
def test_rows_that_are_copied_are_found(seed: int, features: int, times: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, features))
    order = rng.permutation(times * 300)
    numbers = find_copies(np.tile(rows, (times, 1))[order])
    source = order % 300
    assert (
        np.array_equal(rows[order % 300][numbers], rows[source]) and (numbers <= np.arange(len(order))).all()
    )
    assert np.array_equal(numbers[:, None] == numbers[None], source[:, None] == source[None])


def test_one_column_that_does_not_repeat_tells_a_copy() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 3, (500, 3)), rng.normal(size=500)])
    assert copied(np.concatenate([rows, rows[:70]])) == 70


def test_rows_that_are_the_same_by_chance_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    cells = rng.poisson(2.0, (2000, 2)).astype(float)
    assert copied(cells) == 0
    assert copied(cells[:, :1]) == 0
    atoms = np.where(rng.random((2000, 2)) < 0.4, 0.0, rng.lognormal(size=(2000, 2)))
    assert (atoms == 0).all(1).sum() > 200
    assert copied(atoms) == 0
    assert copied(atoms[:, :1]) == 0
    # Copies beside them are found nevertheless.
    assert copied(np.concatenate([atoms, atoms])) == (atoms != 0).any(1).sum()


def test_rows_that_all_differ_are_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2))
    assert np.array_equal(find_copies(rows), np.arange(50))


@given(data=st.data(), n=st.integers(1, 40))
def test_united_groups_hold_what_a_chain_of_either_joins(data: st.DataObject, n: int) -> None:
    first, second = (data.draw(arrays(np.int64, n, elements=st.integers(-9, 20))) for _ in range(2))
    joined = (first[:, None] == first[None]) | (second[:, None] == second[None])
    for _ in range(n):  # the transitive closure, step by step
        joined = (joined.astype(int) @ joined.astype(int)) > 0
    united = unite_groups(first, second)
    assert np.array_equal(united[:, None] == united[None], joined)
