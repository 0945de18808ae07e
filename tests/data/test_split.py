import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data import Column, Dataset, Provenance, Split
from flowbench.errors import ConfigurationError, DataError

seeds = st.integers(0, 2**32)
shares = st.tuples(*[st.integers(1, 20)] * 3)


@given(n=st.integers(1, 3000), parts=shares, seed=seeds)
def test_parts_are_disjoint_and_hold_every_row(n: int, parts: tuple[int, int, int], seed: int) -> None:
    fractions = [part / sum(parts) for part in parts]
    try:
        split = Split.draw(n, fractions, seed)
    except DataError:
        # Each part's size is within a row of its share.
        assert min(fractions) * n < 2
        return
    drawn = [split.train, split.validation, split.test]
    assert all(part.dtype == np.int64 for part in drawn)
    np.testing.assert_array_equal(np.sort(np.concatenate(drawn)), np.arange(n))
    for part, fraction in zip(drawn, fractions, strict=True):
        assert len(part) >= 1
        assert abs(len(part) - fraction * n) <= 1


@given(n=st.integers(10, 500), seed=seeds)
def test_seed_decides_the_split(n: int, seed: int) -> None:
    first, second = Split.draw(n, seed=seed), Split.draw(n, seed=seed)
    for name in ("train", "validation", "test"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_default_is_80_10_10_in_random_order() -> None:
    split = Split.draw(1000, seed=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [800, 100, 100]
    assert not np.array_equal(split.train, np.sort(split.train))
    assert not np.array_equal(split.train, Split.draw(1000, seed=1).train)


def test_split_and_toy_of_one_seed_use_different_streams() -> None:
    drawn = np.random.default_rng(5).permutation(1000)
    assert not np.array_equal(np.concatenate([Split.draw(1000, seed=5).train]), drawn[:800])


@pytest.mark.parametrize("n", range(5))
def test_too_few_rows(n: int) -> None:
    with pytest.raises(DataError, match=f"{n} rows are too few"):
        Split.draw(n, seed=0)


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_impossible_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="`split` takes"):
        Split.draw(100, fractions, seed=0)


grouped = st.lists(st.integers(-3, 12), min_size=3, max_size=300)


@given(groups=grouped, parts=shares, seed=seeds)
def test_rows_of_one_group_land_in_one_part(
    groups: list[int], parts: tuple[int, int, int], seed: int
) -> None:
    numbers, n = np.array(groups, dtype=np.int64), len(groups)
    fractions = [part / sum(parts) for part in parts]
    try:
        split = Split.draw(n, fractions, seed, numbers)
    except DataError as error:
        assert len(set(groups)) < 3 or (len(set(groups)) == n and "too few" in str(error))
        return
    drawn = [split.train, split.validation, split.test]
    np.testing.assert_array_equal(np.sort(np.concatenate(drawn)), np.arange(n))
    found = [set(numbers[part].tolist()) for part in drawn]
    assert all(found)
    assert sum(map(len, found)) == len(set(groups))
    # The first part ends at the end of a group, and no other that leaves one for each part is nearer.
    sizes = [groups.count(number) for number in dict.fromkeys(numbers[np.concatenate(drawn)].tolist())]
    ends = np.cumsum(sizes)[:-2]
    assert abs(len(split.train) - fractions[0] * n) <= np.abs(ends - fractions[0] * n).min() + 1
    # What the groups are called does not matter.
    again = Split.draw(n, fractions, seed, 7 - 3 * numbers)
    assert all(np.array_equal(part, getattr(again, name)) for name, part in vars(split).items())


@given(n=st.integers(10, 500), seed=seeds)
def test_a_group_for_every_row_is_no_groups(n: int, seed: int) -> None:
    alone = np.random.default_rng(seed).permutation(n) - 5
    for name, part in vars(Split.draw(n, seed=seed)).items():
        assert part.tobytes() == getattr(Split.draw(n, seed=seed, groups=alone), name).tobytes()


def test_the_split_of_rows_without_groups_is_that_of_version_0() -> None:
    """Sizes alone do not tell: a run goes on with the very rows that it began with."""
    order = np.random.default_rng((4, 1)).permutation(1000)
    split = Split.draw(1000, seed=4)
    assert np.array_equal(np.concatenate([split.train, split.validation, split.test]), order)


def test_groups_of_equal_sizes_keep_the_fractions() -> None:
    split = Split.draw(1000, seed=0, groups=np.repeat(np.arange(200), 5))
    assert [len(split.train), len(split.validation), len(split.test)] == [800, 100, 100]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"100 rows are only 2 group\(s\).*give rows of more groups"):
        Split.draw(100, seed=0, groups=np.arange(100) % 2)


def test_dataset_refuses_groups_that_do_not_fit_the_rows() -> None:
    rows, columns = np.ones((3, 1)), (Column("a"),)
    kept = Dataset("ones", columns, rows, Provenance("here", ""), groups=np.array([5, 5, 7], dtype=np.int32))
    assert kept.groups is not None and kept.groups.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        kept.groups[0] = 1
    for groups in (np.array([1, 2]), np.array([1.0, 2.0, 3.0]), np.ones((3, 1), dtype=np.int64)):
        with pytest.raises(DataError, match="not a whole number for each of 3 rows"):
            Dataset("ones", columns, rows, Provenance("here", ""), groups=groups)


def test_dataset_keeps_its_own_rows_read_only() -> None:
    rows = np.ones((3, 2), dtype=np.float32)
    columns = (Column("a"), Column("b"))
    dataset = Dataset("ones", columns, rows, Provenance("here", ""))  # type: ignore[arg-type]
    rows[0, 0] = 5
    assert dataset.rows[0, 0] == 1
    assert dataset.rows.dtype == np.float64
    assert dataset.column_names == ("a", "b")
    with pytest.raises(ValueError, match="read-only"):
        dataset.rows[0, 0] = 2


def test_dataset_refuses_rows_that_do_not_fit_the_columns() -> None:
    with pytest.raises(DataError, match=r"rows of shape \(3, 2\) do not fit 1 columns"):
        Dataset("ones", (Column("a"),), np.ones((3, 2)), Provenance("here", ""))
