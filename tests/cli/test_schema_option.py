"""`--schema` of `fit` and `compare`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, flowbench

from flowbench.store import Run

RunCommand = Callable[..., tuple[int, str, str]]
PENGUINS = str(Path(__file__).resolve().parents[2] / "datasets" / "penguins.csv")


def test_a_schema_file_from_check_to_fit_score_and_sample(tmp_path: Path) -> None:
    checked = flowbench("datasets", "check", PENGUINS, "--schema", "s.toml", cwd=tmp_path)
    assert checked.returncode == 0
    head, _, _ = (tmp_path / "s.toml").read_text().partition("[columns.year]\n")
    head, bill, tail = f'{head}[columns.year]\nkind = "count"\n'.partition("[columns.bill_length_mm]\n")
    edited = head + bill + tail.replace('support = "real"', "support = [10, 90]", 1)
    (tmp_path / "s.toml").write_text(edited)
    command = ["fit", PENGUINS, "--model", "gaussian", "--missing", "drop", "--schema", "s.toml"]
    fitted = flowbench(*command, "--name", "p", *SMALL, cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert "penguins: s.toml settles: categories species, island, sex; numbers " in fitted.stderr
    run = Run(tmp_path / "runs" / "p")
    assert run.dataset["categorical"] == ["species", "island", "sex"]
    assert run.dataset["lattices"]["year"] == {"step": 1.0, "origin": 0.0}
    low, high = run.dataset["support"]["bill_length_mm"]
    # The outermost cells whose middle is in the open interval.
    assert (round(low, 6), round(high, 6)) == (10.05, 89.95)
    (tmp_path / "s.toml").unlink()
    drawn = flowbench("sample", "p", "-n", "5", "-o", "x.csv", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert flowbench("score", "p", "x.csv", "-o", "y.csv", cwd=tmp_path).returncode == 0


def test_compare_takes_the_same_file_and_the_same_runs(run: RunCommand, home: Path) -> None:
    (home / "s.toml").write_text("[columns.a]\nsupport = [-9, 9]\n")
    line = ["compare", "table.csv", "--models", "gaussian", "--schema", "s.toml", "--json", *SMALL]
    code, out, err = run(*line)
    assert code == 0, err
    assert err.count("s.toml settles: numbers a; support of a") == 1
    (first,) = json.loads(out)["runs"]
    assert run(*line)[1] == out
    code, out, _ = run("fit", "table.csv", "--schema", "s.toml", "--dry-run")
    assert code == 0 and 'support = "auto,a=(-9.0:9.0)"' in out
    kept = ("--config", f"{first}/config.toml")
    code, out, _ = run("compare", "table.csv", "--models", "gaussian", "--json", *kept)
    assert json.loads(out)["runs"] == [first]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("table.csv", "--schema", "no.toml"), 2, "there is no schema file no.toml"),
        (("moons", "--schema", "s.toml"), 2, "`moons` is none"),
        (("table.csv", "--schema", "s.toml", "--support", "a=-8:8"), 2, "contradicts `--support a=-8:8`"),
        (("table.csv", "--schema", "s.toml", "--series", "a", "--time", "b"), 2, "`--schema` is for tables"),
        (("--resume", "g", "--schema", "s.toml"), 2, "it takes no --schema"),
    ],
)
def test_mistakes_are_one_line(
    run: RunCommand, home: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (home / "s.toml").write_text("[columns.a]\nsupport = [-9, 9]\n")
    found, out, err = run("fit", *arguments)
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert message in err
