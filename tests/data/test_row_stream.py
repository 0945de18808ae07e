"""Rows that are read in chunks are those of the table read whole, whatever the chunks and row groups."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from flowbench.data import ReadOptions, TableFile, text_stream
from flowbench.data.column_type import ColumnType
from flowbench.data.row_stream import RowStream, open_rows
from flowbench.data.table_reading import read_rows
from flowbench.errors import DataError

ROWS = 97
TYPES = {
    "when": ColumnType("date32[day]", format="%Y-%m-%d"),
    "x": ColumnType(),
    "kind": ColumnType("string", levels=("blue", "red")),
}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Numbers, dates and levels, with cells that are missing, infinite and of no known level."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    x[60] = np.inf
    days = pa.array(19_000 + rng.integers(0, 99, ROWS), pa.int32(), mask=np.arange(ROWS) % 40 == 39)
    kind = rng.choice(["blue", "red", "green"], ROWS).tolist()
    kind[70] = None
    return pa.table({"kind": kind, "other": ["o"] * ROWS, "x": x, "when": days.cast(pa.date32())})


def opened(path: Path, size: int, *, strict: bool = False) -> RowStream:
    return open_rows(TableFile(path), tuple(TYPES), ReadOptions(), TYPES, size, strict=strict)


@settings(max_examples=40)
@given(
    size=st.integers(1, ROWS + 3),
    group=st.integers(1, ROWS + 3),
    skipped=st.integers(0, ROWS),
)
def test_chunks_of_parquet(
    size: int, group: int, skipped: int, table: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("chunks") / "t.parquet"
    parquet.write_table(table, path, row_group_size=group)
    whole, unfit, notes = read_rows(path, tuple(TYPES), types=TYPES)
    assert len(unfit) >= 4 and np.isnan(whole[70, 2])
    stream = opened(path, size)
    first = min(skipped // size * size, ROWS)
    chunks = list(stream.chunks(first))
    assert stream.n_rows == ROWS
    assert all(len(chunk.x) == size for chunk in chunks[:-1])
    found = np.concatenate([np.zeros((0, 3)), *(chunk.x for chunk in chunks)])
    np.testing.assert_array_equal(found, whole[first:])
    there = {chunk.first + row: cell for chunk in chunks for row, cell in chunk.unfit.items()}
    assert there == {row: cell for row, cell in unfit.items() if row >= first}
    if chunks:
        (what,) = {note[1] for chunk in chunks for note in chunk.notes}
        assert notes[0].startswith(what)


def test_a_strict_reader_names_the_row_of_the_file(table: pa.Table, tmp_path: Path) -> None:
    parquet.write_table(table, tmp_path / "t.parquet")
    for size in (10, ROWS):
        with pytest.raises(DataError, match="column `when`, row 40: the cell is missing"):
            list(opened(tmp_path / "t.parquet", size, strict=True).chunks(0))


@pytest.mark.parametrize("cell", ["1.5", "", "inf", "text", "1,5", "5%", "0x10", '"1"', "2020-01-01"])
def test_long_text_is_read_as_the_whole_is(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in a cell far below: it is read in parts, or whole, with the same result."""
    monkeypatch.setattr(text_stream, "STREAMED_BYTES", 0)
    types = {"b": ColumnType(), "a": ColumnType()}
    path = tmp_path / "t.csv"
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"]).astype(str)
    frame.iloc[45, 1] = cell
    path.write_text("a;b\n" + "\n".join(";".join(row) for row in frame.to_numpy()) + "\n")
    streamed = open_rows(TableFile(path), ("b", "a"), ReadOptions(), types, 20)
    is_plain = cell in ("1.5", "", "inf")
    found = text_stream.open_plain_text(TableFile(path), ("b", "a"), ReadOptions(), types)
    assert (found is not None) == is_plain
    chunks = list(streamed.chunks(0))
    whole, unfit, _ = read_rows(path, ("b", "a"), types=types)
    np.testing.assert_array_equal(np.concatenate([chunk.x for chunk in chunks]), whole)
    assert {chunk.first + row for chunk in chunks for row in chunk.unfit} == set(unfit)


def test_long_text_with_numbers_that_a_float_rounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_stream, "STREAMED_BYTES", 0)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2.5\n" * 30 + "12345678901234567,2.5\n12345678901234568,2\n")
    with pytest.raises(DataError, match=r"column `a`: .*beyond"):
        open_rows(TableFile(path), ("a", "b"), ReadOptions(), {"a": ColumnType(), "b": ColumnType()}, 10)
