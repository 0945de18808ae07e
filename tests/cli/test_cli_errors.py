"""A user's mistake gives one clear line and the documented exit code, and nothing is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, TINY_CNF, flowbench, write_csv

from flowbench.store import Run

Call = Callable[..., tuple[int, str, str]]
FIT = ("fit", "table.csv", "--model", "gaussian")

#: What is typed, the exit code, and what the line must say.
WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("fti", "moons"), 2, "No such command 'fti'"),
    (("fit", "moons", "--modle", "cnf"), 2, "No such option: --modle"),
    (("fit",), 2, "there is no data set"),
    (("fit", "mooons"), 2, "did you mean `moons`"),
    (("fit", "moons", "--model", "plannar"), 2, "did you mean `planar`"),
    (("fit", "moons", "--preset", "fast"), 2, "unknown preset `fast`"),
    (("fit", "moons", "--model", "planar", "--preset", "ffjord"), 2, "for model `planar`"),
    (("fit", "moons", "--steps", "many"), 2, "--steps"),
    (("fit", "moons", "--steps", "-5"), 2, "`plan.steps`: must be greater than 0; got -5"),
    (("fit", "moons", "--time-budget", "soon"), 2, "`--time-budget` takes a time such as 60s"),
    (("fit", "moons", "--time-budget", "0s"), 2, "`--time-budget`"),
    (("fit", "moons", "--seed", "-1"), 2, "`seed`"),
    (("fit", "moons", "--rows", "0"), 2, "`data.rows`"),
    (("fit", "moons", "--columns", ""), 2, "`--columns` takes names"),
    (("fit", "moons", "--columns", "x,x"), 2, "`--columns` names one thing twice"),
    (("fit", "moons", "--home", "table.csv"), 2, "'--home'"),
    (("fit", "moons", "--rows", "99", "--home", "/proc"), 2, "cannot write /proc/runs"),
    (("fit", "moons", "--threads", "100000"), 2, "`threads`"),
    (("fit", "moons", "--set", "data=3"), 2, "data set"),
    (("fit", "moons", "--set", "flow.name=3"), 2, "`flow`"),
    (("fit", "moons", "--set", "flow={name=[]}"), 2, "`flow`"),
    (("fit", "moons", "--set", "seed=2020-01-01"), 2, "`seed`"),
    (("fit", "moons", "--config", "folder.csv"), 2, "cannot read the configuration file"),
    (("fit", "moons", "--config", "garbage.toml"), 2, "not valid TOML"),
    (("fit", "--config", "unknown.toml"), 2, "there is no data set"),
    (("fit", "--json=3", "moons"), 2, "--json"),
    (("fit", "moons", "iris"), 2, "see `flowbench fit --help`"),
    (("fit", "moons", "--rows", "3"), 2, "row"),
    (("fit", "moons", "--columns", "x,q"), 2, "column"),
    (
        ("fit", "table.csv", "--dequantise", "most"),
        2,
        "`data.dequantise`: takes auto, none, or",
    ),
    (
        ("fit", "table.csv", "--dequantise", "a=wide"),
        2,
        "`data.dequantise`: takes auto, none, or",
    ),
    (("fit", "table.csv", "--dequantise", "nope=1"), 2, "`dequantise`: unknown column `nope`"),
    (("fit", "table.csv", "--dequantise", "a=-1"), 2, "positive spacings"),
    (("fit", "table.csv", "--dequantise", "a=1,a=2"), 2, "names `a` twice"),
    (("fit", "table.csv", "--dequantise", "a=1e300"), 2, "too wide for the values of `a`"),
    (("fit", "table.csv", "--dequantise", "a=1e-300"), 2, "too fine for the values of `a`"),
    (("compare", "table.csv", "--models", "gaussian", "--dequantise", "nope=1"), 2, "unknown column `nope`"),
    (("fit", "moons", "--dequantise", "x=1"), 2, "`dequantise` is for tables; `moons`"),
    (("fit", "moons", "--device", "tpu"), 2, "`device`"),
    (("fit", "moons", "--threads", "0"), 2, "`threads`"),
    (("fit", "moons", "--set", "flow.divergence={name='hutchinson'"), 2, "the value is not valid TOML"),
    (("fit", "moons", "--set", "plan.seconds=0"), 2, "`plan.seconds`: must be greater than 0; got 0"),
    (("fit", "moons", "--set", "flow.field"), 2, "`--set` takes part.option=value"),
    (("fit", "moons", "--set", "flow.feild.width=3"), 2, "unknown option `flow.feild`"),
    (("fit", "moons", "--set", "flow.field.width=wide"), 2, "`flow.field.width`: must be a valid integer"),
    (("fit", "moons", "--set", "flow=3"), 2, "flow"),
    (("fit", "moons", "--set", "plan=3"), 2, "plan"),
    (("fit", "moons", "--set", "self=1"), 2, "unknown option `self`"),
    (("fit", "moons", "--set", "split.train=0.99"), 2, "must add up to 1"),
    (("fit", "moons", "--set", "flow.divergence.name=magic"), 2, "unknown divergence estimator `magic`"),
    (("fit", "moons", "--config", "missing.toml"), 2, "missing.toml"),
    (("fit", "moons", "--config", "broken.toml"), 2, "not valid TOML"),
    (("fit", "moons", "--config", "unknown.toml"), 2, "unknown option `plam`"),
    (("fit", "moons", "--name", "../up"), 2, "cannot be called"),
    (("fit", "moons", "--name", "東" * 90), 2, "cannot be called"),
    (("fit", "moons", "--set", "flow=" + "[" * 3000), 2, "the value is not valid TOML"),
    (("fit", "moons", "--config", "deep.toml"), 2, "not valid TOML"),
    (("fit", "no_header.csv"), 3, "column `c2`, row 1: the cell is missing"),
    (
        ("fit", "table.csv", "--model", "kde", "--set", "plan.phases=[{objective='flow-matching'}]"),
        2,
        "fitted without steps",
    ),
    ((*FIT, "--set", "plan.phases=[{objective='flow-matching'}]", "--steps", "2"), 2, "continuous flow"),
    (("fit", "table.csv", "--rows", "5"), 3, "5 rows are too few to learn a density from"),
    (("fit", "table.csv", "--rows", "0"), 2, "rows"),
    (("datasets", "check", "moons", "--rows", "50"), 2, "`rows` is for table files here; `moons` is none"),
    (("fit", "table.csv", "--columns", "a,nope"), 2, "unknown column `nope`"),
    (("fit", "nowhere.csv"), 3, "nowhere.csv: there is no such file in /"),
    (("fit", "folder.csv"), 3, "folder.csv"),
    (("fit", "empty.csv"), 3, "empty.csv"),
    (("fit", "binary.csv"), 3, "binary.csv"),
    (("fit", "binary.parquet"), 3, "binary.parquet"),
    (("fit", "binary.npy"), 3, "binary.npy"),
    (("fit", "binary.h5"), 3, "binary.h5"),
    (("fit", "missing_cell.csv"), 3, "row 7"),
    (("fit", "text_cell.csv"), 3, "`b`"),
    (("fit", "infinite.csv"), 3, "infinite"),
    (("fit", "constant.csv"), 3, "`b`"),
    (("fit", "twice.csv"), 3, "two columns are called `a`"),
    (("fit", "short.csv"), 3, "row"),
    (("fit", "penguins.csv"), 3, "species"),
    ((*FIT, "--name", "g"), 4, "exists already"),
    (("fit", "--resume", "g"), 4, "finished"),
    (("fit", "--resume", "nothing"), 2, "nothing"),
    (("fit", "moons", "--resume", "g"), 2, "it takes no DATASET"),
    (("fit", "--resume", "g", "--steps", "9"), 2, "it takes no --steps"),
    (("fit", "--resume", "bad_resume", "--set", "flow.layers=3"), 2, "takes the evaluation's options alone"),
    (("fit", "--resume", "g", "--dry-run"), 2, "it takes no --dry-run"),
    (("fit", "--resume", "bad_resume"), 5, "resume.safetensors"),
    (("fit", "--resume", "old_config"), 5, "`plan.gone`"),
    (("fit", "--resume", "old_info"), 5, "run.json does not say which data"),
    (("fit", "--resume", "old_data"), 3, "has changed"),
    (("fit", "--resume", "no_results"), 4, "does not bring back its results.h5, which is missing"),
    ((*FIT, "--name", "not_a_run"), 4, "runs/not_a_run is there already, and is no run"),
    (("sample", "no_lattices"), 5, "`lattices` of the data set are not as flowbench writes them"),
    (("report", "no_results"), 3, "no run has results (given: `no_results` (results.h5 is missing))"),
    (("fit", "moons", "--set", "evaluation.grid=1"), 2, "`evaluation.grid`"),
    (("sample",), 2, "Missing argument 'run'; see `flowbench sample --help`"),
    (("score", "g", "table.csv", "-o", "table.csv"), 2, "would overwrite what is read"),
    (("sample", "g", "-o", "runs/g/results.h5"), 2, "would overwrite what is read"),
    (("score", "g", "mine", "-o", "datasets/mine.csv"), 2, "would overwrite what is read"),
    (("sample", "g", "-o", "x" * 300 + ".csv"), 2, "File name too long"),
    (("sample", "slash"), 2, "column `km/h` cannot be written"),
    (("sample", "nothing"), 2, "nothing"),
    (("sample", "g", "--seed", "-1"), 2, "--seed"),
    (("sample", "g", "-o", "folder.csv"), 2, "it is a folder"),
    (("sample", "old_config"), 5, "`plan.gone`"),
    (("sample", "old_info"), 5, "old_info"),
    (("sample", "no_dataset"), 5, "run.json: what it says of the data set is not as"),
    (("sample", "no_names"), 5, "run.json: what it says of the data set is not as"),
    (("score", "no_dataset", "table.csv"), 5, "run.json: what it says of the data set is not as"),
    (("sample", "other_model"), 5, "does not fit its configuration"),
    (("sample", "x" * 300), 2, "xxx"),
    (("sample", "g", "-n", "0"), 2, "-n"),
    (("sample", "g", "-o", "out.xlsx"), 2, "out.xlsx"),
    (("sample", "g", "-o", "no/such/folder/out.csv"), 2, "no/such/folder"),
    (("sample", "table.csv"), 2, "table.csv"),
    (("sample", "not_a_run"), 5, "not_a_run"),
    (("sample", "bad_model"), 5, "model.safetensors"),
    (("sample", "bad_config"), 5, "config.toml"),
    (("sample", "bad_info"), 5, "run.json"),
    (("sample", "no_model"), 2, "model.safetensors"),
    (("score", "g", "only_a.csv"), 3, "column `b`"),
    (("score", "g", "missing_cell.csv", "--strict"), 3, "row 7"),
    (("score", "g", "text_cell.csv", "--strict"), 3, "`three` is not a number"),
    (("score", "g", "infinite.csv", "--strict"), 3, "the value is infinite"),
    (("score", "g", "moons"), 3, "column `a`"),
    (("score", "strict", "table.csv", "--strict"), 1, "rows 1 to 60 of those scored"),
    (("score", "g", "nowhere.csv"), 3, "nowhere.csv"),
    (("score", "g", "nowhere"), 2, "unknown dataset `nowhere`"),
    (("score", "g", "empty.csv"), 3, "empty.csv"),
    (("score", "g", "no_rows.csv"), 3, "no rows"),
    (("score", "g"), 2, "Missing argument 'table'"),
    (("report", "bad_results"), 5, "results.h5"),
    (("compare", "table.csv", "--models", "cnf,nope"), 2, "unknown model `nope`"),
    (("compare", "table.csv", "--models", ","), 2, "`--models`"),
    (
        (
            "compare",
            "table.csv",
            "--models",
            "gaussian,planar",
            "--set",
            "plan.phases=[{objective='ot-flow'}]",
        ),
        2,
        "needs a continuous flow",
    ),
    (("compare", "table.csv", "--seeds", "0"), 2, "--seeds"),
    (
        ("compare", "table.csv", "--seeds", "2", "--set", "seed=5"),
        2,
        "`--set` changes the data set, the model",
    ),
    (("compare", "table.csv", "--set", "flow.name=nsf"), 2, "`--set` changes the data set, the model"),
    (("compare", "table.csv", "--name", "a/b"), 2, "cannot be called"),
    (("compare", "table.csv", "--models", "cnf,cnf"), 2, "`--models` names one thing twice"),
    (("compare", "table.csv", "--preset", "fjord"), 2, "none of the models has a preset `fjord`"),
    (("compare", "table.csv", "nowhere.csv", "--steps", "5"), 3, "nowhere.csv"),
    (("compare",), 2, "Missing argument 'datasets'"),
    (("report",), 2, "Missing argument 'runs'"),
    (("report", "g", "-o", "table.csv"), 2, "table.csv"),
    (("datasets",), 2, "Missing command; see `flowbench datasets --help`"),
    (("datasets", "show", "table.csv", "--columns", "z"), 2, "unknown column `z`"),
    (("runs", "show", "nothing"), 2, "nothing"),
    (("runs", "show", "\x1b[31mred\n"), 2, "?[31mred"),
    (("doctor", "--home", "table.csv"), 2, "'--home'"),
    (("datasets", "show", "nope"), 2, "unknown dataset `nope`"),
    (("datasets", "remove", "iris"), 2, "No such command 'remove'"),
]


@pytest.fixture(autouse=True)
def wrong_files(home: Path) -> None:
    """Everything that can be wrong with a table, a configuration or a run."""
    garbage = np.random.default_rng(0).bytes(500)
    for name in ("binary.csv", "binary.parquet", "binary.npy", "binary.h5"):
        (home / name).write_bytes(garbage)
    (home / "folder.csv").mkdir()
    (home / "empty.csv").touch()
    rows = [f"{i},{i * i}" for i in range(20)]
    tables = {
        "missing_cell.csv": ["a,b", *rows[:6], "3,", *rows[7:]],
        "text_cell.csv": ["a,b", *rows[:6], "3,three", *rows[7:]],
        "infinite.csv": ["a,b", *rows[:6], "3,inf", *rows[7:]],
        "constant.csv": ["a,b", *(f"{i},1" for i in range(20))],
        "twice.csv": ["a,a", *rows],
        "short.csv": ["a,b", *rows[:4]],
        "no_header.csv": ["5.1,NA", *rows],
        "datasets/mine.csv": ["a,b", *rows],
        "only_a.csv": ["a", *(str(i) for i in range(20))],
        "penguins.csv": ["species,mass", *(f"Adelie,{i}" for i in range(20))],
    }
    (home / "datasets").mkdir()
    for name, lines in tables.items():
        (home / name).write_text("\n".join(lines) + "\n")
    (home / "no_rows.csv").write_text("a,b\n")
    (home / "broken.toml").write_text("[plan\n")
    (home / "garbage.toml").write_bytes(garbage)
    (home / "deep.toml").write_text(f"a = {'[' * 3000}")
    (home / "unknown.toml").write_text("[plam]\nsteps = 3\n")
    (home / "runs" / "not_a_run").mkdir()
    for name, file in {
        "bad_model": "model.safetensors", "bad_config": "config.toml", "bad_info": "run.json",
        "bad_results": "results.h5",
    }.items():  # fmt: skip
        shutil.copytree(home / "runs" / "g", home / "runs" / name)
        (home / "runs" / name / file).write_bytes(b"\x00garbage")
    for name, (file, text) in {
        "bad_resume": ("resume.safetensors", "garbage"),
        "old_config": ("config.toml", "[plan]\ngone = 1\n"),
        "old_info": ("run.json", '{"status": "interrupted"}'),
    }.items():
        shutil.copytree(home / "runs" / "g", home / "runs" / name)
        Run.open(home / "runs" / name).update_info(status="interrupted")
        (home / "runs" / name / file).write_text(text)
    shutil.copytree(home / "runs" / "g", home / "runs" / "slash")
    for name, dataset in {"no_dataset": "table", "no_names": {"columns": 5}}.items():
        shutil.copytree(home / "runs" / "g", home / "runs" / name)
        Run.open(home / "runs" / name).update_info(dataset=dataset)
    Run.open(home / "runs" / "slash").update_info(dataset={"columns": ["km/h", "b"]})
    shutil.copytree(home / "runs" / "g", home / "runs" / "no_lattices")
    dataset = dict(Run.open(home / "runs" / "g").dataset)
    older = Run.open(home / "runs" / "no_lattices")
    older.update_info(dataset=dataset | {"lattices": 5})
    # As it was when run.json alone told how rows are dequantised.
    tensors, metadata = older.load_model()
    kept = {
        name.removeprefix("encoder."): each for name, each in tensors.items() if "dequantiser" not in name
    }
    older.save_model(kept, metadata)
    shutil.copytree(home / "runs" / "g", home / "runs" / "old_data")
    Run.open(home / "runs" / "old_data").update_info(
        status="interrupted", dataset=dataset | {"sha256": "0" * 64}
    )
    shutil.copytree(home / "runs" / "c", home / "runs" / "strict")
    config = home / "runs" / "strict" / "config.toml"
    config.write_text(config.read_text().replace("max_nfe = 10000", "max_nfe = 12"))
    shutil.copytree(home / "runs" / "g", home / "runs" / "other_model")
    shutil.copy(home / "runs" / "c" / "model.safetensors", home / "runs" / "other_model")
    shutil.copytree(home / "runs" / "g", home / "runs" / "no_model")
    (home / "runs" / "no_model" / "model.safetensors").unlink()
    shutil.copytree(home / "runs" / "g", home / "runs" / "no_results")
    (home / "runs" / "no_results" / "results.h5").unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def check_one_line(err: str, says: str) -> None:
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert says in lines[0]


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_line_and_changes_nothing(
    run: Call, home: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    before = contents(home)
    exit_code, out, err = run(*arguments)
    check_one_line(err, says)
    assert (exit_code, out) == (code, "")
    assert contents(home) == before


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG[::14], ids=lambda value: str(value)[:60])
def test_through_the_real_command(home: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = flowbench(*arguments, cwd=home)
    check_one_line(done.stderr, says)
    assert done.returncode == code


def test_another_runs_state_is_not_resumed_on(run: Call, home: Path) -> None:
    Run.open(home / "runs" / "g").update_info(status="interrupted")
    shutil.copy(home / "runs" / "c" / "resume.safetensors", home / "runs" / "g")
    model = (home / "runs" / "g" / "model.safetensors").read_bytes()
    code, _, err = run("fit", "--resume", "g")
    assert code == 5
    check_one_line(err.partition("\n")[2], "does not fit its configuration")
    assert (home / "runs" / "g" / "model.safetensors").read_bytes() == model


def test_a_table_that_cannot_be_scored_is_not_to_be_cut(run: Call, home: Path) -> None:
    assert "--columns" in run("fit", "text_cell.csv")[2]
    code, _, err = run("score", "g", "text_cell.csv", "--strict")
    assert code == 3 and "--columns" not in err


def test_the_table_of_a_run_is_not_overwritten_by_its_draws(run: Call, home: Path) -> None:
    (home / "datasets" / "mine.csv").write_text((home / "table.csv").read_text())
    before = (home / "datasets" / "mine.csv").read_bytes()
    assert run("fit", "mine", "--model", "gaussian", "--name", "m", *SMALL)[0] == 0
    code, _, err = run("sample", "m", "-o", "datasets/mine.csv")
    assert code == 2
    check_one_line(err, "would overwrite what is read")
    assert (home / "datasets" / "mine.csv").read_bytes() == before


def test_one_test_row_is_too_few_for_a_tradeoff(run: Call, home: Path) -> None:
    write_csv(home / "tiny.csv", n=12)
    assert run("fit", "tiny.csv", "--steps", "2", "--name", "t", *TINY_CNF, *SMALL)[0] == 0
    code, _, err = run("tradeoff", "t")
    assert code == 2
    check_one_line(err, "one test row")


def test_too_large_a_model_says_so(run: Call, home: Path) -> None:
    code, _, err = run("fit", "table.csv", "--steps", "1", "--set", "flow.field.width=1000000000000")
    assert code == 1
    check_one_line(err, "out of memory")


def test_a_fault_of_ours_is_said_to_be_one(run: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowbench.workflows.sampling.sample_to", lambda *arguments, **options: 1 / 0)
    code, _, err = run("sample", "g")
    assert code == 70
    assert err.startswith("internal error: ZeroDivisionError: division by zero; set FLOWBENCH_DEBUG=1")
    monkeypatch.setenv("FLOWBENCH_DEBUG", "1")
    assert "Traceback" in run("sample", "g")[2]


def test_a_run_under_way_is_locked(run: Call, home: Path) -> None:
    write_csv(home / "table.csv")
    shutil.copytree(home / "runs" / "g", home / "runs" / "busy")
    busy = Run.open(home / "runs" / "busy")
    busy.update_info(status="running")
    with busy.lock():
        done = flowbench("fit", "--resume", "busy", cwd=home)
    assert done.returncode == 4
    check_one_line(done.stderr, "busy")


def test_a_fit_that_diverges_says_so(run: Call, home: Path) -> None:
    wild = ("--set", "plan.phases=[{learning_rate=1e30}]", "--set", "plan.max_rollbacks=1")
    code, _, err = run("fit", "table.csv", "--model", "planar", "--steps", "50", *wild, *SMALL)
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("error: training with `likelihood` failed at step")


def test_an_integration_that_cannot_be_finished_says_so(run: Call, home: Path) -> None:
    code, _, err = run(
        "fit", "table.csv", *TINY_CNF, *SMALL, "--set", "evaluation.integrator.max_nfe=10", "--name", "capped"
    )
    assert code == 1
    assert "max_nfe" in err.strip().splitlines()[-1]
