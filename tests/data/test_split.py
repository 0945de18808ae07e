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


def test_dataset_keeps_its_own_rows_read_only() -> None:
    rows = np.ones((3, 2), dtype=np.float32)
    dataset = Dataset("ones", (Column("a"), Column("b")), rows, Provenance("here", ""))
    rows[0, 0] = 5
    assert dataset.rows[0, 0] == 1
    assert dataset.rows.dtype == np.float64
    assert dataset.features == 2
    assert dataset.column_names == ("a", "b")
    with pytest.raises(ValueError, match="read-only"):
        dataset.rows[0, 0] = 2


def test_dataset_refuses_rows_that_do_not_fit_the_columns() -> None:
    with pytest.raises(DataError, match=r"rows of shape \(3, 2\) do not fit 1 columns"):
        Dataset("ones", (Column("a"),), np.ones((3, 2)), Provenance("here", ""))
