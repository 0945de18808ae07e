"""Tables in every format hold the numbers exactly."""

import csv
import gzip
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowbench.errors import ConfigurationError
from flowbench.store import check_table_path, write_table
from flowbench.store.safe_hdf5 import open_untrusted

ENDINGS = [".h5", ".hdf5", ".csv", ".csv.gz", ".parquet"]


def read_back(path: Path) -> dict[str, np.ndarray]:
    if path.suffix in {".h5", ".hdf5"}:
        with h5py.File(path) as file:
            return {name: file[name][()] for name in file if file[name].attrs["units"] != b"1"}
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return {str(name): frame[name].to_numpy() for name in frame}
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    names, *rows = csv.reader(text.decode().splitlines())
    return dict(zip(names, np.array(rows, dtype=float).reshape(-1, len(names)).T, strict=True))


@pytest.mark.parametrize("ending", ENDINGS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 3,
)
@given(values=hnp.arrays("f8", st.integers(1, 20), elements=st.floats(width=64)))
def test_every_float_comes_back_bit_for_bit(tmp_path: Path, ending: str, values: np.ndarray) -> None:
    path = tmp_path / f"table{ending}"
    write_table(path, {"log prob, é": values, "second": values[::-1]}, {"run": "a"}, {})
    read = read_back(path)
    assert list(read) == ["log prob, é", "second"]
    # As text, which tells -0.0 from 0.0 and takes NaN for equal to itself.
    assert list(map(repr, read["log prob, é"])) == list(map(repr, values))
    assert list(map(repr, read["second"])) == list(map(repr, values[::-1]))


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_table_gives_the_same_bytes(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}{ending}", {"x": np.arange(5.0)}, {"seed": 1}, {"x": "minutes"})
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_hdf5_has_named_rows_attributes_and_units(tmp_path: Path) -> None:
    path = tmp_path / "score.h5"
    row = np.array([3, 1, 2])
    columns = {"row": row, "log_prob": np.ones(3)}
    write_table(path, columns, {"run": "a", "seed": 7, "t": 0.5}, {"log_prob": "nats"}, index="row")
    with xr.open_dataset(path, engine="h5netcdf") as table:
        assert table.log_prob.dims == ("row",)
        assert table.log_prob.units == "nats"
        np.testing.assert_array_equal(table.row, row)
        assert table.attrs == {"run": "a", "seed": 7, "t": 0.5}


def test_hdf5_numbers_the_rows_where_no_column_does(tmp_path: Path) -> None:
    write_table(tmp_path / "sample.h5", {"x": np.ones(3), "log_prob": np.ones(3)}, {}, {"log_prob": "nats"})
    with xr.open_dataset(tmp_path / "sample.h5", engine="h5netcdf") as table:
        assert table.x.dims == ("row",)
        assert table.x.units == "data units"
        np.testing.assert_array_equal(table.row, [0, 1, 2])


def test_hdf5_numbers_the_rows_beside_a_column_called_row(tmp_path: Path) -> None:
    path = tmp_path / "sample.h5"
    write_table(path, {"row": np.ones(3), "row_": np.ones(3)}, {}, {})
    with xr.open_dataset(path, engine="h5netcdf") as table:
        assert table.row.dims == table.row_.dims == ("row__",)
        assert table.row.units == "data units"


def test_parquet_keeps_attributes_and_units(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {"row": np.arange(3), "x": np.ones(3)}
    write_table(path, columns, {"seed": 7}, {"x": "minutes"}, index="row")
    schema = pq.read_schema(path)
    assert json.loads(schema.metadata[b"flowbench"]) == {"seed": 7}
    assert schema.field("x").metadata == {b"units": b"minutes"}
    assert schema.field("row").metadata == {b"units": b"1"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_table_without_rows_keeps_its_columns(tmp_path: Path, ending: str) -> None:
    write_table(tmp_path / f"t{ending}", {"x": np.zeros(0), "y": np.zeros(0)}, {}, {})
    assert {name: len(values) for name, values in read_back(tmp_path / f"t{ending}").items()} == {
        "x": 0,
        "y": 0,
    }


def texts_of(path: Path) -> list[str]:
    """The column `why` as a reader of each format finds it."""
    if path.suffix in {".h5", ".hdf5"}:
        with h5py.File(path) as file:
            assert file["why"].dtype.kind == "S"
        with open_untrusted(path) as untrusted:
            return list(untrusted.texts("why"))
    if path.suffix == ".parquet":
        column = pq.read_table(path)["why"]
        assert column.type == "string"
        texts: list[str] = column.to_pylist()
        return texts
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [row["why"] for row in csv.DictReader(io.StringIO(text.decode(), newline=""))]


@pytest.mark.parametrize("dtype", [object, str])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "texts", [["", 'missing cell in `größe, "x"`', "nan", ""], ["", "", ""], ["NA"], []], ids=len
)
def test_text_comes_back_as_it_was(tmp_path: Path, ending: str, texts: list[str], dtype: type) -> None:
    path = tmp_path / f"table{ending}"
    columns = {"row": np.arange(len(texts)), "why": np.array(texts, dtype=dtype)}
    write_table(path, columns, {}, {"why": "1"}, index="row")
    assert texts_of(path) == texts


def test_xarray_shows_text(tmp_path: Path) -> None:
    columns = {"row": np.arange(3), "why": np.array(["", "größer", ""], dtype=object)}
    write_table(tmp_path / "t.h5", columns, {}, {"why": "1"}, index="row")
    with xr.open_dataset(tmp_path / "t.h5", engine="h5netcdf") as table:
        assert table.why.dims == ("row",)
        assert table.why.values.tolist() == ["", "größer", ""]


def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("table.xlsx", "table", "csv", "table.h5.txt"):
        with pytest.raises(
            ConfigurationError, match=r"must end in \.h5, \.hdf5, \.csv, \.csv\.gz, .*\.parquet"
        ):
            write_table(tmp_path / name, {"x": np.zeros(3)}, {}, {})
        with pytest.raises(ConfigurationError):
            check_table_path(tmp_path / name)
    check_table_path(tmp_path / "TABLE.CSV")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"x": np.zeros(3), "y": np.zeros(2)}, "equally long"),
        ({"x": np.zeros((3, 2))}, "equally long"),
        ({}, "equally long"),
        ({"x": np.array([1j, 2j])}, "column `x` must hold numbers or text"),
        ({"x": np.array(["a", 1], dtype=object)}, "column `x` must hold numbers or text"),
        ({"x": np.array(["a", None], dtype=object)}, "column `x` must hold numbers or text"),
        ({"x": np.array([b"a", b"b"])}, "column `x` must hold numbers or text"),
        ({"x": np.array(["a", "b\0c"])}, r"^'b\\x00c' cannot be stored in HDF5: there is a zero byte"),
        ({"x": np.array(["\ud800"], dtype=object)}, "it is not valid Unicode"),
        ({"km/h": np.zeros(3)}, "column `km/h` cannot be written"),
        ({"": np.zeros(3)}, "HDF5 allows no such name"),
    ],
)
def test_columns_that_cannot_be_stored_are_named(
    tmp_path: Path, columns: dict[str, np.ndarray], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        write_table(tmp_path / "t.h5", columns, {}, {})
    assert not list(tmp_path.iterdir())


def test_names_that_hdf5_cannot_hold_fit_into_csv(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"km/h": np.ones(2)}, {}, {})
    assert list(read_back(tmp_path / "t.csv")) == ["km/h"]
