"""`--given` on the command line: fit, sample, score, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest
from command import SMALL

from flowbench.cli.app import run_app

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> Path:
    """A working folder with trial.csv and a run `g` of its answers given the doses."""
    monkeypatch.chdir(tmp_path)
    doses = [round(0.137 * i % 7, 3) for i in range(200)]
    answers = [round(2 * dose + (i * 37 % 101) / 50, 4) for i, dose in enumerate(doses)]
    pd.DataFrame({"dose": doses, "answer": answers}).to_csv("trial.csv", index=False)
    assert run_app(["fit", "trial.csv", "--given", "dose", "--model", "gaussian", "--name", "g", *SMALL]) == 0
    capfd.readouterr()
    return tmp_path


def test_sample_and_score(trial: Path, capfd: Captured) -> None:
    assert run_app(["sample", "g", "-n", "2", "--given", "dose=1.5", "-o", "-"]) == 0
    header, *rows = capfd.readouterr().out.strip().splitlines()
    assert header == "answer,dose,log_prob,log_prob_error"
    assert [row.split(",")[1] for row in rows] == ["1.5", "1.5"]
    assert run_app(["sample", "g", "-n", "2", "--given", "trial.csv", "-o", "-"]) == 0
    assert len(capfd.readouterr().out.strip().splitlines()) == 401
    assert run_app(["score", "g", "trial.csv", "-o", "-"]) == 0
    scores = capfd.readouterr().out.strip().splitlines()
    assert len(scores) == 201 and all(row.endswith(",") for row in scores[1:])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sample", "g"], 2, "models answer given dose; say for which values rows are drawn"),
        (["sample", "g", "--given", "dose=x"], 2, "the value of `dose` must be a finite number"),
        (["sample", "g", "--given", "dose=1,dose=2"], 2, "names `dose` twice"),
        (["sample", "g", "--given", "dise=1"], 2, "did you mean `dose`"),
        (["sample", "g", "--given", "nowhere.csv"], 3, "nowhere.csv"),
        (["sample", "g", "--given", "empty.csv"], 3, "the run is given dose"),
        (["fit", "trial.csv", "--given", "does"], 2, "unknown column `does`; did you mean `dose`?"),
        (["fit", "trial.csv", "--given", "dose,answer"], 2, "leave one out, whose density is to be learnt"),
        (["score", "g", "empty.csv"], 3, "the run was fitted on answer, dose"),
    ],
)
def test_givens_that_do_not_fit(
    trial: Path, capfd: Captured, arguments: list[str], code: int, said: str
) -> None:
    (trial / "empty.csv").write_text("other,answer\n1,2\n3,4\n5,7\n")
    assert run_app(arguments) == code
    captured = capfd.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1
