"""The run folder: making, opening, listing, logging."""

from pathlib import Path

import numpy as np
import pytest

from flowbench.errors import ConfigurationError, DamagedFileError, RunExistsError, UnknownNameError
from flowbench.store import Run, check_run_name, list_runs

CONFIG = {"data": {"name": "moons", "rows": 1000}, "tolerances": [1e-5, 1e-3], "ema": True}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "moons", CONFIG, {"status": "created"})


def test_a_new_run_holds_its_configuration_and_its_history(run: Run) -> None:
    assert run.name == "moons"
    assert run.config == CONFIG
    assert run.info["status"] == "created"
    assert run.info["created"].endswith("+00:00")
    assert {path.name for path in run.path.iterdir()} == {"config.toml", "run.json"}
    assert Run.open(run.path) == run


def test_an_existing_run_is_never_overwritten(run: Run) -> None:
    with pytest.raises(RunExistsError, match="moons is already there"):
        Run.create(run.path, {}, {})
    assert run.config == CONFIG
    assert [path.name for path in run.path.parent.iterdir()] == ["moons"]


def test_an_empty_folder_may_become_a_run_and_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", CONFIG, {}).config == CONFIG
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunExistsError):
        Run.create(tmp_path / "file", CONFIG, {})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_inside_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write"):
        Run.create(tmp_path / "file" / "run", {}, {})


def test_a_configuration_that_cannot_be_stored_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Run.create(tmp_path / "run", {"a": object()}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../a",
        "a\\b",
        ".hidden",
        "-rf",
        "a\nb",
        "a\0b",
        " a",
        "a ",
        "a.",
        "x" * 101,
        "a:b",
    ],
)
def test_names_that_are_not_plain_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a run or a report cannot be called"):
        check_run_name(name)


@pytest.mark.parametrize("name", ["moons-cnf", "8gaussians", "my table (2)", "протеин", "a_b.c+d", "x" * 100])
def test_names_that_people_give_are_taken(tmp_path: Path, name: str) -> None:
    assert check_run_name(name) == name
    assert Run.create(tmp_path / name, {}, {}).name == name


def test_create_refuses_a_path_that_ends_in_no_name(tmp_path: Path) -> None:
    for path in (tmp_path / "..", tmp_path / ".hidden", Path("/"), Path()):
        with pytest.raises(ConfigurationError, match="a run or a report cannot be called"):
            Run.create(path, {}, {})


def test_opening_what_is_not_there_suggests_what_is(run: Run) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown run `moon`; did you mean `moons`\? available: moons"
    ):
        Run.open(run.path.with_name("moon"))
    with pytest.raises(UnknownNameError, match="available: none"):
        Run.open(run.path / "missing" / "x")
    with pytest.raises(ConfigurationError, match="cannot read"):
        Run.open(run.path.with_name("x" * 5000))


def test_a_folder_that_is_no_run_is_refused(run: Run, tmp_path: Path) -> None:
    (run.path / "run.json").unlink()
    with pytest.raises(DamagedFileError, match=r"not a run folder: it has no run\.json"):
        Run.open(run.path)
    with pytest.raises(DamagedFileError, match=r"no config\.toml and no run\.json"):
        Run.open(tmp_path)


def test_update_info_keeps_the_other_fields(run: Run) -> None:
    created = run.info["created"]
    run.update_info(status="running", seconds=np.float64(1.5))
    run.update_info(nll=float("nan"))
    assert run.info == {"created": created, "status": "running", "seconds": 1.5, "nll": None}


def test_metrics_come_back_in_order(run: Run) -> None:
    assert run.metrics() == []
    records = [{"step": i, "loss": 0.1 * i, "nfe": None} for i in range(5)]
    for record in records:
        run.append_metrics(record)
    assert run.metrics() == records


@pytest.mark.parametrize("torn", [b'{"step": 3', b'{"step": 3}', b"\xc3", b"\0" * 10])
def test_a_torn_last_line_is_dropped_and_written_over(run: Run, torn: bytes) -> None:
    run.append_metrics({"step": 1, "text": "é"})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert run.metrics() == [{"step": 1, "text": "é"}]
    run.append_metrics({"step": 2})
    assert [record["step"] for record in run.metrics()] == [1, 2]


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"", b"\xff", b"\0\0"])
def test_an_earlier_damaged_line_is_named(run: Run, damage: bytes) -> None:
    run.append_metrics({"step": 1})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(damage + b"\n")
    run.append_metrics({"step": 3})
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl, line 2 "):
        run.metrics()


def test_truncate_metrics_drops_what_came_after_a_step(run: Run) -> None:
    for step in (10, 20, 30):
        run.append_metrics({"step": step})
    run.append_metrics({"note": "no step"})
    run.truncate_metrics(20)
    assert run.metrics() == [{"step": 10}, {"step": 20}, {"note": "no step"}]


def test_model_and_resume_are_kept_apart(run: Run) -> None:
    before = run.has_resume
    run.save_model({"w": np.ones(2)}, {"columns": "x,y"})
    run.save_resume({"w": np.zeros(2)}, {"step": "7"})
    assert run.has_resume and not before
    assert run.load_model()[1] == {"columns": "x,y"}
    assert run.load_resume()[1] == {"step": "7"}


def test_what_was_not_written_yet_is_said_plainly(run: Run) -> None:
    def says(words: str) -> None:
        for load in (run.load_model, run.load_resume, run.read_results):
            with pytest.raises(ConfigurationError, match=rf"the run `moons` has no \w+\.\w+: {words}"):
                load()

    says("it ended too early")
    run.update_info(status="running")
    says("it ended too early")
    with run.lock():
        says("it is still being fitted")
    run.update_info(status="finished")
    says("it is missing, though the run is finished")


def test_runs_are_listed_newest_first_and_damage_is_reported(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "runs") == ([], [])
    for name in ("first", "third", "second"):
        Run.create(tmp_path / "runs" / name, {}, {})
    (tmp_path / "runs" / "notes.txt").write_text("")
    (tmp_path / "runs" / ".cache").mkdir()
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "first" / "run.json").write_text("{")
    runs, warnings = list_runs(tmp_path / "runs")
    assert [run.name for run in runs] == ["second", "third"]
    assert len(warnings) == 2
    assert "empty is not a run folder" in warnings[0]
    assert "not valid JSON" in warnings[1]
