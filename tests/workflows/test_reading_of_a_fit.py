"""What a user says of a table's file reaches the fit, and what was guessed is said and stored."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from flowbench.errors import ConfigurationError, DataError
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.dataset_rows import load_rows
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import ScoredTable, score

SETTINGS = [
    "evaluation.test_rows=50", "evaluation.samples=10", "evaluation.grid=4", "evaluation.paths=2",
    "evaluation.certificates=false",
]  # fmt: skip
N = 200


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def gaussian(home: Home, table: str, watch: Watch | None = None, **options: object) -> Run:
    overrides = {f"data.{name}": value for name, value in options.items()}
    config = resolve(str(home.path / table), "gaussian", overrides=overrides, settings=SETTINGS)
    return fit(config, home=home, watch=watch)


def test_rows_that_are_dropped_keep_their_numbers(home: Home) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2)).round(3)
    lines = [f"{a},{b}" if i % 3 else f"{a}," for i, (a, b) in enumerate(x)]
    (home.path / "t.csv").write_text("a,b\n" + "\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"column `b`, row 1: the cell is missing \(67 of 200 cells\).*--missing drop"
    ):
        gaussian(home, "t.csv")
    said: list[str] = []
    run = gaussian(home, "t.csv", Watch(on_warning=said.append), missing="drop")
    assert any("67 of 200 rows have missing cells" in each for each in said)
    assert run.info["dataset"]["notes"] == ["67 of 200 rows have missing cells, and are left out"]
    results = run.read_results()
    numbers = np.concatenate([results.split.train, results.split.validation, results.split.test])
    assert sorted(numbers) == [i for i in range(N) if i % 3]
    np.testing.assert_array_equal(results.scored.x, x[results.scored.row])
    evaluate(run, home=home)
    scored = score(run, str(home.path / "t.csv"), home=home)
    assert len(scored.row) == N
    assert scored.counts() == {"missing cell in `b`": 67}
    np.testing.assert_allclose(scored.log_prob[results.scored.row], results.scored.log_prob, rtol=1e-12)


def test_groups_stay_in_one_part_and_are_not_learnt(home: Home) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2))
    names = [f"p{i % 23}" for i in range(N)]
    text = "patient,a,b\n" + "".join(f"{name},{a},{b}\n" for name, (a, b) in zip(names, x, strict=True))
    (home.path / "t.csv").write_text(text)
    run = gaussian(home, "t.csv", group="patient")
    assert run.dataset["columns"] == ["a", "b"]
    split = run.read_results().split
    parts = [{names[row] for row in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == 23
    assert len(split.train) + len(split.validation) + len(split.test) == N
    with pytest.raises(ConfigurationError, match="`--group`: unknown column `doctor`"):
        gaussian(home, "t.csv", group="doctor")


def test_a_grouping_column_can_be_learnt_too(home: Home) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2))
    text = "day,a,b\n" + "".join(f"{i // 7},{a},{b}\n" for i, (a, b) in enumerate(x))
    (home.path / "t.csv").write_text(text)
    config = resolve(
        str(home.path / "t.csv"), "gaussian", overrides={"data.group": "day", "data.columns": ("day", "a")}
    )
    dataset, split = load_rows(config, home.datasets)
    assert dataset.column_names == ("day", "a")
    days = [set(dataset.rows[part, 0]) for part in (split.train, split.validation, split.test)]
    assert not days[0] & days[1] and not days[0] & days[2] and not days[1] & days[2]


def test_a_table_that_is_scored_is_read_as_that_of_the_run(home: Home) -> None:
    random = np.random.default_rng(0)
    numbers = random.integers(1000, 9999, size=(N, 2))
    cells = [[f'"{v // 1000},{v % 1000:03d}"' for v in row] for row in numbers]
    text = "a,b\n" + "\n".join(",".join(row) for row in cells) + "\n"
    (home.path / "t.csv").write_text(text)
    with pytest.raises(DataError, match="--thousands"):
        gaussian(home, "t.csv")
    run = gaussian(home, "t.csv", thousands=",")
    results = run.read_results()
    np.testing.assert_array_equal(results.scored.x, numbers[results.scored.row])
    scored = score(run, str(home.path / "t.csv"), home=home)
    np.testing.assert_allclose(scored.log_prob[results.scored.row], results.scored.log_prob, rtol=1e-12)
    told = score(run, str(home.path / "t.csv"), home=home, reading={"thousands": None, "decimal": ","})
    assert told.log_prob.mean() < scored.log_prob.mean() - 1
    drawn = sample(run, 9)
    drawn.save(home.path / "x.csv", run)
    again = score(run, str(home.path / "x.csv"), home=home)
    np.testing.assert_allclose(again.log_prob, drawn.log_prob, rtol=1e-10)


def test_a_column_of_dates_is_not_scored_as_numbers(home: Home) -> None:
    days = np.datetime64("2020-01-01") + np.random.default_rng(0).integers(0, 300, N)
    values = np.random.default_rng(1).normal(size=N)
    text = "day,b\n" + "".join(f"{str(d).replace('-', '')},{v}\n" for d, v in zip(days, values, strict=True))
    (home.path / "t.csv").write_text(text)
    run = gaussian(home, "t.csv")
    whole = score(run, str(home.path / "t.csv"), home=home)
    # One row tells nothing of what its digits are.
    (home.path / "one.csv").write_text("\n".join(text.splitlines()[:2]) + "\n")
    one = score(run, str(home.path / "one.csv"), home=home)
    np.testing.assert_allclose(one.log_prob, whole.log_prob[:1], rtol=1e-12)
    (home.path / "other.csv").write_text("day,b\n17,0.5\n18,0.25\n")
    with pytest.raises(DataError, match="column `day`: it holds plain numbers where days since 1970-01-01"):
        score(run, str(home.path / "other.csv"), home=home)


def test_numbers_that_look_like_dates_are_scored_as_the_numbers_that_were_learnt(home: Home) -> None:
    random = np.random.default_rng(0)
    text = "n,b\n" + "".join(
        f"{v},{w}\n" for v, w in zip(random.integers(10**7, 9 * 10**7, N), random.normal(size=N), strict=True)
    )
    (home.path / "t.csv").write_text(text)
    run = gaussian(home, "t.csv")
    (home.path / "new.csv").write_text("n,b\n20200131,0.5\n20200201,0.25\n")
    scored = score(run, str(home.path / "new.csv"), home=home)
    assert scored.notes == ()
    assert (scored.log_prob > -25).all()


def test_a_changed_sign_beside_numbers_is_said(home: Home) -> None:
    values = np.random.default_rng(0).normal(50, 5, size=(N, 2)).round(2)
    (home.path / "t.csv").write_text("p,b\n" + "".join(f"{a}%,{b}\n" for a, b in values))
    run = gaussian(home, "t.csv")
    (home.path / "new.csv").write_text("p,b\n0.5,50\n0.51,49\n")
    scored = score(run, str(home.path / "new.csv"), home=home)
    assert any("`%` is known to stand" in note for note in scored.notes)
    for ending in ("csv", "parquet", "h5"):
        sample(run, 5).save(home.path / f"x.{ending}", run)
        assert score(run, str(home.path / f"x.{ending}"), home=home).notes == ()


def test_options_of_reading_survive_a_resume(home: Home) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2)).round(3)
    rows = "".join(f"{a};{b}\n".replace(".", ",") for a, b in x)
    with gzip.open(home.path / "t.csv.gz", "wt") as file:
        file.write("1;2\n" + rows)
    overrides = {"data.header": "no", "data.decimal": ",", "plan.steps": 5}
    config = resolve(str(home.path / "t.csv.gz"), "planar", overrides=overrides, settings=SETTINGS)
    run = fit(config, home=home, watch=Watch(should_stop=lambda: True))
    assert run.info["status"] == "interrupted"
    resume(run, home=home)
    assert run.info["dataset"]["rows"] == N + 1
    assert run.info["dataset"]["columns"] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("header", "maybe", "`data.header`"),
        ("separator", "ab", "`data.separator`: takes one character"),
        ("decimal", ";", "`data.decimal`"),
        ("thousands", "x", "`data.thousands`: takes one of"),
        ("encoding", "klingon", "no encoding is called 'klingon'"),
        ("date_format", ("today",), "takes a format such as"),
        ("missing", "guess", "`data.missing`"),
    ],
)
def test_impossible_options(home: Home, option: str, value: object, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        resolve("t.csv", "gaussian", overrides={f"data.{option}": value})


def dated(home: Home, first: str, second: str) -> Run:
    days = np.datetime64("2020-01-01") + np.random.default_rng(0).integers(0, 900, N)
    times = [str(day) for day in days]
    stamps = [pd.Timestamp(each) for each in times]
    values = np.random.default_rng(1).normal(size=N)
    lines = [f"{s.strftime(first)},{s.strftime(second)},{v}" for s, v in zip(stamps, values, strict=True)]
    (home.path / "days.csv").write_text("one,two,b\n" + "\n".join(lines) + "\n")
    return gaussian(home, "days.csv")


def scores(run: Run, home: Home, text: str) -> ScoredTable:
    (home.path / "new.csv").write_text(text)
    return score(run, str(home.path / "new.csv"), home=home)


def test_each_column_of_dates_has_its_own_format(home: Home) -> None:
    run = dated(home, "%d/%m/%Y", "%m/%d/%Y")
    found = scores(run, home, "one,two,b\n03/04/2021,03/04/2021,0.5\n")
    same = scores(run, home, "one,two,b\n2021-04-03,2021-03-04,0.5\n")
    assert found.log_prob == same.log_prob
    other = scores(run, home, "one,two,b\n2021-03-04,2021-04-03,0.5\n")
    assert found.log_prob != other.log_prob


def test_dates_that_are_none_are_flagged_and_others_scored(home: Home) -> None:
    run = dated(home, "%Y-%m-%d", "%Y%m%d")
    good = scores(run, home, "one,two,b\n2021-04-03,20210304,0.5\n")
    found = scores(
        run,
        home,
        "one,two,b\n2021-02-30,20210304,0.5\n2021-04-03,20210304,0.5\n2021-04-03,20210231,0.5\n,,0.5\n",
    )
    assert found.flagged.tolist() == [
        "`2021-02-30` in `one` is not a number",
        "",
        "`20210231` in `two` is not a number",
        "missing cell in `one`",
    ]
    assert found.log_prob[1] == good.log_prob[0]
    nothing = scores(run, home, "one,two,b\n,,0.5\n")
    assert nothing.flagged.tolist() == ["missing cell in `one`"]
    foreign = scores(run, home, "one,two,b\n03.04.2021,20210304,0.5\n")
    assert foreign.log_prob[0] == good.log_prob[0]


def test_rows_do_not_depend_on_how_many_beside_them_are_unfit(home: Home) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2))
    np.savetxt(home.path / "t.csv", x, delimiter=",", header="a,b", comments="")
    run = gaussian(home, "t.csv")
    found = scores(run, home, "a,b\n0.1,0.2\n?,0.4\nx,1\n")
    alone = scores(run, home, "a,b\n0.1,0.2\n")
    assert found.log_prob[0] == alone.log_prob[0]
    assert found.flagged.tolist() == ["", "`?` in `a` is not a number", "`x` in `a` is not a number"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "feather", "h5"])
def test_draws_of_odd_types_are_the_same_rows_when_scored(home: Home, ending: str) -> None:
    random = np.random.default_rng(0)
    seconds = np.clip(random.normal(80000, 9000, N), 0, 86399).astype(np.int64)
    whole = [None if i % 50 == 0 else int(v) for i, v in enumerate(random.normal(0, 999, N))]
    table = pa.table(
        {
            "half": random.normal(30, 9, N).astype(np.float16),
            "single": random.normal(size=N).astype(np.float32),
            "clock": pa.array(seconds * 10**6 + 250000).cast(pa.time64("us")),
            "whole": pa.array(whole),
        }
    )
    parquet.write_table(table, home.path / "t.parquet")
    run = gaussian(home, "t.parquet", missing="drop")
    drawn = sample(run, 100)
    assert ((drawn.x[:, 2] >= 0) & (drawn.x[:, 2] < 86400)).all()
    drawn.save(home.path / f"x.{ending}", run)
    scored = score(run, str(home.path / f"x.{ending}"), home=home)
    np.testing.assert_allclose(scored.log_prob, drawn.log_prob, rtol=1e-12, atol=1e-12)
    if ending == "parquet":
        parquet.read_table(home.path / "x.parquet").to_pandas()


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_own_tables_are_read_plainly_whatever_the_run_was_told(home: Home, ending: str) -> None:
    x = np.random.default_rng(0).normal(size=(N, 2)).round(3)
    (home.path / "t.csv").write_text("".join(f"{a};{b}\n".replace(".", ",") for a, b in x))
    run = gaussian(home, "t.csv", header="no", decimal=",", separator=";")
    drawn = sample(run, 20)
    drawn.save(home.path / f"x.{ending}", run)
    scored = score(run, str(home.path / f"x.{ending}"), home=home)
    assert len(scored.row) == 20
    np.testing.assert_allclose(scored.log_prob, drawn.log_prob, rtol=1e-12)
