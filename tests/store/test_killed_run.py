"""A real process that writes a run is killed at arbitrary moments; what is left has to be whole."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flowbench.errors import RunLockedError
from flowbench.store import Run

# Every file of a generation holds its number, so a mixture of two would show.
WRITER = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from flowbench.store import Metric, Results, RowSplit, Run, Samples, ScoredRows

run = Run.open(Path(sys.argv[1]))
first = len(run.metrics())
rows = np.arange(200)
with run.lock():
    for k in count(first):
        whole = np.full((200, 2), float(k))
        scored = ScoredRows(rows, whole, whole[:, 0])
        split = RowSplit(rows, rows[:5], rows[:5])
        run.append_metrics({"step": k, "padding": "x" * 5000})
        run.save_model({"a": np.full(30_000, k), "b": np.full(30_000, k)}, {"k": str(k)})
        run.save_resume({"a": np.full(3, k)}, {"k": str(k)})
        run.write_results(
            Results(("x", "y"), scored, Samples(whole, whole[:, 0]), split, {"k": Metric(k, "1")})
        )
        run.update_info(k=k, padding=[k] * 1000)
        print(k, flush=True)
"""


def start_writer(run: Run) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, run.path], stdout=subprocess.PIPE, text=True)


def check_whole(run: Run) -> None:
    """Each file holds one generation only, at least the one that came before the kill."""
    steps = [record["step"] for record in run.metrics()]
    assert steps == list(range(len(steps)))
    tensors, metadata = run.load_model()
    assert {float(k) for tensor in tensors.values() for k in np.unique(tensor)} == {float(metadata["k"])}
    tensors, metadata = run.load_resume()
    assert set(tensors["a"]) == {int(metadata["k"])}
    results = run.read_results()
    assert set(results.samples.x.ravel()) == {results.metrics["k"].value}
    assert set(run.info["padding"]) == {run.info["k"]}
    assert run.info["k"] >= len(steps) - 2


def test_a_run_killed_again_and_again_stays_whole(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"data": {"seed": 1}}, {"status": "running"})
    moments = random.Random(0)
    for _ in range(6):
        writer = start_writer(run)
        assert writer.stdout is not None
        with writer.stdout as lines:
            lines.readline()
            time.sleep(moments.uniform(0.0, 0.1))
            writer.kill()
        assert writer.wait() == -signal.SIGKILL
        check_whole(run)
    with run.lock():
        assert not list(run.path.glob(".*.partial"))
    assert run.config == {"data": {"seed": 1}}


def test_the_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    writer = start_writer(run)
    assert writer.stdout is not None
    with writer.stdout as lines:
        lines.readline()
        with pytest.raises(RunLockedError, match="another process is writing to the run `run`"), run.lock():
            pass
        writer.kill()
    writer.wait()
    with run.lock(), pytest.raises(RunLockedError), run.lock():
        pass
    with run.lock():
        pass


def test_a_run_killed_while_it_is_made_is_not_there(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from flowbench.store import Run\n"
        "os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Run.create(Path(sys.argv[1]), {'a': 1}, {})"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "run"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "run").exists()
    assert Run.create(tmp_path / "run", {"a": 2}, {}).config == {"a": 2}
