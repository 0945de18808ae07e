"""A small working folder with finished runs, made once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowbench.cli import run_app

SMALL = [
    "--set", "evaluation.test_rows=50", "--set", "evaluation.samples=30",
    "--set", "evaluation.grid=12", "--set", "evaluation.paths=4",
]  # fmt: skip
TINY_CNF = ["--steps", "15", "--set", "flow.field.width=8", "--set", "flow.field.scales=1"]

Result = subprocess.CompletedProcess[str]


def flowbench(*arguments: str, cwd: Path) -> Result:
    """Run the real command."""
    command = [sys.executable, "-m", "flowbench", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def write_csv(path: Path, columns: tuple[str, ...] = ("a", "b"), n: int = 60) -> Path:
    rows = np.random.default_rng(0).normal(size=(n, len(columns)))
    np.savetxt(path, rows, delimiter=",", header=",".join(columns), comments="")
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the finished runs `g` (gaussian) and `c` (cnf) on `table.csv`, never to be changed."""
    home = tmp_path_factory.mktemp("home")
    write_csv(home / "table.csv")
    table = str(home / "table.csv")
    assert run_app(["fit", table, "--model", "gaussian", "--name", "g", "--home", str(home), *SMALL]) == 0
    assert run_app(["fit", table, "--name", "c", "--home", str(home), *TINY_CNF, *SMALL]) == 0
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished home, and the working directory."""
    copy = tmp_path / "home"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in `home`, in this process: exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return call
