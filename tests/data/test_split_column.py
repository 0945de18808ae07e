"""A column that names the part of each row decides the split."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data import ReadOptions, Split, load_dataset
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.workflows.config import resolve
from flowbench.workflows.dataset_rows import load_rows

READING = ReadOptions(split_column="part")


def frame() -> pd.DataFrame:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    return pd.DataFrame(
        {"a": rows[:, 0], "part": ["train", "test", "validation", "train"] * 10, "b": rows[:, 1]}
    )


@given(parts=st.lists(st.integers(0, 2), min_size=1, max_size=60), seed=st.integers(0, 2**32))
def test_parts_hold_the_rows_that_are_theirs(parts: list[int], seed: int) -> None:
    numbers = np.array(parts)
    if len(set(parts)) < 3:
        with pytest.raises(DataError, match=r"no row is a (train|validation|test) row"):
            Split.of_parts(numbers, seed)
        return
    split = Split.of_parts(numbers, seed)
    for number, part in enumerate((split.train, split.validation, split.test)):
        assert part.dtype == np.int64
        np.testing.assert_array_equal(np.sort(part), np.flatnonzero(numbers == number))


def test_order_within_a_part_is_drawn_by_the_seed() -> None:
    numbers = np.repeat([0, 1, 2], 50)
    first, same, other = (Split.of_parts(numbers, seed).train for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, np.sort(first))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", ["str", "category"])
def test_the_column_is_no_data(tmp_path: Path, ending: str, kind: str) -> None:
    path = tmp_path / f"t{ending}"
    table = frame().astype({"part": kind})
    table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path)
    dataset = load_dataset(str(path), reading=READING)
    assert dataset.column_names == ("a", "b")
    assert dataset.parts is not None
    np.testing.assert_array_equal(dataset.parts, [0, 2, 1, 0] * 10)


def test_other_words_for_the_parts(tmp_path: Path) -> None:
    table = frame()
    table["part"] = ["Training", " TEST ", "val", "valid"] * 10
    table.to_parquet(tmp_path / "t.parquet")
    dataset = load_dataset(str(tmp_path / "t.parquet"), reading=READING)
    assert dataset.parts is not None
    np.testing.assert_array_equal(dataset.parts, [0, 2, 1, 1] * 10)


def test_rows_that_are_dropped_take_their_part_along(tmp_path: Path) -> None:
    table = frame()
    table.loc[1, "a"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    reading = ReadOptions(split_column="part", missing="drop")
    dataset = load_dataset(str(tmp_path / "t.csv"), reading=reading)
    assert dataset.parts is not None
    np.testing.assert_array_equal(dataset.parts, np.delete([0, 2, 1, 0] * 10, 1))


@pytest.mark.parametrize(("cell", "told"), [("trian", "`trian`"), (None, "a missing cell")])
def test_a_cell_that_names_no_part_is_named(tmp_path: Path, cell: str | None, told: str) -> None:
    table = frame()
    table.loc[6, "part"] = cell
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=rf"t\.csv: column `part`, row 7: {told} names no part of the split"):
        load_dataset(str(tmp_path / "t.csv"), reading=READING)


def test_a_column_of_numbers_names_no_parts(tmp_path: Path) -> None:
    frame().assign(part=1.5).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"column `part`, row 1: `1\.5` names no part"):
        load_dataset(str(tmp_path / "t.csv"), reading=READING)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UnknownColumnError, match="`--split-column`"):
        load_dataset(str(tmp_path / "t.csv"), reading=ReadOptions(split_column="parts"))


def test_a_run_takes_the_parts_of_the_table(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    path = str(tmp_path / "t.csv")
    config = resolve(path, "gaussian", overrides={"data.split_column": "part"})
    _, split = load_rows(config, tmp_path)
    np.testing.assert_array_equal(np.sort(split.test), np.arange(1, 40, 4))
    for overrides in ({"split.test": 0.2, "split.train": 0.7}, {"data.group": "b"}):
        config = resolve(path, "gaussian", overrides={"data.split_column": "part", **overrides})
        with pytest.raises(ConfigurationError, match="does not go with the table `t`"):
            load_rows(config, tmp_path)
