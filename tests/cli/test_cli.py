"""Commands that go well."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from command import SMALL, TINY_CNF, flowbench, start_long_fit, write_csv
from rich.console import Console
from rich.progress import Progress, TextColumn

from flowbench.cli import progress_line
from flowbench.workflows import doctor

Run = Callable[..., tuple[int, str, str]]


def test_fit_prints_the_folder_and_nothing_else_on_stdout(run: Run, home: Path) -> None:
    code, out, err = run("fit", "table.csv", "--model", "gaussian", *SMALL)
    assert (code, out) == (0, "runs/table-gaussian\n")
    assert "test NLL" in err
    code, out, _ = run("fit", "table.csv", "--model", "gaussian", "--json", *SMALL)
    answer = json.loads(out)
    assert answer["run"] == "runs/table-gaussian-2"
    assert answer["status"] == "finished"
    assert np.isfinite(answer["metrics"]["test_nll"])


@pytest.mark.parametrize("name", ["drawn.h5", "drawn.csv", "drawn.csv.gz", "drawn.parquet"])
@pytest.mark.parametrize("model", ["g", "c"])
def test_sample_writes_the_tables_own_columns(run: Run, home: Path, name: str, model: str) -> None:
    assert run("sample", model, "-n", "25", "-o", name)[:2] == (0, f"{name}\n")
    table = read(home / name)
    assert list(table) == ["a", "b", "log_prob", "log_prob_error"]
    assert (table["log_prob_error"] > 0).all()
    assert all(len(column) == 25 for column in table.values())


@pytest.mark.parametrize("name", ["scores.h5", "scores.csv", "scores.parquet"])
def test_score_equals_what_the_run_stored(run: Run, home: Path, name: str) -> None:
    assert run("score", "c", "table.csv", "-o", name)[0] == 0
    table = read(home / name)
    assert list(table) == ["row", "log_prob", "log_prob_error", "flagged"]
    assert set(table["flagged"]) == {""}
    with h5py.File(home / "runs" / "c" / "results.h5") as file:
        kept = {name: values[:] for name, values in file["log_likelihood"].items()}
    assert np.abs(table["log_prob"][kept["row"]] - kept["log_prob"]).max() < 1e-9
    assert table["log_prob_error"][kept["row"]] == pytest.approx(kept["log_prob_error"], rel=1e-3)
    assert (kept["log_prob_error"] > 0).all()


def test_rows_above_the_largest_error_are_told(run: Run, home: Path) -> None:
    status, out, err = run("score", "c", "table.csv", "--max-error", "1e-30", "-o", "scores.csv", "--json")
    assert status == 0
    above = "may be off by more than the largest error asked for"
    assert set(read(home / "scores.csv")["flagged"]) == {above}
    answer = json.loads(out)
    assert answer["rows_above_max_error"] == answer["rows_flagged"] == answer["rows_scored"] == 60
    assert answer["reasons"] == {above: 60}
    assert "60 of 60 rows may be off by more than the largest error asked for" in err
    status, out, err = run("score", "c", "table.csv", "--max-error", "1e-5", "--json")
    assert json.loads(out)["log_prob_error_largest"] <= 1e-5
    assert "largest error" not in err
    status, _, err = run("score", "c", "table.csv", "--max-error", "0")
    assert status == 2
    assert "max_error" in err


def spoil(home: Path) -> None:
    """A table of 60 rows, spoilt.csv, four of which no model takes, and whole.csv without these."""
    lines = (home / "table.csv").read_text().splitlines()
    b = [line.partition(",")[2] for line in lines]
    spoilt = {2: f",{b[2]}", 11: "three,NA", 31: f"inf,{b[31]}", 60: "0.5,"}
    rows = {number: spoilt.get(number, line) for number, line in enumerate(lines)}
    (home / "spoilt.csv").write_text("\n".join(rows.values()) + "\n")
    (home / "whole.csv").write_text("\n".join(line for n, line in rows.items() if n not in spoilt) + "\n")


@pytest.mark.parametrize("name", ["scores.h5", "scores.csv", "scores.parquet"])
def test_rows_that_no_model_takes_do_not_stop_the_others(run: Run, home: Path, name: str) -> None:
    spoil(home)
    code, out, err = run("score", "c", "spoilt.csv", "-o", name, "--json")
    assert code == 0
    assert run("score", "c", "whole.csv", "-o", f"whole_{name}")[0] == 0
    found, whole = read(home / name), read(home / f"whole_{name}")
    lost = [1, 10, 30, 59]
    others = np.setdiff1d(np.arange(60), lost)
    assert np.isnan(found["log_prob"][lost]).all() and np.isnan(found["log_prob_error"][lost]).all()
    assert list(found["flagged"][lost]) == [
        "missing cell in `a`",
        "`three` in `a` is not a number",
        "infinite value in `a`",
        "missing cell in `b`",
    ]
    assert set(found["flagged"][others]) == {""}
    for column in ("log_prob", "log_prob_error"):
        assert found[column][others].tobytes() == whole[column].tobytes()
    answer = json.loads(out)
    assert (answer["rows"], answer["rows_scored"], answer["rows_flagged"]) == (60, 56, 4)
    assert answer["mean_log_prob"] == pytest.approx(whole["log_prob"].mean(), rel=1e-14)
    assert answer["log_prob_error_largest"] == whole["log_prob_error"].max()
    kinds = ["missing cell in `a`", "no number in `a`", "infinite value in `a`", "missing cell in `b`"]
    assert answer["reasons"] == dict.fromkeys(kinds, 1)
    told = [line for line in err.splitlines() if "log-likelihood" in line]
    assert len(told) == 1
    assert told[0].startswith("4 of 60 rows have no log-likelihood: ")
    assert told[0].endswith("; the column `flagged` says which")
    assert all(f"{kind} (1)" in told[0] for kind in kinds)


@pytest.fixture
def straight(run: Run) -> Callable[..., str]:
    """Fits a model without Gaussianiser and background, so that what is far out stays there."""

    def fitted(*options: str) -> str:
        lines = ["--set", 'transforms=["standardise"]', "--set", "background=false"]
        assert run("fit", "table.csv", "--name", "s", *options, *SMALL, *lines)[0] == 0
        return "s"

    return fitted


def test_rows_whose_solve_fails_are_told(run: Run, home: Path, straight: Callable[..., str]) -> None:
    straight(*TINY_CNF)
    lines = (home / "table.csv").read_text().splitlines()
    (home / "far.csv").write_text("\n".join([lines[0], "1e308,-1e308", *lines[1:], "0,1e308"]) + "\n")
    code, out, err = run("score", "s", "far.csv", "-o", "far_scores.csv", "--json")
    assert code == 0
    assert run("score", "s", "table.csv", "-o", "usual.csv")[0] == 0
    found, usual = read(home / "far_scores.csv"), read(home / "usual.csv")
    assert np.isnan(found["log_prob"][[0, -1]]).all() and np.isnan(found["log_prob_error"][[0, -1]]).all()
    assert all(text.startswith("the solve failed: it ") for text in found["flagged"][[0, -1]])
    for column in ("log_prob", "log_prob_error"):
        assert found[column][1:-1].tobytes() == usual[column].tobytes()
    assert json.loads(out)["reasons"] == {"the solve failed": 2}
    assert "2 of 62 rows have no log-likelihood: the solve failed (2); the column `flagged` says which" in err
    code, out, err = run("score", "s", "far.csv", "-o", "strict.csv", "--strict")
    assert (code, out) == (1, "")
    assert "rows 1 to 62 of those scored, as one batch" in err
    assert not (home / "strict.csv").exists()


def test_a_density_that_is_zero_is_told(run: Run, home: Path, straight: Callable[..., str]) -> None:
    straight("--model", "gaussian")
    (home / "far.csv").write_text((home / "table.csv").read_text() + "1e200,0\n")
    code, out, err = run("score", "s", "far.csv", "-o", "far_scores.csv", "--json")
    assert code == 0
    found = read(home / "far_scores.csv")
    assert found["log_prob"][-1] == -np.inf and found["flagged"][-1] == "the density is zero there"
    answer = json.loads(out)
    assert (answer["rows_scored"], answer["rows_flagged"], answer["mean_log_prob"]) == (61, 1, None)
    assert "1 of 61 rows: the density is zero there" in err


@pytest.mark.parametrize(("table", "run_name"), [("bad.csv", "g"), ("bad.csv", "c"), ("table.csv", "c")])
def test_where_no_row_can_be_scored_the_file_says_why(
    run: Run, home: Path, table: str, run_name: str
) -> None:
    (home / "bad.csv").write_text("a,b\nNA,1\n2,x\n")
    rows = 2 if table == "bad.csv" else 60
    few = ["--set", "evaluation.integrator.max_nfe=12"] if table == "table.csv" else []
    code, out, err = run("score", run_name, table, "-o", "scores.csv", "--json", *few)
    assert code == 1
    answer = json.loads(out)
    assert (answer["rows_scored"], answer["rows_flagged"], answer["mean_log_prob"]) == (0, rows, None)
    assert err.splitlines()[-1].startswith(f"error: no row of {table} could be scored")
    found = read(home / "scores.csv")
    assert np.isnan(found["log_prob"]).all() and "" not in set(found["flagged"])


def test_a_fitted_run_is_used_with_another_solver(run: Run, home: Path) -> None:
    answer = json.loads(run("tradeoff", "c", "--error", "10", "--json")[1])
    settings = [part for each in answer["recommended"]["settings"] for part in ("--set", each)]
    assert run("score", "c", "table.csv", "-o", "usual.csv")[0] == 0
    assert run("score", "c", "table.csv", "-o", "cheap.csv", *settings)[0] == 0
    usual, cheap = (read(home / f"{name}.csv") for name in ("usual", "cheap"))
    off = np.abs(usual["log_prob"] - cheap["log_prob"])
    assert off.max() > 0
    assert (off <= usual["log_prob_error"] + cheap["log_prob_error"]).mean() > 0.9
    assert run("sample", "c", "-n", "5", *settings)[0] == 0
    _, _, err = run("sample", "c", "-n", "5", "--set", "evaluation.max_error=1e-30")
    assert "5 of 5 rows may be off by more than the largest error asked for" in err
    for command in (["score", "c", "table.csv"], ["sample", "c"]):
        status, _, err = run(*command, "--set", "flow.field.width=3")
        assert status == 2
        assert "`--set` takes the evaluation's options alone" in err
        status, _, err = run(*command, "--set", "evaluation.integrator.rtoll=3")
        assert status == 2
        assert "unknown option `evaluation.integrator.rtoll`" in err


def test_a_failed_certificate_is_told_at_the_end_of_a_fit(run: Run) -> None:
    # One step length for all rows of a batch.
    options = ["integrator=native", "integrator.rtol=1e-4", "integrator.atol=1e-4", "certificates=true"]
    engine = [part for option in options for part in ("--set", f"evaluation.{option}")]
    status, out, err = run("fit", "table.csv", "--name", "n", *TINY_CNF, *SMALL, *engine, "--json")
    assert status == 0
    assert "fails the certificate batch_invariance: 6 rows scored together" in err
    assert json.loads(out)["certificates"]["normalisation"]["passed"]


def test_evaluate_judges_samples_and_keeps_what_it_finds(run: Run, home: Path) -> None:
    status, out, _ = run("evaluate", "c", "--json")
    assert status == 0
    found = json.loads(out)["metrics"]
    # Six test rows are too few for tests, and enough for coverage.
    assert next(iter(found)) == "test_nll"
    assert "mmd" not in found and 0 <= found["hdr_coverage_90"] <= 1
    with h5py.File(home / "runs" / "c" / "results.h5") as file:
        assert set(file["calibration"]) >= {"density_rank", "column_quantile", "radial_quantile"}
        assert file["metrics/hdr_coverage_90"][()] == found["hdr_coverage_90"]
        assert "test_nll" in file["metrics"]
    status, out, _ = run("evaluate", "c")
    assert status == 0
    assert "hdr_coverage_90" in out
    assert run("report", "c")[0] == 0
    assert "Calibration" in next((home / "reports").glob("*/report.md")).read_text(encoding="utf-8")


def test_tradeoff_recommends_a_solver_and_draws_all(run: Run, home: Path) -> None:
    status, out, err = run("tradeoff", "c", "--error", "0.001")
    assert status == 0
    assert "The cheapest solver that moves the NLL by less than 0.001 nat is" in err
    page = home / "reports" / "c-tradeoff" / "index.html"
    assert out.splitlines()[-1].endswith("reports/c-tradeoff/index.html")
    assert "<svg" in page.read_text(encoding="utf-8")
    stored = json.loads((page.parent / "tradeoff.json").read_text(encoding="utf-8"))
    assert stored["recommended"] in stored["solvers"]
    answer = json.loads(run("tradeoff", "c", "--error", "0.001", "--json")[1])
    assert answer["recommended"].keys() == stored["recommended"].keys() | {"settings"}
    assert answer["recommended"]["settings"][0].startswith("evaluation.integrator={")
    assert len(stored["solvers"]) > 20
    assert run("tradeoff", "g")[0] == 2
    assert run("tradeoff", "c", "--error", "0")[0] == 2


def test_evaluate_refuses_data_that_have_changed(run: Run, home: Path) -> None:
    assert run("fit", "table.csv", "--model", "gaussian", "--name", "new", *SMALL)[0] == 0
    with (home / "table.csv").open("a", encoding="utf-8") as file:
        file.write("1,1\n")
    status, _, err = run("evaluate", "new")
    assert status == 3
    assert "has changed since the run" in err


def read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            # Scores have a column that numbers the rows; draws have none, but for their dimension's sake.
            own = [name for name in file if "flagged" in file or not file[name].is_scale]
            values = {name: file[name][:] for name in own}
            return {
                name: column.astype(str) if column.dtype.kind == "S" else column
                for name, column in values.items()
            }
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if "flagged" in frame:
        frame["flagged"] = frame["flagged"].astype(object).fillna("")
    return {str(name): frame[name].to_numpy() for name in frame}


def test_defaults_go_into_the_runs_folder(run: Run, home: Path) -> None:
    assert run("sample", "g", "-n", "5")[1] == "runs/g/samples.h5\n"
    assert run("score", "runs/g", "table.csv")[1] == "runs/g/scores.h5\n"
    code, out, _ = run("score", "g", "table.csv", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 60


def test_scores_a_single_row_with_extra_columns_in_any_order(run: Run, home: Path) -> None:
    (home / "one.csv").write_text("note,b,a\nhello,0.5,0.25\n")
    assert run("score", "c", "one.csv", "-o", "one_score.csv")[0] == 0
    (home / "two.csv").write_text("a,b\n0.25,0.5\n0.25,0.5\n")
    assert run("score", "c", "two.csv", "-o", "two_score.csv")[0] == 0
    one, two = (pd.read_csv(home / f"{name}_score.csv")["log_prob"] for name in ("one", "two"))
    assert two[0] == two[1] == pytest.approx(one[0], abs=1e-9)


def test_a_toy_is_scored_by_its_name_on_the_test_rows_of_the_run(run: Run, home: Path) -> None:
    assert run("fit", "moons", "--rows", "300", "--model", "gaussian", "--name", "m", *SMALL)[0] == 0
    code, out, _ = run("score", "m", "moons", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 30
    with h5py.File(home / "runs/m/results.h5") as stored, h5py.File(home / "runs/m/scores.h5") as scored:
        kept = stored["log_likelihood"]
        assert list(scored["row"][: len(kept["row"])]) == list(kept["row"])
        assert scored["log_prob"][: len(kept["row"])] == pytest.approx(kept["log_prob"][:], abs=1e-9)
    assert json.loads(run("score", "m", "circles", "--json")[1])["rows"] == 10_000


def test_compare_fits_what_is_missing_and_reports(run: Run, home: Path) -> None:
    arguments = (
        "compare",
        "table.csv",
        "--models",
        "gaussian,planar",
        "--steps",
        "15",
        "--seeds",
        "2",
        *SMALL,
    )
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    answer = json.loads(out)
    assert Path(answer["report"]) == Path("reports/table/index.html")
    assert len(answer["runs"]) == 4
    assert {path.name for path in Path("reports/table").iterdir()} == {
        "index.html", "report.md", "report.json"
    }  # fmt: skip
    before = sorted(path.name for path in Path("runs").iterdir())
    assert json.loads(run(*arguments, "--json")[1])["runs"] == answer["runs"]
    assert sorted(path.name for path in Path("runs").iterdir()) == before


def test_report_on_runs_that_are_there(run: Run, home: Path) -> None:
    assert run("report", "g", "runs/c", "-o", "page")[:2] == (0, "page/index.html\n")
    assert "gaussian" in (home / "page" / "report.md").read_text()


def test_datasets(run: Run, home: Path) -> None:
    names = {one["name"] for one in json.loads(run("datasets", "list", "--json")[1])}
    assert {"8gaussians", "checkerboard", "iris", "digits"} <= names
    assert "moons\ttoy" in run("datasets", "list")[1]
    shown = json.loads(run("datasets", "show", "table.csv", "--json")[1])
    assert [column["name"] for column in shown["columns"]] == ["a", "b"]
    assert "entropy: 3.465736" in run("datasets", "show", "checkerboard")[1]


def test_runs(run: Run, home: Path) -> None:
    assert {one["name"] for one in json.loads(run("runs", "list", "--json")[1])} == {"g", "c"}
    assert "gaussian" in run("runs", "list")[1]
    shown = json.loads(run("runs", "show", "c", "--json")[1])
    assert shown["metrics"]["nfe"]["units"] == "evaluations"
    assert "c: cnf on table, finished" in run("runs", "show", "c")[1]


def test_a_column_called_log_prob_is_not_overwritten(run: Run, home: Path) -> None:
    write_csv(home / "scored.csv", ("a", "log_prob"))
    assert run("fit", "scored.csv", "--model", "gaussian", "--name", "s", *SMALL)[0] == 0
    code, _, err = run("sample", "s", "-o", "drawn.csv")
    assert code == 3
    assert "a column called `log_prob`" in err
    assert not (home / "drawn.csv").exists()


def test_dry_run_prints_a_configuration_that_can_be_fed_back(run: Run, home: Path) -> None:
    code, out, _ = run("fit", "table.csv", "--model", "planar", "--set", "flow.layers=3", "--dry-run")
    assert code == 0
    assert not (home / "runs" / "table-planar").exists()
    (home / "again.toml").write_text(out)
    assert run("fit", "--config", "again.toml", "--dry-run")[1] == out
    assert run("fit", "table.csv", "--config", "runs/c/config.toml", "--dry-run")[0] == 0
    assert json.loads(run("fit", "moons", "--dry-run", "--json")[1])["plan"]["seconds"] == 60
    both = ("compare", "table.csv", "--models", "planar,gaussian", "--dry-run")
    assert [one["flow"]["name"] for one in json.loads(run(*both, "--json")[1])] == ["planar", "gaussian"]
    assert len(json.loads(run(*both[:2], "--models", "kde", "--dry-run", "--json")[1])) == 1
    first, second = run(*both)[1].split("\n\n# table.csv gaussian (seed 0)\n")
    assert first.startswith("# table.csv planar (seed 0)\n")
    assert tomllib.loads(first)["flow"]["name"] == "planar"
    assert tomllib.loads(second)["flow"]["name"] == "gaussian"


def test_a_run_and_a_report_are_called_after_their_folder_and_file(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "table.csv").rename(home / "sales.2023.csv")
    gaussian = ("compare", "sales.2023.csv", "--models", "gaussian", *SMALL)
    assert run(*gaussian)[1] == "reports/sales.2023/index.html\n"
    monkeypatch.chdir(home / "runs" / "g")
    assert run("runs", "show", ".")[1].startswith("g: gaussian on table, finished")


def test_columns_can_be_chosen(run: Run, home: Path) -> None:
    write_csv(home / "wide.csv", ("a", "b", "c"))
    assert run("fit", "wide.csv", "--columns", "c,a", "--model", "gaussian", "--name", "w", *SMALL)[0] == 0
    assert json.loads(run("runs", "show", "w", "--json")[1])["info"]["dataset"]["columns"] == ["c", "a"]


def test_doctor(run: Run, home: Path) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert all(check["passed"] for check in json.loads(out))


def test_doctor_names_what_is_unfit(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr(doctor, "_devices", broken)
    monkeypatch.setattr(doctor, "_fit_and_integrate", broken)
    (home / "reports").write_text("")
    code, out, _ = run("doctor", "--json")
    assert code == 1
    found = {check["name"]: check["detail"] for check in json.loads(out) if not check["passed"]}
    assert set(found) == {"devices", "write to reports", "self-test"}
    assert "the driver is too old" in found["devices"]
    assert "reports is a file where a folder is needed" in found["write to reports"]


def test_a_warning_outlasts_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    fields = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
    monkeypatch.setattr(
        progress_line, "_make_bar", lambda: Progress(*fields, console=console, transient=True)
    )
    with progress_line.ProgressLine("moons cnf") as line:
        line.stage("evaluating")
        line.warn("calibration is left out: the solve failed")
    assert "moons cnf: calibration is left out: the solve failed\n" in screen.getvalue()


def test_without_a_command_help_is_shown(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.startswith("Usage: flowbench ")
    assert run("--version")[1].startswith("flowbench ")


def test_the_configuration_of_a_run_repeats_it(run: Run, home: Path) -> None:
    assert run("fit", "--config", "runs/c/config.toml", "--name", "again")[0] == 0
    weights = [(home / "runs" / name / "model.safetensors").read_bytes() for name in ("c", "again")]
    assert weights[0] == weights[1]
    code, out, _ = run(
        "fit", "iris", "--config", "runs/c/config.toml", "--model", "gaussian", "--dry-run", "--json"
    )
    assert code == 0
    changed = json.loads(out)
    assert (changed["data"]["dataset"], changed["flow"]["name"]) == ("iris", "gaussian")
    assert changed["evaluation"]["test_rows"] == 50
    assert run("fit", "--config", "runs/c/config.toml", "--model", "gaussian", "--name", "plain")[0] == 0


def test_a_run_gets_a_name_that_is_easy_to_type(run: Run, home: Path) -> None:
    for file, name in {"My data (2).csv": "My-data-2", ".hidden.csv": "", "-x.csv": "x"}.items():
        write_csv(home / file)
        path = f"runs/{name}-gaussian" if name else "runs/gaussian"
        assert run("fit", f"./{file}", "--model", "gaussian", *SMALL)[:2] == (0, f"{path}\n")


def test_rows_are_the_same_however_many_are_drawn_or_scored_at_once(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long tables are worked on in parts, with a word on how far it is."""
    assert run("sample", "g", "-n", "30", "-o", "whole.csv")[0] == 0
    assert run("score", "g", "table.csv", "-o", "whole_score.csv")[0] == 0
    monkeypatch.setattr("flowbench.models.density_model.CHUNK", 7)
    monkeypatch.setattr("flowbench.cli.progress_line.PLAIN_INTERVAL", 0)
    code, _, err = run("sample", "g", "-n", "30", "-o", "parts.csv")
    assert code == 0
    assert err.splitlines()[0] == "sampling g: 7 of 30 rows"
    assert len(pd.read_csv(home / "parts.csv")) == 30
    assert run("score", "g", "table.csv", "-o", "parts_score.csv")[0] == 0
    whole, parts = (pd.read_csv(home / f"{name}_score.csv") for name in ("whole", "parts"))
    assert np.abs(whole["log_prob"] - parts["log_prob"]).max() < 1e-12


def test_old_runs_are_listed_and_shown(run: Run, home: Path) -> None:
    """Another version's run.json may lack what this one writes."""
    (home / "runs" / "g" / "run.json").write_text("{}")
    code, out, err = run("runs", "list")
    assert (code, err) == (0, "")
    assert "g\t-\t-\t-\t-\n" in out
    assert run("runs", "show", "g")[1].startswith("g: - on -, -\n")
    assert run("compare", "table.csv", "--models", "gaussian", *SMALL)[0] == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fit mo", {"moons"}),
        ("fit ir", {"iris"}),
        ("fit ta", {"table.csv"}),
        ("fit datasets/m", {"datasets/mine.csv"}),
        ("datasets show mi", {"mine"}),
        ("sample ", {"g", "c", "datasets/", "runs/", "table.csv"}),
        ("score --home . ", {"g", "c", "datasets/", "runs/", "table.csv"}),
        ("report runs/", {"runs/c/", "runs/g/"}),
        ("fit --model p", {"planar"}),
        ("fit nowhere/", set()),
    ],
)
def test_names_and_paths_are_completed(home: Path, words: str, found: set[str]) -> None:
    (home / "datasets").mkdir()
    write_csv(home / "datasets" / "mine.csv")
    typed = f"flowbench {words}"
    asked = {
        "_FLOWBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    done = flowbench(cwd=home, **asked)
    assert set(done.stdout.split()) == found


def test_help_is_light() -> None:
    """Every page of help, and completion, without the slow libraries."""
    code = """
import sys
from flowbench.cli.app import run_app
for words in ([], ["fit"], ["sample"], ["score"], ["compare"], ["report"], ["datasets", "show"], ["doctor"]):
    assert run_app([*words, "--help"]) == 0
slow = {"torch", "pandas", "seaborn", "matplotlib", "scipy", "sklearn", "h5py", "pyarrow"} & set(sys.modules)
assert not slow, slow
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_completion_script_is_printed(home: Path) -> None:
    # typer asks the parent process for its shell, which a test in the background does not have.
    done = flowbench("--show-completion", "bash", cwd=home, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "complete" in done.stdout


def listing(home: Path, stdout: Any) -> "subprocess.Popen[str]":
    """`flowbench runs list` in another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "flowbench", "runs", "list"],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_leaves_early_is_no_error(home: Path) -> None:
    process = listing(home, subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_an_answer_that_cannot_be_written_is_a_failure(home: Path) -> None:
    with open("/dev/full", "w") as full:
        process = listing(home, full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "error: cannot write the answer to stdout: No space left on device\n"


def test_ctrl_c_keeps_what_was_learnt(run: Run, home: Path) -> None:
    process = start_long_fit(home, "stopped")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "runs/stopped\n"
    assert "go on with `flowbench fit --resume stopped`" in err
    assert "Traceback" not in err
    assert run("sample", "stopped", "-n", "3")[0] == 0


def test_a_second_ctrl_c_stops_at_once(run: Run, home: Path) -> None:
    process = start_long_fit(home, "stopped")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; go on with `flowbench fit --resume stopped`"
    assert "Traceback" not in err
    assert json.loads((home / "runs" / "stopped" / "run.json").read_text())["status"] == "interrupted"
    assert run("sample", "stopped", "-n", "3")[0] == 0


def test_ctrl_c_in_a_comparison_says_how_to_go_on(home: Path) -> None:
    process = start_long_fit(home, "table-cnf", ["compare", "table.csv", "--models", "cnf"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "the same command goes on from here" in err.splitlines()[-1]
    assert "--resume" not in err


def test_a_model_that_fails_does_not_cost_the_others_their_report(run: Run, home: Path) -> None:
    helpless = ["--set", "evaluation.integrator={name='per-row',max_nfe=8}", "--steps", "2", *SMALL]
    code, out, err = run("compare", "table.csv", "--models", "cnf,planar,gaussian", *helpless, "--json")
    assert code == 1
    assert [Path(run).name for run in json.loads(out)["runs"]] == ["table-planar", "table-gaussian"]
    assert "failed, and is not compared: cnf (seed 0) on table.csv" in err
    assert (
        "Without results, and so not compared: table-cnf \\(failed\\)"
        in (home / "reports" / "table" / "report.md").read_text()
    )
    # What was learnt is not learnt again.
    assert run("compare", "table.csv", "--models", "cnf", *helpless)[0] == 1
    assert not (home / "runs" / "table-cnf-2").exists()


def test_a_fit_outlives_the_reader_of_its_progress(home: Path) -> None:
    process = start_long_fit(home, "alone")
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "runs/alone\n")


def test_a_table_with_a_column_called_row_can_be_drawn_and_scored(run: Run, home: Path) -> None:
    (home / "table.csv").rename(home / "first.csv")
    pd.read_csv(home / "first.csv").rename(columns={"a": "row"}).to_csv(home / "rows.csv", index=False)
    assert run("fit", "rows.csv", "--model", "gaussian", "--name", "r", *SMALL)[0] == 0
    assert run("sample", "r", "-n", "20")[0] == 0
    assert run("score", "r", "runs/r/samples.h5", "-o", "scores.h5")[0] == 0
    drawn, scored = read(home / "runs" / "r" / "samples.h5"), read(home / "scores.h5")
    assert drawn["log_prob"] == pytest.approx(scored["log_prob"])
    assert np.ptp(drawn["row"]) > 0 and (drawn["row"] != np.arange(20)).all()


def test_gzipped_csv_round_trips_exactly(run: Run, home: Path) -> None:
    assert run("sample", "g", "-n", "40", "-o", "a.csv.gz")[0] == 0
    assert run("sample", "g", "-n", "40", "-o", "a.h5")[0] == 0
    with gzip.open(home / "a.csv.gz", "rt") as file:
        written = [float(line["log_prob"]) for line in csv.DictReader(file)]
    with h5py.File(home / "a.h5") as file:
        assert np.array_equal(written, file["log_prob"][:])


def test_whole_numbers_are_learnt_drawn_and_scored_as_such(run: Run, home: Path) -> None:
    counts = np.random.default_rng(0).poisson(4.0, 300)
    lines = [f"{count},{count / 3 + 0.01 * row:.6f}" for row, count in enumerate(counts)]
    (home / "counts.csv").write_text("visits,cost\n" + "\n".join(lines) + "\n")
    fits = {"cells": [], "points": ["--dequantise", "none"], "given": ["--dequantise", "visits=1"]}
    for name, extra in fits.items():
        assert run("fit", "counts.csv", "--model", "gaussian", "--name", name, *extra, *SMALL)[0] == 0
    lattices = json.loads((home / "runs" / "cells" / "run.json").read_text())["dataset"]["lattices"]
    assert lattices == {"visits": {"step": 1.0, "origin": 0.0}}
    for name in ("cells", "given"):
        assert run("sample", name, "-n", "40", "-o", "drawn.csv")[0] == 0
        drawn = read(home / "drawn.csv")
        assert (drawn["visits"] == drawn["visits"].round()).all()
        assert (drawn["cost"] != drawn["cost"].round()).any()
    code, _, err = run("score", "cells", "counts.csv", "-o", "scores.csv")
    assert code == 0 and "visits" in err and "lower bound" in err and "lie between" not in err
    (home / "between.csv").write_text("visits,cost\n2,1.0\n2.4,1.0\n1.7,1.0\n")
    code, out, err = run("score", "cells", "between.csv", "-o", "scores.csv", "--json")
    assert code == 0 and json.loads(out)["out_of_place"] == {"visits": 2}
    assert "2 of 3 values of visits lie between those that the model was fitted on" in err
    scored = read(home / "scores.csv")["log_prob"]
    assert scored[0] == scored[1] == scored[2]
    assert run("evaluate", "cells")[0] == 0
    # Cells and points are different things to be likely.
    assert run("report", "cells", "points", "given")[0] == 0
    page = (home / "reports" / "cells-points-given" / "report.md").read_text().replace("\\", "")
    assert page.count("## counts") == 2
    assert "Values are evenly spaced in visits (by 1):" in page
    assert "Values repeat in visits" in page
