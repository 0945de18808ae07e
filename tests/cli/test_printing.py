"""What reaches a terminal, a log and a script: no control characters, and exact paths."""

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from command import LIKE_A_TERMINAL, SMALL, flowbench, write_csv

Call = Callable[..., tuple[int, str, str]]

#: Turns the text red, by two spellings, and the order of the letters after it round.
ODD = "\x1b[31mred\x9b31m\u202etxt"
CONTROLS = re.compile(r"\x1b\[31m|[\x9b\u202e]")


def on_terminal(*arguments: str, cwd: Path) -> str:
    """What the real command writes where stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "flowbench", *arguments],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    ):  # fmt: skip
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            written += part
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("variable", sorted(LIKE_A_TERMINAL))
def test_a_log_gets_lines_whatever_the_environment_says(home: Path, variable: str) -> None:
    told = {variable: LIKE_A_TERMINAL[variable]}
    fitted = flowbench("fit", "table.csv", "--model", "gaussian", *SMALL, cwd=home, **told)
    listed = flowbench("runs", "list", cwd=home, **told)
    assert fitted.returncode == listed.returncode == 0
    for text in (fitted.stdout, fitted.stderr, listed.stdout, listed.stderr):
        assert not re.search(r"[\x1b\r]", text)
    assert "table.csv gaussian (seed 0): evaluating\n" in fitted.stderr
    assert listed.stdout.startswith("name\tmodel\t")


def test_help_and_mistakes_are_plain_whatever_the_environment_says(home: Path) -> None:
    for arguments in (("--help",), ("fit", "--help"), ("fit", "--nope"), ("fti",)):
        done = flowbench(*arguments, cwd=home, **LIKE_A_TERMINAL)
        assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_still_gets_a_bar_and_a_table(home: Path) -> None:
    assert "\x1b[?25l" in on_terminal("fit", "table.csv", "--model", "gaussian", *SMALL, cwd=home)
    assert "\x1b[1mname" in on_terminal("runs", "list", cwd=home)


def test_controls_in_names_do_not_reach_a_terminal(home: Path) -> None:
    write_csv(home / f"{ODD}.csv", columns=(f"a{ODD}", "b"))
    for arguments in (
        ("fit", f"{ODD}.csv", "--model", "gaussian", "--name", "odd", *SMALL),
        ("runs", "show", "odd"),
        ("runs", "list"),
        ("datasets", "show", f"{ODD}.csv"),
        ("score", "odd", f"{ODD}.csv", "-o", f"{ODD}2.csv"),
        ("sample", "odd", "-o", f"{ODD}3.csv", "--json"),
        ("fit", f"{ODD}.csv", "--dry-run"),
        ("compare", f"{ODD}.csv", "--models", "gaussian,kde", "--dry-run"),
        ("fit", "table.csv", "--columns", ODD),
        ("report", "odd", "-o", ODD),
    ):
        written = on_terminal(*arguments, cwd=home)
        assert "red" in written, arguments
        assert not CONTROLS.search(written), arguments


def test_a_path_is_exact_for_a_script(home: Path) -> None:
    name = os.fsencode(f"{ODD}\t.csv").replace(b"red", b"red\xff")
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"flowbench", b"sample", b"g", b"-n", b"3", b"-o", name],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == name + b"\n"
    assert name in os.listdir(os.fsencode(home))


def test_json_and_tables_hold_no_controls_and_lose_no_names(run: Call, home: Path) -> None:
    write_csv(home / "odd.csv", columns=(f"a{ODD}", "b\tc"))
    code, out, _ = run("datasets", "show", "odd.csv", "--columns", f"a{ODD}", "--json")
    assert code == 0
    assert not re.search("[\x1b\x9b\u202e]", out)
    assert [column["name"] for column in json.loads(out)["columns"]] == [f"a{ODD}"]
    code, out, _ = run("datasets", "show", "odd.csv")
    assert code == 0
    assert not re.search("[\x1b\x9b\u202e]", out)
    assert [len(line.split("\t")) for line in out.splitlines()[-3:]] == [7, 7, 7]


def test_a_dry_run_gives_the_same_names_again(run: Call, home: Path) -> None:
    code, out, _ = run("fit", f"{ODD}.csv", "--columns", f"a{ODD}", "--dry-run")
    assert code == 0
    assert not re.search("[\x1b\x9b\u202e]", out)
    assert tomllib.loads(out)["data"]["dataset"] == f"{ODD}.csv"
    assert tomllib.loads(out)["data"]["columns"] == [f"a{ODD}"]
