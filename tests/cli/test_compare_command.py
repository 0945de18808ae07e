"""A comparison beside other processes, and beside folders that are no whole runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, TINY_CNF, start_long_fit, write_csv

from flowbench.models.classical.boosted_trees import BoostedTrees
from flowbench.store import Run

Call = Callable[..., tuple[int, str, str]]

HOLDER = """
import sys
from pathlib import Path
from flowbench.store import Run

with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_fits_is_not_fitted_beside_it(run: Call, home: Path) -> None:
    process = start_long_fit(home, "table-cnf", ["compare", "table.csv", "--models", "cnf"])
    write_csv(home / "other.csv")
    try:
        long = [*TINY_CNF, *SMALL, "--steps", "100000"]
        code, out, err = run("compare", "other.csv", "table.csv", "--models", "cnf", *long)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert (code, out) == (4, "")
    assert "another process is fitting cnf (seed 0) on table.csv, in the run `table-cnf`" in err
    # It is told before anything is fitted.
    assert {path.name for path in (home / "runs").iterdir()} == {"g", "c", "table-cnf"}
    assert not (home / "reports").exists()


def test_a_run_that_another_process_has_just_taken_up_is_not_fitted_anew(run: Call, home: Path) -> None:
    assert run("fit", "table.csv", "--name", "mine", *TINY_CNF, *SMALL)[0] == 0
    compare = ["compare", "table.csv", "--models", "cnf", *TINY_CNF, *SMALL]
    found = Run.open(home / "runs" / "mine")
    found.update_info(status="interrupted")
    before = sorted(path.name for path in (home / "runs").iterdir())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, found.path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    code, out, err = run(*compare)
    holder.communicate(timeout=60)
    assert (code, out) == (4, "")
    assert "in the run `mine`" in err
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    assert run(*compare)[0] == 0
    assert sorted(path.name for path in (home / "runs").iterdir()) == before


@pytest.mark.parametrize("models", ["gaussian", "gaussian,kde"])
def test_folders_that_cannot_be_read_are_told_once(run: Call, home: Path, models: str) -> None:
    runs = home / "runs"
    (runs / "half").mkdir()
    (runs / "half" / "config.toml").write_text("")
    (runs / "c" / "config.toml").write_text("no = = toml")
    # This one has the configuration that is asked for.
    assert run("fit", "table.csv", "--model", "gaussian", "--name", "old", *SMALL)[0] == 0
    (runs / "old" / "run.json").write_text('{"status": "finished"}')
    code, out, err = run("compare", "table.csv", "--models", models, *SMALL)
    assert (code, out) == (0, "reports/table/index.html\n")
    told = [line for line in err.splitlines() if line.startswith("warning: passed over: ")]
    assert len(told) == 3
    for part in ("runs/half is not a run folder", "runs/c/config.toml is not valid TOML",
                 "runs/old/run.json does not say which data"):  # fmt: skip
        assert sum(part in line for line in told) == 1


def test_whole_runs_of_something_else_are_passed_over_in_silence(run: Call, home: Path) -> None:
    code, _, err = run("compare", "table.csv", "--models", "kde", *SMALL)
    assert code == 0
    assert "passed over" not in err


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_a_model_whose_package_is_missing_is_told_before_anything_is_fitted(
    run: Call, home: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(BoostedTrees, "packages", ("a_package_that_nobody_has",))
    asked = {"fit": ["--model", "ngboost"], "compare": ["--models", "gaussian,ngboost", "--seeds", "7"]}
    code, out, err = run(command, "table.csv", *asked[command], *SMALL)
    assert (code, out) == (2, "")
    assert "pip install '.[ngboost]'" in err and len(err.splitlines()) == 1
    assert {path.name for path in (home / "runs").iterdir()} == {"g", "c"}
