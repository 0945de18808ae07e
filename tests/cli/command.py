"""How tests run the command, and the smallest fits there are."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SMALL = [
    "--set", "evaluation.test_rows=50", "--set", "evaluation.samples=30",
    "--set", "evaluation.grid=12", "--set", "evaluation.paths=4", "--set", "evaluation.certificates=false",
]  # fmt: skip
TINY_CNF = ["--steps", "15", "--set", "flow.field.width=8", "--set", "flow.field.scales=1"]

#: Variables with which programs are told to write as if on a terminal.
LIKE_A_TERMINAL = dict.fromkeys(
    ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS"), "1"
)

Result = subprocess.CompletedProcess[str]


def flowbench(*arguments: str, cwd: Path, **variables: str) -> Result:
    """Run the real command, with `variables` in its environment."""
    command = [sys.executable, "-m", "flowbench", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def write_csv(path: Path, columns: tuple[str, ...] = ("a", "b"), n: int = 60) -> Path:
    rows = np.random.default_rng(0).normal(size=(n, len(columns)))
    np.savetxt(path, rows, delimiter=",", header=",".join(columns), comments="")
    return path


def start_long_fit(home: Path, name: str, command: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """A fit of minutes in another process, as soon as it trains; `command` if that is not `fit`."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [
        sys.executable, "-m", "flowbench", *(command or ["fit", "table.csv", "--name", name]),
        *TINY_CNF, *SMALL, "--steps", "100000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (home / "runs" / name / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process
