"""Text and truth values as categories: what is one, and what is refused or left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data import load_dataset
from flowbench.data.column_type import UNKNOWN_LEVEL, ColumnType
from flowbench.data.read_options import ReadOptions
from flowbench.data.table_reading import read_rows, read_table
from flowbench.errors import DataError

N = 40
X = np.random.default_rng(0).normal(size=N)


def written(folder: Path, frame: pd.DataFrame, name: str = "t.csv") -> Path:
    path = folder / name
    frame.to_parquet(path) if name.endswith(".parquet") else frame.to_csv(path, index=False)
    return path


def words(*texts: str) -> list[str]:
    return [texts[i % len(texts)] for i in range(N)]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_levels_are_sorted_whatever_the_order_of_the_rows(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"x": X, "w": words("b", "c", "a")})
    first, second = (read_table(written(tmp_path, each, name)) for each in (frame, frame.iloc[::-1]))
    assert first.types["w"].levels == second.types["w"].levels == ("a", "b", "c")
    assert first.categories == ("w",)
    np.testing.assert_array_equal(first.rows[:, 1], second.rows[::-1, 1])
    np.testing.assert_array_equal(first.types["w"].text(first.rows[:, 1]), frame["w"])


@given(texts=st.lists(st.text("abc ü§,\"'", min_size=1).map(str.strip).filter(bool), min_size=2, unique=True))
def test_levels_survive_their_type(texts: list[str]) -> None:
    type_ = ColumnType("string", levels=tuple(sorted(texts)))
    assert ColumnType.of_values(type_.to_values()) == type_
    places = np.arange(float(len(texts)))
    assert type_.typed(places).tolist() == list(type_.levels or ())


def test_a_place_without_a_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="not the places of levels"):
        ColumnType("string", levels=("a", "b")).named(np.array([0.0, 2.0]))


def test_known_levels_are_read_again_and_others_are_unknown(tmp_path: Path) -> None:
    type_ = ColumnType("string", levels=("1", "a", "b"))
    path = tmp_path / "t.csv"
    path.write_text("x,w\n0.5,b\n1.5,1\n2.5,new\n3.5,\n4.5, a \n")
    rows, unfit, _ = read_rows(path, ["x", "w"], types={"x": ColumnType(), "w": type_})
    np.testing.assert_array_equal(rows[:, 1], [2, 0, UNKNOWN_LEVEL, np.nan, 1])
    assert {row: cell.reason for row, cell in unfit.items()} == {3: "missing cell in `w`"}


@pytest.mark.parametrize(
    ("texts", "because"),
    [
        ([f"Mr {chr(65 + i % 26)}{i}x" for i in range(N)], "it names the rows: 40 of 40 texts differ"),
        ([f"w{'ab'[i % 2]}{chr(97 + i % 20)}" for i in range(N)], "its text has 20 levels in 40 cells"),
    ],
)
def test_names_and_rare_levels_are_left_out_or_refused(
    tmp_path: Path, texts: list[str], because: str
) -> None:
    path = written(tmp_path, pd.DataFrame({"x": X, "w": texts}))
    found = read_table(path)
    assert found.names == ("x",)
    assert any(f"column `w` is left out: {because}" in note for note in found.notes)
    with pytest.raises(DataError, match=f"column `w`: {because}.*`--categories`"):
        read_table(path, ["x", "w"])
    kept = read_table(path, reading=ReadOptions(categories=("w",)))
    assert kept.categories == ("w",) and len(kept.types["w"].levels or ()) == len(set(texts))


@pytest.mark.parametrize("texts", [("5 kg", "6 kg"), ("$5", "€6"), ("0x1F", "0x2F"), ("1. kg", "2. kg")])
def test_text_that_may_mean_numbers_is_refused(tmp_path: Path, texts: tuple[str, ...]) -> None:
    path = written(tmp_path, pd.DataFrame({"w": words(*texts), "x": X}))
    with pytest.raises(DataError, match=r"column `w`, row 1: .* is not a number.*`--categories`"):
        read_table(path)
    assert read_table(path, reading=ReadOptions(categories=("w",))).categories == ("w",)


@pytest.mark.parametrize(
    "texts",
    [
        ("18-25", "26-35", "36-50"),
        ("A4", "A5"),
        ("Q1", "Q2", "Q3"),
        ("yes", "no"),
        ("1. White", "2. Black", "3. Asian"),
        ("1) yes", "2) no"),
    ],
)
def test_words_with_digits_are_categories(tmp_path: Path, texts: tuple[str, ...]) -> None:
    path = written(tmp_path, pd.DataFrame({"w": words(*texts), "x": X}))
    assert read_table(path).types["w"].levels == tuple(sorted(texts))


def test_few_numbers_are_categories_beside_others_alone(tmp_path: Path) -> None:
    few = [float(i % 3) for i in range(N)]
    path = written(tmp_path, pd.DataFrame({"few": few, "x": X}))
    assert read_table(path).categories == ("few",)
    assert read_table(path, reading=ReadOptions(keep=("few",))).categories == ()
    alone = written(tmp_path, pd.DataFrame({"few": few, "flag": [i % 2 for i in range(N)]}), "alone.csv")
    assert read_table(alone).categories == ()


def test_one_level_is_constant(tmp_path: Path) -> None:
    path = written(tmp_path, pd.DataFrame({"w": words("US"), "x": X}))
    with pytest.raises(DataError, match="column `w` is constant: US from row 1 to row 40"):
        load_dataset(str(path))


@pytest.mark.parametrize("texts", [("True", "False"), ("TRUE", "FALSE"), ("true", "false"), ("1", "0")])
def test_truth_values_are_the_same_however_they_are_spelt(tmp_path: Path, texts: tuple[str, str]) -> None:
    type_ = ColumnType("bool", levels=("false", "true"))
    path = tmp_path / "t.csv"
    path.write_text("x,w\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    assert read_rows(path, ["x", "w"], types={"x": ColumnType(), "w": type_})[0][:, 1].tolist() == [1, 0]
    pd.DataFrame({"x": [0.0, 1.0], "w": [True, False]}).to_parquet(tmp_path / "t.parquet")
    spelt = ColumnType("string", levels=("False", "True"))
    found = read_rows(tmp_path / "t.parquet", ["x", "w"], types={"x": ColumnType(), "w": spelt})
    assert found[0][:, 1].tolist() == [1, 0]
