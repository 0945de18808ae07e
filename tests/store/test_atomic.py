"""Files change whole or not at all, and a disk that refuses gives an error that says so."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from flowbench.errors import ConfigurationError, DamagedFileError, RunFailedError
from flowbench.store import Run, atomic_write, write_table
from flowbench.store.atomic import partial_beside, remove_partials


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to make any file larger than `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_file_appears_with_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with atomic_write(path) as partial:
        assert partial.parent == tmp_path
        partial.write_text("new")
        assert not path.exists()
    (tmp_path / "plain").write_text("")
    assert path.read_text() == "new"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path) == {"table.csv", "plain"}


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == {"table.csv"}


def test_a_file_that_fails_its_check_does_not_replace_the_old_one(tmp_path: Path) -> None:
    def refuse(partial: Path) -> None:
        raise DamagedFileError(f"{partial.read_text()} is damaged")

    path = tmp_path / "table.csv"
    path.write_text("old")
    with (
        pytest.raises(DamagedFileError, match="new is damaged"),
        atomic_write(path, verify=refuse) as partial,
    ):
        partial.write_text("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"table.csv"}


def test_remove_partials_takes_only_what_killed_writers_left(tmp_path: Path) -> None:
    partial_beside(tmp_path / "results.h5").write_text("half")
    (tmp_path / "notes.partial").write_text("mine")
    (tmp_path / ".hidden").write_text("mine")
    another = partial_beside(tmp_path / "scores.h5")
    another.write_text("another writer is at work on it")
    remove_partials(tmp_path, ["results.h5", "run.json"])
    assert names(tmp_path) == {"notes.partial", ".hidden", another.name}


def test_a_partial_of_a_long_name_has_a_name_that_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("東" * 84 + "[a]")
    with atomic_write(path) as partial:
        partial.write_text("new")
    partial_beside(path).write_text("half")
    remove_partials(tmp_path, [path.name])
    assert names(tmp_path) == {path.name}


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for path in (
        tmp_path / "missing" / "out.csv",
        tmp_path / "file" / "out.csv",
        tmp_path / "folder.csv",
        tmp_path / ("x" * 300 + ".csv"),
        Path("/proc/out.csv"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            write_table(path, {"x": np.zeros(3)}, {}, {})
        assert f"cannot write {path}: " in str(caught.value)
    assert names(tmp_path) == {"file", "folder.csv"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the superuser")
def test_a_forbidden_folder_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    run.path.chmod(0o500)
    try:
        with pytest.raises(ConfigurationError, match="Permission denied"):
            run.update_info(status="running")
    finally:
        run.path.chmod(0o700)


@pytest.mark.parametrize("ending", [".h5", ".csv", ".csv.gz", ".parquet"])
def test_a_full_disk_leaves_the_old_table(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    write_table(path, {"x": np.zeros(3)}, {}, {})
    old = path.read_bytes()
    noise = np.random.default_rng(0).normal(size=50_000)
    with largest_file(20_000), pytest.raises(RunFailedError, match=r"cannot write .*[Ff]ree some space"):
        write_table(path, {"x": noise}, {}, {})
    assert path.read_bytes() == old
    assert names(tmp_path) == {path.name}


def test_a_full_disk_leaves_the_old_tensors(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    run.save_model({"w": np.zeros(3)}, {})
    with largest_file(20_000), pytest.raises(RunFailedError, match=r"model\.safetensors"):
        run.save_model({"w": np.zeros(50_000)}, {})
    assert run.load_model()[0]["w"].shape == (3,)


def test_metrics_on_a_full_disk_keep_the_whole_lines(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    record = {"step": 1, "text": "x" * 1000}
    with largest_file(5_000), pytest.raises(RunFailedError, match=r"metrics\.jsonl"):
        for _ in range(10):
            run.append_metrics(record)
    assert run.metrics() == [record] * 4
    run.append_metrics({"step": 2})
    assert run.metrics() == [record] * 4 + [{"step": 2}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_device_without_space_is_reported(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunFailedError, match="No space left on device"):
        run.append_metrics({"step": 1})


KILL_AT = """
import os, signal, sys
from pathlib import Path
from flowbench.store import atomic_write

path, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment in {"fsync", "replace"}:
    setattr(os, moment, die)
with atomic_write(path, verify=die if moment == "verify" else None) as partial:
    partial.write_text("ne")
    if moment == "write":
        die()
    partial.write_text("new")
"""


@pytest.mark.parametrize("moment", ["write", "fsync", "verify", "replace"])
def test_killed_at_any_step_the_old_file_stands(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILL_AT, path, moment], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    remove_partials(tmp_path, ["run.json"])
    assert names(tmp_path) == {"run.json"}
