"""What `runs list` and `runs show` say of runs that did not come to a good end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, TINY_CNF, flowbench

from flowbench.store import Run

Call = Callable[..., tuple[int, str, str]]


def status_of(run: Call, name: str) -> str:
    """The status in the table and in JSON, which have to be the same."""
    code, out, _ = run("runs", "list")
    rows = {line.split("\t")[0]: line.split("\t") for line in out.splitlines()}
    assert code == 0
    assert list(rows["name"]) == ["name", "model", "dataset", "status", "started (UTC)"]
    told = {each["name"]: each for each in json.loads(run("runs", "list", "--json")[1])}
    assert told[name]["status"] == rows[name][3]
    return rows[name][3]


def copied(home: Path, source: str, name: str, status: str) -> Run:
    shutil.copytree(home / "runs" / source, home / "runs" / name)
    run = Run.open(home / "runs" / name)
    run.update_info(status=status)
    return run


def test_a_fit_that_is_killed_is_said_to_be(run: Call, home: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "flowbench", "fit", "table.csv", "--name", "k", *TINY_CNF, *SMALL]
    with subprocess.Popen(
        [*command, "--steps", "1000000"], cwd=home, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step" in line:
                break
        assert status_of(run, "k") == "running"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert status_of(run, "k") == "killed"
    code, out, _ = run("runs", "show", "k")
    assert code == 0
    assert out.startswith("k: cnf on table, killed\n")
    assert "go on with `flowbench fit --resume k`" in out
    assert json.loads(run("runs", "show", "k", "--json")[1])["info"]["status"] == "killed"


def test_a_killed_run_is_gone_on_with_as_it_is_told_to(run: Call, home: Path) -> None:
    killed = copied(home, "c", "k", "running")
    (killed.path / "results.h5").unlink()
    assert status_of(run, "k") == "killed"
    assert run("fit", "--resume", "k")[0] == 0
    assert status_of(run, "k") == "finished"


def test_compare_goes_on_with_a_killed_run(run: Call, home: Path) -> None:
    table = str(home.parent / "table.csv")
    shutil.copy(home / "table.csv", table)
    assert run("fit", table, "--model", "gaussian", "--name", "k", *SMALL)[0] == 0
    Run.open(home / "runs" / "k").update_info(status="running")
    assert status_of(run, "k") == "killed"
    code, out, _ = run("compare", table, "--models", "gaussian", "--json", *SMALL)
    assert code == 0
    assert json.loads(out)["runs"] == ["runs/k"]
    assert status_of(run, "k") == "finished"


def test_weights_that_were_cut_off_are_told(run: Call, home: Path) -> None:
    cut = copied(home, "c", "cut", "finished")
    whole = (cut.path / "model.safetensors").read_bytes()
    (cut.path / "model.safetensors").write_bytes(whole[:-8])
    assert status_of(run, "cut") == "damaged"
    assert status_of(run, "c") == "finished"
    code, _, err = run("runs", "list")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("warning: cut: runs/cut/model.safetensors is not a whole safetensors file")
    # The length is right again; only the checksum tells.
    (cut.path / "model.safetensors").write_bytes(whole[:-8] + bytes(8))
    code, out, err = run("runs", "show", "cut")
    assert code == 5
    assert out.startswith("cut: cnf on table, damaged\nfault: runs/cut/model.safetensors is damaged")
    assert "test_nll" in out
    assert err.startswith("error: the run `cut` is damaged: runs/cut/model.safetensors")


def test_results_that_are_damaged_are_told_beside_the_rest(run: Call, home: Path) -> None:
    bad = copied(home, "g", "bad", "finished")
    (bad.path / "results.h5").write_bytes(b"garbage")
    assert status_of(run, "bad") == "damaged"
    code, out, err = run("runs", "show", "bad", "--json")
    assert (code, err.count("\n")) == (5, 1)
    told = json.loads(out)
    assert (told["info"]["status"], told["metrics"]) == ("damaged", {})
    assert "results.h5 is not a whole HDF5 file" in told["info"]["faults"][0]
    assert told["config"]["flow"]["name"] == "gaussian"


@pytest.mark.parametrize("name", ["model.safetensors", "results.h5"])
def test_a_finished_run_without_its_files_is_incomplete(run: Call, home: Path, name: str) -> None:
    robbed = copied(home, "g", "robbed", "finished")
    (robbed.path / name).unlink()
    assert status_of(run, "robbed") == "incomplete"
    assert run("runs", "list")[2] == f"warning: robbed: runs/robbed/{name} is missing\n"
    code, out, err = run("runs", "show", "robbed")
    assert (code, err) == (0, "")
    assert f"fault: runs/robbed/{name} is missing\n" in out


def test_times_say_that_they_are_in_utc(run: Call, home: Path) -> None:
    Run.open(home / "runs" / "g").update_info(created="2026-11-30T08:50:59.5+02:00")
    assert "\t2026-11-30 06:50\n" in run("runs", "list")[1]
    assert "started: 2026-11-30 06:50 UTC\n" in run("runs", "show", "g")[1]


def test_runs_in_a_folder_that_cannot_be_written_to(home: Path) -> None:
    """As those of others, or on a medium that is read-only."""
    copied(home, "g", "theirs", "running")
    (home / "runs" / "theirs" / ".lock").unlink()
    for folder in (home / "runs" / "theirs", home / "runs"):
        folder.chmod(0o555)
    done = flowbench("runs", "list", cwd=home)
    shown = flowbench("runs", "show", "theirs", cwd=home)
    for folder in (home / "runs", home / "runs" / "theirs"):
        folder.chmod(0o755)
    assert (done.returncode, done.stderr, shown.returncode) == (0, "", 0)
    assert "theirs\tgaussian\ttable\tkilled\t" in done.stdout
    assert not (home / "runs" / "theirs" / ".lock").exists()
