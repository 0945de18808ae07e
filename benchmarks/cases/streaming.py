"""Scoring a table of ten million rows: the memory beside that of a short one, and what a kill costs."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.harness import ONE_THREAD, ROOT, ContenderError, Outcome, scratch

MIB = 2**20
COLUMNS = ("a", "b", "c")
#: Rows of a row group, which no part ends with.
GROUP = 500_000
#: Rows of a kept part, and seconds after which a command is given up.
PART_ROWS, LIMIT = 65_536, 1800.0
#: The most memory that the long table may take, as a multiple of that of the short one.
ALLOWED = 1.5
FIT = ("--model", "gaussian", "--name", "g", "--set", "evaluation.certificates=false")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its seconds, its peak memory, and the row at which it was taken up."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    taken_up: int


def run(*, quick: bool) -> Outcome:
    """Parquet files of 10^5 and 10^7 rows (quick: 10^6), three columns, under a Gaussian."""
    outcome = Outcome(
        notes=[
            "Peak resident memory of `flowbench score` and `flowbench sample`, each a process of its own.",
            "The command that is killed gets SIGKILL once half of the parts are kept; the same command then "
            "takes them up. `same bytes` compares the sha256 with that of the uninterrupted one.",
            f"`allowed` is the most that was asked for: {ALLOWED} times the memory of 100,000 rows.",
        ]
    )
    long = 10**6 if quick else 10**7
    with scratch() as folder:
        for name, rows in (("short", 10**5), ("long", long)):
            _write_rows(folder / f"{name}.parquet", rows)
        _finished(folder, ["fit", "short.parquet", *FIT])
        for ending in ("parquet", "csv", "h5"):
            score = ["score", "g", "long.parquet", "-o"]
            short = _finished(folder, ["score", "g", "short.parquet", "-o", f"few.{ending}"])
            _measure(outcome, folder, f"score to {ending}", score, ending, long, short)
        short = _finished(folder, ["sample", "g", "-n", str(10**5), "-o", "drawn.parquet"])
        sample = ["sample", "g", "-n", str(long), "-o"]
        _measure(outcome, folder, "sample to parquet", sample, "parquet", long, short)
    return outcome


def _measure(
    outcome: Outcome, folder: Path, what: str, command: Sequence[str], ending: str, rows: int, short: Ended
) -> None:
    """Run a command whole, and killed half way and again; `short` is the same with 100,000 rows."""
    whole = _finished(folder, [*command, f"whole.{ending}"])
    _killed(folder, [*command, f"killed.{ending}"], rows // PART_ROWS // 2)
    again = _finished(folder, [*command, f"killed.{ending}"])
    hashes = {_sha256(folder / f"{name}.{ending}") for name in ("whole", "killed")}
    outcome.add(
        "streaming",
        {
            "what": what,
            "rows": f"{rows:,}",
            "MiB, 100,000 rows": round(short.peak_bytes / MIB),
            "MiB": round(whole.peak_bytes / MIB),
            "MiB, taken up": round(again.peak_bytes / MIB),
            "ratio": round(max(whole.peak_bytes, again.peak_bytes) / short.peak_bytes, 3),
            "allowed": ALLOWED,
            "s": round(whole.seconds, 1),
            "CPU s": round(whole.cpu_seconds, 1),
            "taken up at row": f"{again.taken_up:,}",
            "s, taken up": round(again.seconds, 1),
            "same bytes": "yes" if len(hashes) == 1 else "no",
        },
    )
    for name in ("whole", "killed"):
        (folder / f"{name}.{ending}").unlink()


def _write_rows(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, GROUP):
            z = rng.normal(size=(min(GROUP, rows - first), len(COLUMNS)))
            z[:, 1] += z[:, 0] ** 2
            writer.write_table(pa.table(dict(zip(COLUMNS, z.T, strict=True))))


def _start(folder: Path, command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "flowbench", *command],
            cwd=folder,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )


def _finished(folder: Path, command: Sequence[str]) -> Ended:
    """Run a command to its end; raises `ContenderError` if it fails."""
    log, began = folder / "messages.log", time.monotonic()
    process = _start(folder, command, log)
    # Only wait4 tells the memory of this process alone.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    told = log.read_text(encoding="utf-8")
    if process.returncode:
        raise ContenderError(f"{' '.join(command)}: {told.strip().splitlines()[-1:]}")
    found = re.search(r"taking up at row ([\d,]+)", told)
    return Ended(
        time.monotonic() - began,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        int(found[1].replace(",", "")) if found else 0,
    )


def _killed(folder: Path, command: Sequence[str], parts: int) -> None:
    """Kill a command once it has kept so many parts; raises `ContenderError` if it has ended before."""
    process, began = _start(folder, command, folder / "killed.log"), time.monotonic()
    kept = folder / f"{command[-1]}.parts"
    while len(list(kept.glob("*.arrow"))) < parts:
        if process.poll() is not None or time.monotonic() - began > LIMIT:
            process.kill()
            process.wait()
            raise ContenderError(f"{' '.join(command)} kept no {parts} parts")
        time.sleep(0.01)
    process.kill()
    if process.wait() != -signal.SIGKILL or (folder / command[-1]).exists():
        raise ContenderError(f"{' '.join(command)} ended before it was killed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
