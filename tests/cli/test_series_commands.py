"""Time series on the command line: fit, score, sample, predict, impute, compare, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from flowbench.cli.app import run_app

Captured = pytest.CaptureFixture[str]
Call = Callable[..., tuple[int, str, str]]

SMALL = [
    "--steps", "10", "--set", "evaluation.draws=8", "--set", "evaluation.predictions=6",
    "--set", "evaluation.error_series=1", "--set", "evaluation.samples=2", "--set", "evaluation.curves=1",
]  # fmt: skip
SERIES = ["--series", "patient", "--time", "day"]


def visits() -> pd.DataFrame:
    """Visits of 24 patients, of different numbers, out of order, some cells missing, with a text column."""
    rng = np.random.default_rng(1)
    rows = []
    for patient in range(24):
        level = rng.normal()
        for day in rng.choice(200, int(rng.integers(2, 9)), replace=False):
            rows.append(
                {
                    "patient": f"p{patient:02d}",
                    "day": int(day),
                    "sex": "f" if patient % 2 else "m",
                    "weight": 70 + 10 * level + 0.02 * day + rng.normal(),
                    "sugar": np.nan if rng.random() < 0.2 else 5 + level + 0.1 * rng.normal(),
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with visits.csv and a run `g` of two of its columns."""
    home = tmp_path_factory.mktemp("home")
    visits().to_csv(home / "visits.csv", index=False)
    table = str(home / "visits.csv")
    arguments = ["fit", table, *SERIES, "--columns", "weight,sugar", "--model", "gp", "--name", "g"]
    assert run_app([*arguments, "--home", str(home), *SMALL]) == 0
    return home


@pytest.fixture
def run(fitted: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> Call:
    """Run a command in the working folder: exit code, stdout and stderr."""
    monkeypatch.chdir(fitted)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app(arguments)
        return code, *capfd.readouterr()

    return call


def test_a_fit_says_what_it_did_to_the_table(run: Call) -> None:
    code, out, err = run("fit", "visits.csv", *SERIES, "--columns", "weight,sugar", "--model", "rnn", *SMALL)
    assert code == 0 and out.strip() == "runs/visits-rnn"
    assert "series are not in order, and are sorted by `day`" in err
    assert "their observations keep the others" in err
    assert "test NLL" in err and "nats a value" in err and "extrapolation: RMSE" in err


def test_score_gives_a_row_for_each_series(run: Call) -> None:
    code, out, _ = run("score", "g", "visits.csv", "-o", "-")
    assert code == 0
    header, *rows = out.strip().splitlines()
    assert header == "patient,log_prob,standard_error,solver_error,observations,values"
    table = visits()
    assert [row.split(",")[0] for row in rows] == list(dict.fromkeys(table["patient"]))
    counts = table.groupby("patient", sort=False)[["weight", "sugar"]].count().sum(axis=1)
    assert [int(row.split(",")[5]) for row in rows] == counts.tolist()
    code, out, _ = run("score", "g", "visits.csv", "-o", "s.h5", "--json")
    assert json.loads(out)["series"] == 24
    with h5py.File("s.h5") as file:
        assert file["log_prob"].attrs["units"] == b"nats"


def test_sample_draws_series_at_the_times(run: Call) -> None:
    code, out, err = run("sample", "g", "-n", "3", "--times", "0:10:2.5", "-o", "-")
    assert code == 0 and not err
    header, *rows = out.strip().splitlines()
    assert header == "patient,day,weight,sugar" and len(rows) == 15
    assert [float(row.split(",")[1]) for row in rows[:5]] == [0, 2.5, 5, 7.5, 10]
    assert "where the train series lie" in run("sample", "g", "-n", "1", "-o", "-")[2].replace("\n", " ")


def test_predict_at_times_ahead_and_at_rows_of_a_table(run: Call, fitted: Path) -> None:
    code, out, err = run("predict", "g", "visits.csv", "--times", "1,250", "--draws", "1", "-o", "-")
    assert code == 0 and "sorted by `day`" in err
    header, *rows = out.strip().splitlines()
    names = [f"{c}_{k}" for c in ("weight", "sugar") for k in ("mean", "lower", "upper", "draw_1")]
    assert header.split(",") == ["patient", "day", *names] and len(rows) == 48
    for row in rows:
        mean, low, high = map(float, row.split(",")[2:5])
        assert low < mean < high
    code, out, _ = run("predict", "g", "visits.csv", "--ahead", "20", "-o", "p.csv", "--json")
    assert code == 0 and json.loads(out)["rows"] == 24 * 20
    table = visits()
    last = table.groupby("patient", sort=False)["day"].max()
    found = pd.read_csv("p.csv")
    np.testing.assert_allclose(found.groupby("patient", sort=False)["day"].max(), last + 20)
    (fitted / "at.csv").write_text("patient,day\np03,5\np01,7\np03,1\n")
    code, out, _ = run("predict", "g", "visits.csv", "--at", "at.csv", "-o", "-")
    assert [row.split(",")[:2] for row in out.strip().splitlines()[1:]] == [
        ["p01", "7.0"],
        ["p03", "1.0"],
        ["p03", "5.0"],
    ]


def test_impute_fills_the_gaps_and_nothing_else(run: Call) -> None:
    code, _, err = run("impute", "g", "visits.csv", "-o", "i.parquet")
    table = visits().sort_values(["patient", "day"]).reset_index(drop=True)
    gaps = table["sugar"].isna()
    assert code == 0 and f"{gaps.sum()} missing cells are filled in" in err
    found = pd.read_parquet("i.parquet").sort_values(["patient", "day"]).reset_index(drop=True)
    np.testing.assert_array_equal(found["weight"], table["weight"])
    np.testing.assert_array_equal(found["sugar"][~gaps], table["sugar"][~gaps])
    assert found["sugar"].notna().all() and (found["sugar_lower"].notna() == gaps).all()
    assert "weight_lower" not in found


def test_compare_reports_on_models_and_takes_up_what_is_there(run: Call, fitted: Path) -> None:
    arguments = ["compare", "visits.csv", *SERIES, "--columns", "weight,sugar", *SMALL]
    arguments += ["--models", "latent-ode,rnn,gp", "--name", "three"]
    code, out, err = run(*arguments)
    assert code == 0 and out.strip() == "reports/three/index.html"
    page = (fitted / "reports/three/index.html").read_text()
    for word in ("Predictions", "Latent trajectories", "Extrapolation", "upper bound", "only 2 test series"):
        assert word in page
    report = json.loads((fitted / "reports/three/report.json").read_text())
    (dataset,) = report["datasets"]
    assert {each["model"] for each in dataset["models"]} == {"latent-ode", "rnn", "gp"}
    best, *others = dataset["models"]
    assert best["difference_to_best"] is None
    for each in others:
        difference = each["metrics"]["test_nll"] - best["metrics"]["test_nll"]
        assert each["difference_to_best"]["mean"] == pytest.approx(difference)
    runs = sorted(path.name for path in (fitted / "runs").iterdir())
    code, _, err = run(*arguments)
    assert code == 0 and "run folder" not in err
    assert sorted(path.name for path in (fitted / "runs").iterdir()) == runs
    assert "## visits" in (fitted / "reports/three/report.md").read_text()


def test_the_wrong_cell_is_named(run: Call, fitted: Path) -> None:
    table = visits().drop(columns="sex").astype({"weight": object})
    table.loc[7, "weight"] = "heavy"
    table.to_csv(fitted / "bad.csv", index=False)
    code, out, err = run("fit", "bad.csv", *SERIES, *SMALL)
    assert code == 3 and not out and err.count("\n") == 1
    assert "column `weight`, row 8: `heavy` is not a number" in err
    assert run("score", "g", "bad.csv")[0] == 3
    assert "row 8: `heavy`" in run("predict", "g", "bad.csv", "--ahead", "1")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "visits.csv", *SERIES], 3, "column `sex`, row 1: `m` is not a number"),
        (["fit", "visits.csv", "--series", "patient"], 2, "`series` is given without `time`"),
        (["fit", "visits.csv", "--series", "day", "--time", "day"], 2, "both name `day`"),
        (["fit", "visits.csv", "--series", "pat", "--time", "day"], 2, "did you mean `patient`"),
        (["fit", "visits.csv", "--model", "gp"], 2, "which column of the table names the series"),
        (["fit", "visits.csv", *SERIES, "--model", "cnf"], 2, "`cnf` models rows, not series"),
        (["fit", "visits.csv", *SERIES, "--given", "sex"], 2, "`--given` is for tables of rows"),
        (["predict", "g", "visits.csv"], 2, "say for which times"),
        (["predict", "g", "visits.csv", "--ahead", "1", "--times", "1,2"], 2, "say for which times"),
        (["predict", "g", "visits.csv", "--times", "3,1"], 2, "increasing times"),
        (["predict", "g", "visits.csv", "--ahead", "-1"], 2, "`--ahead` must be positive"),
        (["predict", "g", "visits.csv", "--at", "other.csv"], 3, "the series `q` is not in the table"),
        (["predict", "g", "other.csv", "--ahead", "1"], 3, "the run was fitted on weight, sugar"),
        (["sample", "g", "--given", "a=1"], 2, "leave `--given` out"),
        (["score", "g", "visits.csv", "--max-error", "1"], 2, "`--max-error` is for runs on rows"),
        (["score", "g", "spirals"], 2, "was not fitted on the toy `spirals`"),
        (["evaluate", "g"], 2, "is of time series"),
        (["tradeoff", "g"], 2, "series"),
        (["fit", "spirals", "--series", "a", "--time", "b"], 2, "has its series and times already"),
        (["predict", "g", "visits.csv", "--ahead", "1", "-o", "visits.csv"], 2, "would overwrite"),
    ],
)
def test_what_is_refused(run: Call, fitted: Path, arguments: list[str], code: int, said: str) -> None:
    (fitted / "other.csv").write_text("patient,day,weight\nq,1,70\nq,2,71\n")
    found, out, err = run(*arguments)
    assert (found, out) == (code, "") and said in err


def test_runs_of_both_kinds_are_listed_and_not_mixed(run: Call, fitted: Path) -> None:
    small = ["--set", "evaluation.test_rows=5", "--set", "evaluation.samples=5", "--set", "evaluation.grid=4"]
    assert run("fit", "moons", "--rows", "50", "--model", "gaussian", "--name", "rows", *small)[0] == 0
    code, out, _ = run("runs", "list")
    assert code == 0 and "gp" in out and "rows" in out
    assert "test_nll_per_value" in run("runs", "show", "g")[1]
    code, _, err = run("report", "g", "rows")
    assert code == 2 and "cannot be compared; write a report on each kind" in err
    assert run("predict", "rows", "visits.csv", "--ahead", "1")[0] == 2
    assert run("report", "g")[0] == 0


def dated(path: Path) -> None:
    """Series at dates, one column, with two rows that have no value."""
    days = np.datetime64("2021-03-01") + np.arange(0, 40, 4)
    rows = [(i, day, np.sin(i + k / 3)) for i in range(12) for k, day in enumerate(days)]
    table = pd.DataFrame(rows, columns=["id", "day", "x"])
    table.loc[[3, 15], "x"] = np.nan
    table.to_csv(path, index=False)


def test_dates_come_back_as_dates_and_are_asked_for_as_dates(run: Call, fitted: Path) -> None:
    dated(fitted / "dated.csv")
    places = ["--series", "id", "--time", "day"]
    assert run("fit", "dated.csv", *places, "--model", "gp", "--name", "d", *SMALL)[0] == 0
    code, out, err = run("predict", "d", "dated.csv", "--ahead", "3", "-o", "-")
    assert code == 0 and "`--ahead` counts days" in err
    rows = [row.split(",")[:2] for row in out.strip().splitlines()[1:]]
    assert rows[:3] == [["0", "2021-04-07"], ["0", "2021-04-08"], ["0", "2021-04-09"]] and len(rows) == 36
    assert "lie outside the times of the train series, 2021-03-01 to 2021-04-06" in err
    code, out, _ = run("predict", "d", "dated.csv", "--times", "2021-03-30:2021-04-01:1", "-o", "-")
    assert [row.split(",")[1] for row in out.splitlines()[1:4]] == ["2021-03-30", "2021-03-31", "2021-04-01"]
    code, out, err = run("sample", "d", "-n", "1", "-o", "-")
    assert code == 0 and "from 2021-03-01 to 2021-04-06" in err
    (fitted / "plain.csv").write_text("id,day,x\n1,1,0.5\n1,2,0.6\n")
    code, _, err = run("score", "d", "plain.csv")
    assert code == 3 and "are plain numbers, where the model was fitted on days since 1970-01-01" in err


def test_impute_fills_rows_without_a_value(run: Call, fitted: Path) -> None:
    dated(fitted / "dated.csv")
    run("fit", "dated.csv", "--series", "id", "--time", "day", "--model", "gp", "--name", "e", *SMALL)
    code, out, err = run("impute", "e", "dated.csv", "-o", "-")
    assert code == 0 and "2 missing cells are filled in" in err
    rows = [row.split(",") for row in out.strip().splitlines()]
    assert rows[0] == ["id", "day", "x", "x_lower", "x_upper"] and len(rows) == 121
    assert [row[1] for row in rows[1:] if row[3] != "nan"] == ["2021-03-13", "2021-03-21"]


def test_no_column_is_overwritten(run: Call, fitted: Path) -> None:
    table = visits().drop(columns="sex").rename(columns={"weight": "sugar_lower"})
    table.loc[4, "sugar_lower"] = np.nan
    table.to_csv(fitted / "clash.csv", index=False)
    assert run("fit", "clash.csv", *SERIES, "--model", "gp", "--name", "clash", *SMALL)[0] == 0
    code, _, err = run("impute", "clash", "clash.csv", "-o", "-")
    assert code == 3 and "`sugar_lower`, which would be overwritten" in err
