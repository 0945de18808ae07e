"""`--weights` on the command line: what it says, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import SMALL

from flowbench.cli.app import run_app

Captured = pytest.CaptureFixture[str]


def table(n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "w": rng.integers(1, 5, n) / 2})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table().to_csv("table.csv", index=False)
    return tmp_path


def test_fit_evaluate_and_score(folder: Path, capfd: Captured) -> None:
    fit = ["fit", "table.csv", "--weights", "w", "--model", "gaussian", "--name", "g", *SMALL]
    assert run_app(fit) == 0
    told = capfd.readouterr().err
    assert "count by `w`: 80 rows say as much as" in told and "weighted, of" in told
    assert run_app(["evaluate", "g"]) == 0
    assert "too few for two-sample tests" in capfd.readouterr().err
    assert run_app(["score", "g", "table.csv", "-o", "-"]) == 0
    captured = capfd.readouterr()
    assert len(captured.out.strip().splitlines()) == 81
    assert "every row counts alike here" in captured.err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-0.5", "column `w`, row 3: a weight cannot be negative, as -0.5 is; correct it"),
        ("", "column `w`, row 3: the cell is missing; fill in missing cells; `--weights` needs a weight"),
        ("inf", "column `w`, row 3: the value is infinite"),
        ("heavy", "column `w`, row 3: `heavy` is not a number"),
    ],
)
def test_a_cell_that_is_no_weight(folder: Path, capfd: Captured, value: str, said: str) -> None:
    rows = table().astype({"w": object})
    rows.loc[2, "w"] = value
    rows.to_csv("bad.csv", index=False)
    assert run_app(["fit", "bad.csv", "--weights", "w", "--model", "gaussian"]) == 3
    captured = capfd.readouterr()
    assert captured.out == "" and f"bad.csv: {said}" in captured.err and captured.err.count("\n") == 1
    # As a column that is not asked for, it is no concern.
    assert run_app(["fit", "bad.csv", "--columns", "a,b", "--model", "gaussian", *SMALL]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "none.csv", "--weights", "w"], 3, "column `w`, rows 1 to 80: every weight is 0"),
        (["fit", "days.csv", "--weights", "w"], 3, "holds days since 1970-01-01, and no weights"),
        (["fit", "gaps.csv", "--weights", "w", "--missing", "drop"], 3, "weight above 0 have missing cells"),
        (["fit", "table.csv", "--weights", "ww"], 2, "`--weights`: unknown column `ww`; did you mean"),
        (["fit", "moons", "--weights", "w"], 2, "`weights` speaks of columns of a table file"),
        (
            ["fit", "table.csv", "--series", "a", "--time", "b", "--weights", "w"],
            2,
            "`--weights` is for tables of rows, and not for time series",
        ),
        (["score", "g", "table.csv", "--weights", "w"], 2, "No such option"),
    ],
)
def test_weights_that_do_not_fit(
    folder: Path, capfd: Captured, arguments: list[str], code: int, said: str
) -> None:
    table().assign(w=0).to_csv("none.csv", index=False)
    table().assign(w="2020-01-31").to_csv("days.csv", index=False)
    gaps = table()
    gaps["w"], gaps["a"] = np.where(gaps.index < 20, 1, 0), gaps["a"].where(gaps.index >= 20)
    gaps.to_csv("gaps.csv", index=False)
    assert run_app(arguments) == code
    captured = capfd.readouterr()
    assert captured.out == "" and said in captured.err
