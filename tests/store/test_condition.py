"""What is said of a run: that it was killed, that it is not whole, or that it cannot be read."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from flowbench.errors import ConfigurationError, DamagedFileError, RunExistsError, RunLockedError
from flowbench.store import Metric, Results, RowSplit, Run, Samples, ScoredRows, condition_of
from flowbench.store import run as run_module
from flowbench.workflows.home import Home

FILES = ("model.safetensors", "results.h5")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "runs" / "moons", {"seed": 0}, {"status": "finished"})
    rows = np.arange(40)
    x = np.random.default_rng(0).normal(size=(40, 2))
    results = Results(
        ("x", "y"),
        ScoredRows(rows, x, x[:, 0]),
        Samples(x, x[:, 0]),
        RowSplit(rows, rows[:5], rows[:5]),
        {"test_nll": Metric(1.0, "nats")},
    )
    with made.lock():
        made.append_metrics({"step": 1})
        made.save_model({"w": np.ones(500)}, {})
        made.save_resume({"w": np.ones(500)}, {})
        made.write_results(results)
    return made


def hold(run: Run) -> subprocess.Popen[str]:
    """Another process that holds the lock of `run`."""
    program = (
        "import sys; from pathlib import Path; from flowbench.store import Run\n"
        "with Run(Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_run_whose_process_is_gone_was_killed(run: Run) -> None:
    run.update_info(status="running")
    with hold(run) as holder:
        assert run.status == condition_of(run).status == "running"
        holder.kill()
    assert holder.returncode == -signal.SIGKILL
    assert run.status == condition_of(run).status == "killed"
    assert run.info["status"] == "running"
    with run.lock():
        assert run.status == "running"
        run.update_info(status="interrupted")
    assert run.status == "interrupted"


def test_looking_makes_no_file(run: Run) -> None:
    (run.path / ".lock").unlink()
    run.update_info(status="running")
    run.path.chmod(0o555)
    assert run.status == "killed"
    assert not (run.path / ".lock").exists()


def test_who_looks_keeps_no_writer_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PATIENCE", 60.0)
    descriptor = os.open(run.path / ".lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    run.update_info(status="running")
    assert run.status == "killed"  # another who looks is not taken for a writer
    threading.Timer(0.2, os.close, [descriptor]).start()
    with run.lock():
        pass


def test_a_lock_that_cannot_be_looked_at_is_taken_to_be_held(run: Run) -> None:
    run.update_info(status="running")
    (run.path / ".lock").unlink()
    (run.path / ".lock").symlink_to(run.path / ".lock")
    assert run.status == "running"


def test_a_new_run_is_locked_before_it_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    rename = os.rename

    def rename_and_look(source: Path, target: Path) -> None:
        rename(source, target)
        if target.name == "new":
            seen.append(Run.open(target).status)

    monkeypatch.setattr(os, "rename", rename_and_look)
    with ExitStack() as held:
        run = Home(tmp_path).create_run("new", "", {}, {"status": "running"}, held)
        assert run.status == "running"
        with pytest.raises(RunLockedError), run.lock():
            pass
        with pytest.raises(RunExistsError):
            Home(tmp_path).create_run("new", "", {}, {"status": "running"}, held)
        assert [path.name for path in run.path.parent.iterdir()] == ["new"]
    assert seen == ["running"]
    assert run.status == "killed"
    with run.lock():
        pass


def test_a_whole_run_has_no_faults(run: Run) -> None:
    for thorough in (False, True):
        assert condition_of(run, thorough=thorough).faults == ()
        assert condition_of(run, thorough=thorough).status == "finished"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 6, 200, -1])
def test_a_file_that_was_cut_off_is_damage(run: Run, name: str, left: int) -> None:
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content[:left])
    found = condition_of(run)
    assert found.status == "damaged"
    assert len(found.faults) == 1
    assert f"{run.path / name} is not a whole" in found.faults[0]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_makes_a_finished_run_incomplete(run: Run, name: str) -> None:
    (run.path / name).unlink()
    found = condition_of(run)
    assert (found.status, found.faults) == ("incomplete", (f"{run.path / name} is missing",))
    run.update_info(status="interrupted")
    assert condition_of(run).faults == ()


@pytest.mark.parametrize("name", [*FILES, "config.toml", "metrics.jsonl"])
def test_a_thorough_look_finds_a_changed_byte(run: Run, name: str) -> None:
    content = bytearray((run.path / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (run.path / name).write_bytes(content)
    assert condition_of(run, thorough=True).status == "damaged"


def test_a_state_that_is_damaged_matters_until_the_end(run: Run) -> None:
    (run.path / "resume.safetensors").write_bytes(b"garbage")
    assert condition_of(run).status == "finished"
    run.update_info(status="interrupted")
    assert condition_of(run).status == "damaged"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_opened_is_not_called_damaged(run: Run, name: str) -> None:
    """With all files open that a process may have, the file is whole and cannot be read."""
    loads = {"model.safetensors": run.load_model, "results.h5": run.read_results}
    load = loads[name]
    load()  # whatever it imports is imported
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)
    os.close(taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
    try:
        with pytest.raises(ConfigurationError, match=r"cannot read .*: .*close other files"):
            load()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_system_refuses_to_a_library_is_not_called_damaged(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "unable to lock file")

    monkeypatch.setattr("flowbench.store.tensors.safe_open", refuse)
    monkeypatch.setattr("h5py.File", refuse)
    load = {"model.safetensors": run.load_model, "results.h5": run.read_results}[name]
    with pytest.raises(ConfigurationError, match="another program may hold it"):
        load()
    found = condition_of(run, thorough=True)
    assert found.status == "finished"
    assert len(found.faults) == 2


def test_a_file_system_without_locks_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, **options: object) -> None:
        raise NotImplementedError("no flock")

    monkeypatch.setattr("flowbench.store.run.FileLock.acquire", refuse)
    with pytest.raises(ConfigurationError, match="file system without locks"), run.lock():
        pass


def test_damage_is_still_damage(run: Run) -> None:
    (run.path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(DamagedFileError, match="not a whole safetensors file"):
        run.load_model()
