"""Drawn rows are written as their table has them, and are the same rows when they are read again."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
from awkward import CASES, Case

from flowbench.data import Dataset, ReadOptions, load_dataset
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit
from flowbench.workflows.home import Home
from flowbench.workflows.sampling import DrawnRows, sample
from flowbench.workflows.scoring import score

ENDINGS = (".csv", ".tsv.gz", ".parquet", ".feather", ".h5")
#: A table with a column called `log_prob` is one that `sample` refuses.
READABLE = [name for name, case in CASES.items() if not case.refuses and "log_prob" not in case.names]
SETTINGS = [
    "evaluation.test_rows=5", "evaluation.samples=10", "evaluation.grid=4", "evaluation.paths=2",
    "evaluation.certificates=false",
]  # fmt: skip


def make(folder: Path, case: Case) -> str:
    path = folder / case.name
    case.write(path)
    return f"{path}:{case.inside}" if case.inside else str(path)


def typed(dataset: Dataset) -> dict[str, str]:
    return {column.name: column.type.storage for column in dataset.columns}


@pytest.mark.parametrize("name", READABLE)
def test_rows_are_the_same_when_read_again(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    dataset = load_dataset(make(tmp_path, case), columns=case.columns, reading=ReadOptions(**case.options))
    types = {column.name: column.type for column in dataset.columns}
    rows = dataset.rows[np.random.default_rng(0).permutation(len(dataset.rows))[:7]]
    restored = np.stack([each.restore(v) for each, v in zip(types.values(), rows.T, strict=True)], 1)
    np.testing.assert_allclose(restored, rows, rtol=1e-15)
    nothing = np.zeros(len(rows))
    drawn = DrawnRows(dataset.column_names, rows, nothing, nothing, types=types)
    run = Run.create(tmp_path / "run", {}, {"dataset": {"columns": list(types)}})
    formats = {each.format for each in types.values() if each.format}
    for ending in ENDINGS:
        if ending == ".h5" and any("/" in column for column in dataset.column_names):
            continue
        written = tmp_path / f"drawn{ending}"
        drawn.save(written, run)
        reading = ReadOptions(date_format=tuple(formats) or None)
        again = load_dataset(
            str(written), columns=dataset.column_names, for_fit=False, types=types, reading=reading
        )
        np.testing.assert_array_equal(again.rows, rows)
        # Parquet knows no times of day in whole seconds.
        if ending == ".feather" or (ending == ".parquet" and name != "times of day"):
            assert typed(again) == typed(dataset)


@pytest.mark.parametrize("name", READABLE)
def test_samples_of_a_fit_can_be_scored(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    reading = {f"data.{key}": value for key, value in case.options.items()}
    columns = {"data.columns": case.columns} if case.columns else {}
    config = resolve(make(tmp_path, case), "gaussian", overrides={**reading, **columns}, settings=SETTINGS)
    run = fit(config, home=Home(tmp_path))
    drawn = sample(run, 8)
    drawn.save(tmp_path / "x.csv", run)
    scored = score(run, str(tmp_path / "x.csv"))
    np.testing.assert_allclose(scored.log_prob, drawn.log_prob, rtol=1e-12, atol=1e-12)
    formats = tuple(each.format for each in drawn.types.values() if each.format)
    again = load_dataset(
        str(tmp_path / "x.csv"),
        columns=drawn.columns,
        for_fit=False,
        types=drawn.types,
        reading=ReadOptions(date_format=formats or None),
    )
    np.testing.assert_array_equal(again.rows, drawn.x)


def test_types_in_parquet(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "small": pa.array(random.integers(-100, 100, 50), pa.int8()),
            "single": pa.array(random.normal(size=50), pa.float32()),
            "price": pa.array(random.normal(size=50).round(2)).cast(pa.decimal128(10, 2)),
            "day": pa.array(np.datetime64("2020-01-01") + random.integers(0, 300, 50)),
            "at": pa.array(random.integers(0, 10**9, 50) * 1000).cast(pa.timestamp("ms", "Europe/Berlin")),
            "clock": pa.array(random.integers(0, 86400, 50)).cast(pa.int32()).cast(pa.time32("s")),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    run = fit(
        resolve(str(tmp_path / "t.parquet"), "gaussian", settings=SETTINGS), home=Home(tmp_path), name="g"
    )
    drawn = sample(run, 20)
    drawn.save(tmp_path / "x.parquet", run)
    written = parquet.read_table(tmp_path / "x.parquet")
    for name in ("single", "price", "day", "clock"):
        assert written.schema.field(name).type == parquet.read_schema(tmp_path / "t.parquet").field(name).type
    assert str(written.schema.field("at").type) == "timestamp[us, tz=Europe/Berlin]"
    # A draw beyond what a byte holds is not wrapped round.
    assert written.schema.field("small").type == (
        pa.int8() if np.abs(drawn.x[:, 0]).max() < 128 else pa.int64()
    )
    drawn.save(tmp_path / "x.csv", run)
    line = (tmp_path / "x.csv").read_text().splitlines()[1].split(",")
    assert "." not in line[0]
    assert len(line[2].partition(".")[2]) <= 2
    assert line[3].startswith("20")
