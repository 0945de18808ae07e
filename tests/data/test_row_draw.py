"""Rows drawn at random of a table: the same ones of every format, under their numbers in the file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from flowbench.data import ReadOptions, check_table, load_dataset
from flowbench.data import raw_table as raw_table_module
from flowbench.data.row_draw import RowDraw
from flowbench.errors import DataError

ROWS = 5000
DRAWN = 300


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "row_id": np.arange(ROWS) + 7,
            "t": 0.25 * np.arange(ROWS) + 3,
            "x": rng.normal(size=ROWS),
            "kind": rng.choice(["red", "green", "blue"], ROWS),
            "patient": rng.integers(0, 900, ROWS),
            "w": rng.uniform(1, 2, ROWS),
            "part": rng.choice(["train", "validation", "test"], ROWS),
        }
    )


@pytest.fixture(scope="module")
def files(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    paths = {kind: folder / f"t.{kind}" for kind in ("csv", "parquet", "feather", "jsonl")}
    table.to_csv(paths["csv"], index=False)
    table.to_parquet(paths["parquet"], index=False, row_group_size=611)
    table.to_feather(paths["feather"])
    table.to_json(paths["jsonl"], orient="records", lines=True, double_precision=15)
    return paths


@given(n=st.integers(1, 400), count=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_rows_are_drawn_once_each(n: int, count: int, seed: int) -> None:
    rows = RowDraw(count, seed).rows(n)
    if count >= n:
        assert rows is None
    else:
        assert rows is not None
        assert len(np.unique(rows)) == len(rows) == count
        assert (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < n


def test_all_rows_are_as_likely() -> None:
    n, count, draws = 40, 10, 4000
    rows = [RowDraw(count, seed).rows(n) for seed in range(draws)]
    held = np.bincount(np.concatenate([each for each in rows if each is not None]), minlength=n)
    share = count / n
    assert (np.abs(held / draws - share) < 5 * np.sqrt(share * (1 - share) / draws)).all()


def test_the_same_rows_of_every_format(table: pd.DataFrame, files: dict[str, Path]) -> None:
    reading = ReadOptions(group="patient", weights="w", split_column="part")
    rows = RowDraw(DRAWN, 3).rows(ROWS)
    assert rows is not None
    for kind, path in files.items():
        found = load_dataset(str(path), columns=["x", "kind"], rows=DRAWN, seed=3, reading=reading)
        assert f"{DRAWN} of 5,000 rows are read, drawn at random; `--rows` says how many" in found.notes, kind
        np.testing.assert_array_equal(found.row_numbers, rows)
        np.testing.assert_allclose(found.rows[:, 0], table["x"][rows], rtol=0, atol=1e-14)
        levels = found.columns[1].type.levels
        assert levels == ("blue", "green", "red")
        assert [levels[int(each)] for each in found.rows[:, 1]] == list(table["kind"][rows])
        assert found.groups is not None and found.parts is not None and found.weights is not None
        patient = table["patient"].to_numpy()[rows]
        np.testing.assert_array_equal(found.groups[:, None] == found.groups, patient[:, None] == patient)
        np.testing.assert_allclose(found.weights, table["w"][rows], rtol=1e-14)
        expected = table["part"][rows].map({"train": 0, "validation": 1, "test": 2})
        np.testing.assert_array_equal(found.parts, expected)


@settings(max_examples=25)
@given(group=st.integers(1, 130), count=st.integers(10, 100), ordered=st.booleans())
def test_any_row_groups(
    group: int, count: int, ordered: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(1)
    x = np.sort(rng.normal(size=120))
    # Later row groups hold other levels than earlier ones, so that their dictionaries differ.
    kind = pd.Categorical(np.repeat(["c", "b", "a"], 40), categories=["c", "b", "a"], ordered=ordered)
    path = tmp_path_factory.mktemp("groups") / "t.parquet"
    parquet.write_table(
        pa.Table.from_pandas(pd.DataFrame({"x": x, "kind": kind})), path, row_group_size=group
    )
    found = load_dataset(str(path), rows=count, seed=2)
    rows = RowDraw(count, 2).rows(120)
    assert rows is not None
    np.testing.assert_array_equal(found.rows[:, 0], x[rows])
    levels = found.columns[1].type.levels or ()
    assert [levels[int(each)] for each in found.rows[:, 1]] == list(kind[rows])


def test_columns_that_number_the_rows_are_still_known(files: dict[str, Path]) -> None:
    for path in files.values():
        found = load_dataset(str(path), rows=DRAWN)
        assert "row_id" not in found.column_names
        assert any("column `row_id` is left out: it numbers the rows" in note for note in found.notes)
        assert any("column `t` rises by the same step" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_errors_name_the_row_of_the_file(kind: str, table: pd.DataFrame, tmp_path: Path) -> None:
    rows = RowDraw(DRAWN, 0).rows(ROWS)
    assert rows is not None
    missing, negative, marked = (int(each) for each in rows[[20, 40, 60]])
    path = tmp_path / f"t.{kind}"

    def written(**cells: tuple[int, float | str]) -> str:
        spoilt = table[["x", "w", "part"]].copy()
        for name, (row, value) in cells.items():
            spoilt.loc[row, name] = value
        spoilt.to_csv(path, index=False) if kind == "csv" else spoilt.to_parquet(path, index=False)
        return str(path)

    def refused(name: str, reading: ReadOptions | None = None) -> str:
        with pytest.raises(DataError) as caught:
            load_dataset(name, columns=["x"], rows=DRAWN, reading=reading or ReadOptions())
        return str(caught.value)

    assert f"column `x`, row {missing + 1}: the cell is missing" in refused(written(x=(missing, np.nan)))
    weighted = refused(written(w=(negative, -1.0)), ReadOptions(weights="w"))
    assert f"column `w`, row {negative + 1}: a weight cannot be negative" in weighted
    parted = refused(written(part=(marked, "none")), ReadOptions(split_column="part"))
    assert f"column `part`, row {marked + 1}: `none` names no part" in parted
    far = refused(written(x=(marked, -999.0)))
    assert f"column `x`, row {marked + 1}: -999 stands apart" in far
    dropped = load_dataset(
        written(x=(missing, np.nan)), columns=["x"], rows=DRAWN, reading=ReadOptions(missing="drop")
    )
    np.testing.assert_array_equal(dropped.row_numbers, np.delete(rows, 20))


def test_cells_of_other_rows_do_not_matter(table: pd.DataFrame, tmp_path: Path) -> None:
    rows = RowDraw(DRAWN, 0).rows(ROWS)
    assert rows is not None
    spoilt = table[["x"]].copy()
    spoilt.loc[np.setdiff1d(np.arange(ROWS), rows)[:50], "x"] = np.nan
    path = tmp_path / "t.parquet"
    spoilt.to_parquet(path, index=False)
    assert len(load_dataset(str(path), rows=DRAWN).rows) == DRAWN


def test_no_more_rows_than_there_are(files: dict[str, Path]) -> None:
    for name in (str(files["parquet"]), str(files["csv"]), "iris"):
        whole = load_dataset(name)
        found = load_dataset(name, rows=9000)
        np.testing.assert_array_equal(found.rows, whole.rows)
        assert found.row_numbers is None
        assert any("asks for 9,000 rows, and the table has" in note for note in found.notes)


def test_tables_of_scikit_learn() -> None:
    whole, found = load_dataset("iris"), load_dataset("iris", rows=40, seed=5)
    assert found.row_numbers is not None and len(found.rows) == 40
    np.testing.assert_array_equal(found.rows, whole.rows[found.row_numbers])


def test_parquet_beyond_the_bound_is_drawn_from(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_table_module, "LARGEST_TABLE_BYTES", 8 * 8 * 1000)
    with pytest.raises(DataError, match=r"above the bound .*; .*such as `--rows 1000000`"):
        load_dataset(str(files["parquet"]))
    assert len(load_dataset(str(files["parquet"]), rows=DRAWN).rows) == DRAWN


def test_the_schema_of_drawn_rows(files: dict[str, Path]) -> None:
    found = check_table(str(files["parquet"]), draw=RowDraw(DRAWN, 0))
    assert found.rows == DRAWN
    assert {each.name: each.kind for each in found.columns}["row_id"] == "identifier"
