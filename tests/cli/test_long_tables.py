"""Tables in parts: scored and drawn as whole ones are, and taken up after a kill."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from flowbench.data import raw_table, text_stream
from flowbench.store import Run
from flowbench.store.table_parts import Columns, StoredParts
from flowbench.workflows import in_parts
from flowbench.workflows.scoring import score

Call = Callable[..., tuple[int, str, str]]

PART = 64
ROWS = 330
#: The command in a process of its own, with small parts, and slow enough to be killed between two of them.
SLOW = f"""
import sys, time
from flowbench.cli.app import run_app
from flowbench.store.table_parts import StoredParts
from flowbench.workflows import in_parts
in_parts.PART_ROWS = {PART}
append = StoredParts.append
def slow(self, columns, state):
    append(self, columns, state)
    time.sleep(0.3)
StoredParts.append = slow
sys.exit(run_app(sys.argv[1:]))
"""


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(ROWS, 2))


@pytest.fixture
def table(home: Path, rows: np.ndarray) -> str:
    """A Parquet file whose row groups end elsewhere than parts do, with unfit cells in later parts."""
    unfit = rows.copy()
    unfit[200, 1], unfit[301, 0] = np.nan, np.inf
    columns = {"b": pa.array(unfit[:, 1], from_pandas=True), "other": ["x"] * ROWS, "a": unfit[:, 0]}
    parquet.write_table(pa.table(columns), home / "long.parquet", row_group_size=50)
    return "long.parquet"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_parts, "PART_ROWS", PART)


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".h5":
        import xarray

        return xarray.open_dataset(path, engine="h5netcdf").to_dataframe().reset_index()
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".feather":
        return pd.read_feather(path)
    return pd.read_csv(path, keep_default_na=False, na_values={"log_prob": "nan", "log_prob_error": "nan"})


def start(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The slow command, as soon as it has kept two parts."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], cwd=home, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(home.glob("*.parts/*.arrow"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def kill(home: Path, *arguments: str) -> None:
    """Kill the slow command once it has kept two parts."""
    process = start(home, *arguments)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def break_off(run: Call, *arguments: str) -> None:
    """End the command with an error once it has kept two parts."""
    append = StoredParts.append

    def failing(self: StoredParts, columns: Columns, state: Mapping[str, Any]) -> None:
        if len(self) == 2:
            raise ZeroDivisionError
        append(self, columns, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredParts, "append", failing)
        code, _, err = run(*arguments)
    assert code == 70 and f"{2 * PART} of {ROWS} rows are kept in" in err


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "feather", "h5"])
def test_scores_in_parts_are_those_of_the_whole(
    run: Call, home: Path, table: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Gaussian solves nothing, so its errors do not depend on the part either."""
    assert run("score", "g", table, "-o", f"whole.{ending}")[0] == 0
    monkeypatch.setattr(in_parts, "PART_ROWS", PART)
    code, out, err = run("score", "g", table, "-o", f"parts.{ending}", "--json")
    assert code == 0
    whole, parts = ((home / f"{name}.{ending}") for name in ("whole", "parts"))
    if ending.startswith("csv"):
        unpacked = gzip.decompress if ending.endswith("gz") else bytes
        assert unpacked(whole.read_bytes()) == unpacked(parts.read_bytes())
    else:
        pd.testing.assert_frame_equal(read(whole), read(parts), check_exact=True)
    assert not list(home.glob("*.parts")) and not list(home.glob(".*.partial"))
    told = json.loads(out)
    found = score(Run.open(home / "runs" / "g"), str(home / table))
    assert (told["rows"], told["rows_scored"], told["rows_flagged"]) == (ROWS, ROWS - 2, 2)
    assert told["reasons"] == {"missing cell in `b`": 1, "infinite value in `a`": 1} == found.counts()
    assert told["mean_log_prob"] == pytest.approx(found.log_prob[found.scored].mean(), rel=1e-13)
    assert told["log_prob_error_largest"] == found.log_prob_error[found.scored].max()
    assert "2 of 330 rows have no log-likelihood" in err
    assert found.row.tolist() == list(range(ROWS)) and found.flagged[200] == "missing cell in `b`"


@pytest.mark.usefixtures("small_parts")
def test_likelihoods_of_a_continuous_flow_do_not_depend_on_the_part(
    run: Call, home: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--set", "evaluation.error_rows=20"]
    assert run("score", "c", table, "-o", "parts.csv", *few)[0] == 0
    monkeypatch.setattr(in_parts, "PART_ROWS", ROWS)
    assert run("score", "c", table, "-o", "whole.csv", *few)[0] == 0
    whole, parts = (read(home / f"{name}.csv") for name in ("whole", "parts"))
    assert np.nanmax(np.abs(whole["log_prob"] - parts["log_prob"])) < 1e-12
    known = np.isfinite(whole["log_prob_error"])
    assert known.sum() == ROWS - 2 and (known == np.isfinite(parts["log_prob_error"])).all()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.usefixtures("small_parts")
def test_long_text_of_plain_numbers_is_never_whole(
    run: Call, home: Path, rows: np.ndarray, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame(rows, columns=["b", "a"])
    frame.iloc[150, 0] = np.nan
    frame.insert(0, "name", "x,y" if suffix == ".tsv" else "x")
    name = f"text{suffix}"
    frame.to_csv(home / name, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert run("score", "g", name, "-o", "whole.csv")[0] == 0
    monkeypatch.setattr(text_stream, "STREAMED_BYTES", 0)
    monkeypatch.setattr(raw_table, "LARGEST_TABLE_BYTES", 1000)
    assert run("score", "g", name, "-o", "parts.csv")[0] == 0
    assert (home / "whole.csv").read_bytes() == (home / "parts.csv").read_bytes()
    # What means more than a plain number is read whole, which is bounded.
    frame["a"] = frame["a"].astype(str).str.replace("-", "minus ")
    frame.to_csv(home / name, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert "above the bound" in run("score", "g", name, "-o", "more.csv")[2]


@pytest.mark.usefixtures("small_parts")
def test_a_long_parquet_file_is_not_bounded(
    run: Call, home: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_table, "LARGEST_TABLE_BYTES", 10)
    assert run("score", "g", table, "-o", "scores.csv")[0] == 0
    assert "above the bound" in run("datasets", "show", table)[2]


@pytest.mark.usefixtures("small_parts")
def test_strict_stops_at_the_first_row_and_keeps_nothing(run: Call, home: Path, table: str) -> None:
    code, _, err = run("score", "g", table, "-o", "scores.csv", "--strict")
    assert code == 3
    assert "column `b`, row 201: the cell is missing" in err
    few = ["--set", "evaluation.integrator.max_nfe=12"]
    parquet.write_table(pa.table({"a": [0.0] * 70 + [9e3] * 3, "b": [0.0] * 73}), home / "far.parquet")
    code, _, err = run("score", "c", "far.parquet", "-o", "scores.csv", "--strict", *few)
    assert code == 1
    assert {each.name for each in home.iterdir()} & {"scores.csv", "scores.csv.parts"} == set()


@pytest.mark.parametrize("ending", ["parquet", "h5"])
@pytest.mark.usefixtures("small_parts")
def test_a_killed_score_is_taken_up_and_gives_the_same_bytes(
    run: Call, home: Path, table: str, ending: str
) -> None:
    code, whole, _ = run("score", "g", table, "-o", f"whole.{ending}", "--json")
    assert code == 0
    kill(home, "score", "g", table, "-o", f"killed.{ending}")
    assert not (home / f"killed.{ending}").exists()
    code, out, err = run("score", "g", table, "-o", f"killed.{ending}", "--json")
    assert code == 0
    assert any(f"taking up at row {PART * k} of {ROWS}" in err for k in (2, 3, 4))
    assert (home / f"killed.{ending}").read_bytes() == (home / f"whole.{ending}").read_bytes()
    assert json.loads(out) == json.loads(whole) | {"file": f"killed.{ending}"}
    assert not list(home.glob("*.parts"))


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_score_says_how_to_go_on(run: Call, home: Path, table: str) -> None:
    process = start(home, "score", "g", table, "-o", "scores.csv")
    locked = run("score", "g", table, "-o", "scores.csv")
    assert locked[0] == 4 and "another process is writing scores.csv" in locked[2]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rows are kept in scores.csv.parts; the same command goes on from there" in err
    assert "taking up at row" in run("score", "g", table, "-o", "scores.csv")[2]


@pytest.mark.parametrize("change", ["table", "run", "choice of options"])
@pytest.mark.usefixtures("small_parts")
def test_parts_of_something_else_are_not_taken_up(
    run: Call, home: Path, table: str, rows: np.ndarray, change: str
) -> None:
    break_off(run, "score", "g", table, "-o", "scores.csv")
    name, options = "g", list[str]()
    if change == "table":
        parquet.write_table(pa.table({"a": rows[:, 0], "b": rows[:, 1]}), home / table)
    elif change == "run":
        small = ["--model", "gaussian", "--set", "evaluation.certificates=false"]
        assert run("fit", "table.csv", "--name", "again", "--seed", "1", *small)[0] == 0
        name = "again"
    else:
        options = ["--max-error", "1e-3"]
    code, _, err = run("score", name, table, "-o", "scores.csv", *options)
    assert code == 0
    assert f"holds parts from before, with another {change}" in err
    assert "taking up" not in err
    assert run("score", name, table, "-o", "fresh.csv", *options)[0] == 0
    assert (home / "scores.csv").read_bytes() == (home / "fresh.csv").read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_and_a_foreign_folder_are_refused(run: Call, home: Path, table: str) -> None:
    (home / "scores.csv.parts").mkdir()
    (home / "scores.csv.parts" / "mine.txt").write_text("precious")
    code, _, err = run("score", "g", table, "-o", "scores.csv")
    assert code == 2 and "scores.csv.parts is in the way" in err
    break_off(run, "score", "g", table, "-o", "killed.csv")
    first = home / "killed.csv.parts" / "00000000.arrow"
    first.write_bytes(first.read_bytes()[:100])
    code, _, err = run("score", "g", table, "-o", "killed.csv")
    assert code == 5 and "00000000.arrow is damaged" in err
    assert not (home / "killed.csv").exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_draws_are_the_same_rows_however_many_and_after_a_kill(
    run: Call, home: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("sample", "g", "-n", "64", "-o", f"few.{ending}")[0] == 0
    monkeypatch.setattr(in_parts, "PART_ROWS", PART)
    assert run("sample", "g", "-n", "64", "-o", f"part.{ending}")[0] == 0
    assert (home / f"few.{ending}").read_bytes() == (home / f"part.{ending}").read_bytes()
    code, out, _ = run("sample", "g", "-n", str(ROWS), "-o", f"whole.{ending}", "--json")
    assert code == 0
    kill(home, "sample", "g", "-n", str(ROWS), "-o", f"killed.{ending}")
    code, again, err = run("sample", "g", "-n", str(ROWS), "-o", f"killed.{ending}", "--json")
    assert code == 0 and "taking up at row" in err
    assert (home / f"killed.{ending}").read_bytes() == (home / f"whole.{ending}").read_bytes()
    assert json.loads(again) == json.loads(out) | {"file": f"killed.{ending}"}
    whole = read(home / f"whole.{ending}")
    pd.testing.assert_frame_equal(whole[:64], read(home / f"few.{ending}"))
    assert len(whole) == ROWS and whole["a"].nunique() == ROWS
    assert json.loads(out)["mean_log_prob"] == pytest.approx(whole["log_prob"].mean())
