"""Awkward tables on the command line: said or refused, never a traceback, never half an output."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, flowbench, write_csv

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
from awkward import CASES, Case

from flowbench.cli.app import run_app

Run = Callable[..., tuple[int, str, str]]
FLAGS = {"missing_values": "--missing-value", "date_format": "--date-format"}


def arguments(folder: Path, case: Case) -> list[str]:
    """How the case is typed."""
    case.write(folder / case.name)
    told = [f"{folder / case.name}:{case.inside}" if case.inside else str(folder / case.name)]
    for option, value in case.options.items():
        values = value if isinstance(value, tuple) else (value,)
        told += [each for one in values for each in (FLAGS.get(option, f"--{option}"), str(one))]
    if case.columns:
        told += ["--columns", ",".join(f'"{name}"' for name in case.columns)]
    return told


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refuses])
def test_a_table_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = arguments(tmp_path, CASES[name])
    before = sorted(tmp_path.rglob("*"))
    code = run_app(["fit", *told, "--model", "gaussian"])
    out, err = capfd.readouterr()
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.refuses])
def test_a_table_that_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    case = CASES[name]
    if {"missing", "group"} & set(case.options):
        pytest.skip("of a fit alone")
    monkeypatch.chdir(tmp_path)
    code = run_app(["datasets", "show", *arguments(tmp_path, case)])
    out, err = capfd.readouterr()
    assert code == 0
    for text in case.says:
        assert " ".join(text.split()) in err
    assert bool(err) == bool(case.says)
    assert len(out.splitlines()) >= 3 + len(case.names)


@pytest.mark.parametrize("name", CASES)
def test_a_table_that_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    case = CASES[name]
    if {"missing", "group"} & set(case.options):
        pytest.skip("of a fit alone")
    monkeypatch.chdir(tmp_path)
    told = arguments(tmp_path, case)
    code = run_app(["datasets", "check", *told, "--schema", "s.toml"])
    out, err = capfd.readouterr()
    assert code == 0 if not case.refuses else code in (0, 2, 3)
    assert "Traceback" not in err
    if code:
        assert (out, (tmp_path / "s.toml").exists()) == ("", False)
        return
    assert len(out.splitlines()) >= 3 + len(case.names)
    # The file that was made says nothing new.
    assert run_app(["datasets", "check", *told, "--schema", "s.toml"]) == 0
    again, err = capfd.readouterr()
    assert again == out
    assert "where the values suggest" not in err


def test_a_fit_says_what_it_guessed_and_found(tmp_path: Path, run: Run, home: Path) -> None:
    random = np.random.default_rng(0)
    amounts = np.where(np.arange(200) % 5 < 2, 0, np.exp(random.normal(size=200)))
    cells = [
        f"{i};{a:.4f};{x:.3f}" for i, (a, x) in enumerate(zip(amounts, random.normal(size=200), strict=True))
    ]
    rows = "".join(line.replace(".", ",") + "\n" for line in cells)
    (home / "t.csv").write_text("id;amount;x\n" + rows)
    code, out, err = run("fit", "t.csv", "--model", "gaussian", *SMALL)
    assert code == 0
    lines = err.splitlines()
    begun = next(i for i, line in enumerate(lines) if line.startswith("run folder"))
    said = "\n".join(lines[:begun])
    for text in (
        "ells are separated by semicolons",
        "`id` is left out: it numbers the rows, from 0 to 199",
        "umbers have decimal commas",
        "olumn `amount`: 40.0% of the rows hold 0, which gets a probability",
    ):
        assert text in said
    report = run("report", out.strip())[1].strip()
    page = (Path(report).parent / "report.md").read_text()
    assert "Cells are separated by semicolons." in page
    assert "40.0% of the rows hold 0, which gets a probability" in page
    described = run("compare", "t.csv", "--models", "gaussian,kde", *SMALL, "--name", "two")[2]
    assert described.count("`id` is left out") == 1


def piped(text: str, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "flowbench", *command],
        cwd=cwd, env=environment, input=text, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_standard_input_and_output(home: Path) -> None:
    text = (home / "table.csv").read_text()
    scored = piped(text, "score", "g", "-", "-o", "-", cwd=home)
    assert scored.returncode == 0, scored.stderr
    lines = scored.stdout.splitlines()
    assert lines[0] == "row,log_prob,log_prob_error,flagged"
    assert len(lines) == 61
    drawn = piped("", "sample", "g", "-n", "5", "-o", "-", cwd=home)
    assert drawn.stdout.splitlines()[0] == "a,b,log_prob,log_prob_error"
    again = piped(drawn.stdout, "score", "g", "-", "-o", "-", cwd=home)
    for written, found in zip(drawn.stdout.splitlines()[1:], again.stdout.splitlines()[1:], strict=True):
        assert float(written.split(",")[2]) == pytest.approx(float(found.split(",")[1]), abs=1e-12)
    fitted = piped(text, "fit", "-", "--model", "gaussian", "--name", "piped", *SMALL, cwd=home)
    assert fitted.returncode == 0, fitted.stderr
    assert "standard input is kept in datasets/stdin-" in fitted.stderr
    (kept,) = (home / "datasets").glob("stdin-*.csv")
    assert kept.read_text() == text
    assert piped(text, "evaluate", "piped", cwd=home).returncode == 0
    nothing = piped("", "fit", "-", "--model", "gaussian", cwd=home)
    assert nothing.returncode == 3
    assert "the file is empty" in nothing.stderr
    both = piped(text, "score", "g", "-", "-o", "-", "--json", cwd=home)
    assert both.returncode == 2
    assert both.stdout == ""


def test_a_table_that_another_program_writes_to(home: Path) -> None:
    import h5py

    with h5py.File(home / "open.h5", "w") as file:
        file["a"] = [1.0] * 20
        file.flush()
        result = flowbench("fit", "open.h5", cwd=home)
    assert result.returncode == 3
    assert "another program holds it open" in result.stderr


def test_names_with_commas_are_selected_in_quotes(home: Path, run: Run) -> None:
    write_csv(home / "t.csv", ('"a, b"', "c", "d"))
    code, out, _ = run("datasets", "show", "t.csv", "--columns", '"a, b",d')
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()[-2:]] == ["a, b", "d"]
    text = (home / "t.csv").read_text().splitlines()
    (home / "t.csv").write_text("\n".join([*text[:5], "1,x,2", *text[5:]]))
    code, _, err = run("fit", "t.csv")
    assert code == 3
    assert """`--columns '"a, b",d'`""" in err
