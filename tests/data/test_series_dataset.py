"""Data sets of series: which arrays fit together, and parts of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data.dataset import Column, Provenance
from flowbench.data.series_dataset import SeriesDataset
from flowbench.errors import DataError


def made(lengths: list[int], d: int = 2) -> SeriesDataset:
    """Series of these lengths; every number in them occurs once."""
    total = sum(lengths)
    values = np.arange(total * d, dtype=np.float64).reshape(total, d)
    return SeriesDataset(
        "made",
        tuple(Column(f"c{i}") for i in range(d)),
        tuple(f"s{i}" for i in range(len(lengths))),
        np.cumsum([0, *lengths]),
        np.concatenate([np.arange(n) / 4 - 1 for n in lengths]),
        values,
        Provenance("made", ""),
        truth=values + 0.5,
        log_prob=np.arange(len(lengths), dtype=np.float64),
    )


LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def test_what_it_says_of_itself() -> None:
    found = made([2, 1, 3])
    assert len(found) == 3
    assert found.lengths.tolist() == [2, 1, 3]
    assert found.column_names == ("c0", "c1")
    assert found.of_observation.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.series(2).values.tolist() == [[6, 7], [8, 9], [10, 11]]
    assert len(found.series(1)) == 1
    values = found.values.copy()
    values[0, 0] = values[3, 1] = np.nan
    assert replace(found, values=values).cells.tolist() == [3, 2, 5]


def test_its_arrays_are_read_only() -> None:
    found = made([2, 1])
    assert found.truth is not None and found.log_prob is not None
    for array in (found.starts, found.times, found.values, found.truth, found.log_prob):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@given(LENGTHS, st.data())
def test_series_are_taken_in_any_order(lengths: list[int], data: st.DataObject) -> None:
    whole = made(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    part = whole.take(chosen)
    assert part.ids == tuple(whole.ids[i] for i in chosen)
    assert part.truth is not None and part.log_prob is not None
    assert part.log_prob.tolist() == chosen
    assert np.array_equal(part.truth, part.values + 0.5)
    for number, index in enumerate(chosen):
        own, its = part.series(number), whole.series(index)
        assert np.array_equal(own.times, its.times)
        assert np.array_equal(own.values, its.values)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"values": np.zeros((3, 1))}, "do not fit 2 columns"),
        ({"values": np.zeros((2, 2))}, "at 3 times"),
        ({"ids": ("a",)}, "1 ids do not fit"),
        ({"starts": np.array([0, 2, 2])}, "do not fit the starts"),
        ({"starts": np.array([0, 3, 3])}, "every series needs an observation"),
        ({"starts": np.array([0]), "ids": (), "times": np.zeros(0), "values": np.zeros((0, 2))}, "is needed"),
        ({"times": np.array([0.0, 0, 1])}, "increase within a series"),
        ({"times": np.array([0.0, -1, 1])}, "increase within a series"),
        ({"times": np.array([0.0, np.nan, 1])}, "times must be finite"),
        ({"times": np.array([0.0, 1, np.inf])}, "times must be finite"),
        ({"values": np.array([[0.0, 1], [np.inf, 1], [1, 1]])}, "infinite"),
        ({"values": np.array([[0.0, 1], [np.nan, np.nan], [1, 1]])}, "has no value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit_together_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        replace(made([2, 1]), **change)  # type: ignore[arg-type]


def test_no_series_can_be_no_part() -> None:
    with pytest.raises(DataError, match="one is needed"):
        made([2, 1]).take([])
