"""Indicators of the levels of categorical columns."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder

from flowbench.encoding.one_hot import FEWEST_ROWS, OneHot


@given(sizes=st.lists(st.integers(3, 6), min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_the_indicators_are_those_of_scikit_learn(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = {
        f"c{i}": np.sort(rng.choice(40, size, replace=False)).astype(float) for i, size in enumerate(sizes)
    }
    x = np.column_stack([rng.choice(each, 30) for each in levels.values()])
    one_hot = OneHot({name: each.tolist() for name, each in levels.items()})
    expected = OneHotEncoder(categories=list(levels.values()), sparse_output=False).fit_transform(x)
    found = one_hot.to_model(torch.from_numpy(x))
    assert found.shape == (30, one_hot.width)
    np.testing.assert_array_equal(found, expected)


def test_two_levels_are_one_number_and_others_are_none() -> None:
    one_hot = OneHot({"a": [0.0, 1.0], "b": [3.0, 5.0, 8.0]})
    x = torch.tensor([[0.0, 3.0], [1.0, 8.0], [2.0, 4.0], [float("nan"), 5.0]], dtype=torch.float64)
    assert one_hot.to_model(x).tolist() == [[-1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_rare_levels_are_not_told_apart() -> None:
    one_hot = OneHot({"b": [0.0, 1.0, 2.0]})
    values = [0.0] * FEWEST_ROWS + [1.0] * (FEWEST_ROWS - 1) + [2.0] * 50
    one_hot.fit(torch.tensor(values, dtype=torch.float64)[:, None])
    found = one_hot.to_model(torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64))
    assert found.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_no_columns_have_no_indicators() -> None:
    assert OneHot({}).to_model(torch.zeros(4, 0)).shape == (4, 0)
    assert not OneHot({}).state_dict()
