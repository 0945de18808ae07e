"""A small working folder with finished runs, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, TINY_CNF, write_csv

from flowbench.cli.app import run_app


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
