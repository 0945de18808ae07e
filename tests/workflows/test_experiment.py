"""Runs from end to end: what is stored, what is kept after an interruption, and exact resumption."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from flowbench.data import Split
from flowbench.errors import (
    ConfigurationError,
    DamagedFileError,
    DataError,
    IntegrationError,
    RunExistsError,
    RunFailedError,
    RunLockedError,
)
from flowbench.evaluation import fit_results
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.models.rows import Rows
from flowbench.registry import MODELS
from flowbench.report import write_report
from flowbench.store import Run
from flowbench.training.criterion import RowCriterion
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState
from flowbench.workflows import dataset_rows
from flowbench.workflows.compare import Comparison, compare, find_runs
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.dataset_rows import load_rows
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import load_model

SMALL = [
    "evaluation.test_rows=60",
    "evaluation.samples=40",
    "evaluation.grid=20",
    "evaluation.paths=5",
    "evaluation.certificates=false",
    "plan.validation_steps=10",
]
CERTIFIED = EvaluationOptions(test_rows=60, samples=40, paths=5)
TINY = {
    "cnf": [
        "flow.field.width=16",
        "flow.field.scales=1",
        "plan.phases=[{objective='flow-matching',batch_size=32,smoothing=0.5,optimizer='soap'}]",
    ],
    "ngboost": ["flow.stages=30", "flow.learning_rate=0.1"],
}


def small(dataset: str, model: str, steps: int | None = 20, **overrides: object) -> RunConfig:
    settings = SMALL + TINY.get(model, [])
    if dataset in {"moons"}:
        overrides = {"data.rows": 800, **overrides}
    if model == "gaussian":
        steps = None
    return resolve(dataset, model, overrides={"plan.steps": steps, **overrides}, settings=settings)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_runs_that_begin_at_once_get_names_of_their_own(home: Home) -> None:
    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda k: home.create_run(None, "Old Faithful", {"seed": k}, {}), range(16)))
    assert {run.name for run in runs} == {"Old-Faithful", *(f"Old-Faithful-{k}" for k in range(2, 17))}
    assert sorted(run.config["seed"] for run in runs) == list(range(16))


@pytest.mark.parametrize("model", ["cnf", "planar", "mixture"])
def test_a_run_is_certified(model: str, home: Home) -> None:
    certified = fit(small("iris", model).model_copy(update={"evaluation": CERTIFIED}), home=home)
    found = certified.read_results().certificates
    assert {"normalisation", "batch_invariance"} <= set(found)
    assert all(each.passed for each in found.values()), found


@pytest.mark.parametrize("model", MODELS.names())
@pytest.mark.parametrize("dataset", ["moons", "iris"])
def test_a_run_holds_everything_the_layout_lists(model: str, dataset: str, home: Home) -> None:
    run = fit(small(dataset, model), home=home)
    names = {path.name for path in run.path.iterdir()}
    assert {
        "config.toml", "run.json", "metrics.jsonl", "model.safetensors", "resume.safetensors", "results.h5"
    } <= names  # fmt: skip
    assert run.info["status"] == "finished"
    results = run.read_results()
    assert (
        len(results.split.train) + len(results.split.validation) + len(results.split.test)
        == run.info["dataset"]["rows"]
    )
    assert set(results.scored.row) <= set(results.split.test)
    assert results.metrics["test_nll"].value == pytest.approx(-results.scored.log_prob.mean())
    assert ("nfe" in results.metrics) == (model == "cnf")
    assert (results.trajectory is not None) == (model == "cnf")
    assert (results.grid is not None) == (dataset == "moons")
    assert not results.certificates
    assert ("kl_to_truth" in results.metrics) == (dataset == "moons")


@pytest.mark.parametrize("model", MODELS.names())
def test_stored_likelihoods_equal_a_fresh_score_of_the_same_rows(model: str, home: Home) -> None:
    run = fit(small("iris", model), home=home)
    stored = run.read_results().scored
    scored = score(run, "iris", home=home)
    assert np.abs(scored.log_prob[stored.row] - stored.log_prob).max() < 1e-9


def test_results_open_in_xarray_with_named_dimensions(home: Home) -> None:
    run = fit(small("moons", "cnf"), home=home)
    expected: dict[str, dict[str, tuple[str, ...]]] = {
        "log_likelihood": {"log_prob": ("row",), "x": ("row", "column"), "true_log_prob": ("row",)},
        "samples": {"log_prob": ("sample",), "x": ("sample", "column")},
        "grid": {"log_prob": ("x", "y"), "true_log_prob": ("x", "y")},
        "trajectory": {"position": ("time", "particle", "column")},
    }
    stored = run.read_results().scored
    for group, variables in expected.items():
        with xarray.open_dataset(run.path / "results.h5", engine="h5netcdf", group=group) as dataset:
            for name, dimensions in variables.items():
                assert dataset[name].dims == dimensions
            if group == "log_likelihood":
                assert dataset["log_prob"].attrs["units"] == "nats"
                assert np.array_equal(dataset["log_prob"], stored.log_prob)
                assert np.array_equal(dataset["row"], stored.row)


def test_samples_are_in_the_tables_own_units(home: Home) -> None:
    run = fit(small("iris", "gaussian"), home=home)
    drawn = sample(run, 4000, seed=1)
    rows = run.read_results()
    assert drawn.columns == rows.columns
    from sklearn.datasets import load_iris

    table = load_iris().data
    assert np.abs(drawn.x.mean(0) - table.mean(0)).max() < 0.3
    assert np.abs(drawn.x.std(0) / table.std(0) - 1).max() < 0.2
    again = sample(run, 4000, seed=1)
    assert np.array_equal(drawn.x, again.x)
    assert not np.array_equal(drawn.x, sample(run, 4000, seed=2).x)


def test_same_seed_same_weights_another_seed_others(home: Home) -> None:
    first, second = (load_model(fit(small("iris", "planar"), home=home)).state_dict() for _ in range(2))
    other = load_model(fit(small("iris", "planar", seed=1), home=home)).state_dict()
    assert all(torch.equal(first[key].nan_to_num(), second[key].nan_to_num()) for key in first)
    assert not torch.equal(first["flow.u"], other["flow.u"])


def test_a_given_name_is_never_overwritten(home: Home) -> None:
    config = small("iris", "gaussian")
    run = fit(config, home=home, name="mine")
    before = (run.path / "results.h5").read_bytes()
    with pytest.raises(RunExistsError, match="exists already"):
        fit(config, home=home, name="mine")
    assert (run.path / "results.h5").read_bytes() == before
    assert fit(config, home=home).path.name == "iris-gaussian"
    assert fit(config, home=home).path.name == "iris-gaussian-2"


def test_an_interrupted_run_can_be_used_and_resumed(home: Home) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 8

    whole = load_model(fit(small("iris", "planar"), home=home)).state_dict()
    run = fit(small("iris", "planar"), home=home, watch=Watch(should_stop=stop))
    assert run.info["status"] == "interrupted"
    assert np.isfinite(score(run, "iris", home=home).log_prob).all()
    assert resume(run, home=home).info["status"] == "finished"
    assert all(
        torch.equal(whole[key].nan_to_num(), tensor.nan_to_num())
        for key, tensor in load_model(run).state_dict().items()
    )
    steps = [record["step"] for record in run.metrics()]
    assert steps == sorted(steps)
    with pytest.raises(RunExistsError, match="finished"):
        resume(run, home=home)


def compared(home: Home, *, stop: bool = False) -> Comparison:
    """Planar flows on iris, compared with nobody; or stopped after the first step."""
    return compare(
        [small("iris", "planar")],
        home.report_path("flowers", []),
        home=home,
        watch=lambda config: Watch(should_stop=lambda: stop),
    )


def test_a_comparison_goes_on_with_a_run_that_was_interrupted_or_killed(home: Home) -> None:
    first = compared(home, stop=True)
    assert first.report is None
    (stopped,) = first.runs
    stopped.update_info(status="running")
    (run,) = compared(home).runs
    assert (run.path, run.info["status"]) == (stopped.path, "finished")


def test_a_comparison_leaves_runs_alone_that_it_cannot_go_on_with(home: Home) -> None:
    (stopped,) = compared(home, stop=True).runs
    with stopped.lock(), pytest.raises(RunLockedError, match="another process is fitting planar"):
        compared(home)
    assert stopped.info["status"] == "interrupted"
    assert [path.name for path in home.runs.iterdir()] == ["iris-planar"]
    (stopped.path / "resume.safetensors").write_bytes(b"something else")
    assert compared(home).runs[0].path.name == "iris-planar-2"


def test_a_comparison_tries_a_run_once(home: Home) -> None:
    """One whose state does not fit fails in the attempt, and is no failed run to be tried again."""
    (stopped,) = compared(home, stop=True).runs
    tensors, metadata = stopped.load_resume()
    stopped.save_resume({name: array for name, array in tensors.items() if "flow/" not in name}, metadata)
    told: list[str] = []
    done = compare(
        [small("iris", "planar")],
        home.report_path("flowers", []),
        home=home,
        watch=lambda config: Watch(on_warning=told.append),
    )
    assert done.runs[0].path.name == "iris-planar-2"
    assert len(told) == 1 and told[0].startswith("fitting anew: the state in")


def test_a_budget_in_steps_and_time_is_validated_on_the_way(home: Home) -> None:
    config = small("iris", "planar", 10**7, **{"plan.seconds": 1.0})
    assert len(fit(config, home=home).metrics()) > 4


def test_a_configuration_that_was_edited_does_not_fit_the_state(home: Home) -> None:
    run = fit(small("iris", "planar"), home=home, watch=Watch(should_stop=lambda: True))
    text = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(text.replace("layers = 32", "layers = 16"))
    with pytest.raises(DamagedFileError, match="does not fit its configuration"):
        resume(run, home=home)


def test_a_changed_table_is_not_resumed_on(home: Home, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = np.random.default_rng(0).normal(size=(50, 2))
    np.savetxt(table, rows, delimiter=",", header="a,b", comments="")
    run = fit(small(str(table), "planar"), home=home, watch=Watch(should_stop=lambda: True))
    np.savetxt(table, rows + 1, delimiter=",", header="a,b", comments="")
    with pytest.raises(DataError, match="has changed since"):
        resume(run, home=home)


def write_table(path: Path, rows: np.ndarray) -> str:
    np.savetxt(path, rows, delimiter=",", header="a,b", comments="", fmt="%.17g")
    return str(path)


def rows_with_zeros(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(size=n), np.where(rng.random(n) < 0.4, 0.0, rng.lognormal(size=n))])


def test_what_is_wrong_with_a_table_is_told_before_training(home: Home, tmp_path: Path) -> None:
    rows = rows_with_zeros()
    table = write_table(tmp_path / "zeros.csv", np.concatenate([rows, rows[:30]]))
    told: list[str] = []
    watch = Watch(
        on_warning=told.append,
        on_preparation=lambda text: told.append("preparation"),
        on_start=lambda run: told.append("start"),
        should_stop=lambda: True,
    )
    run = fit(small(table, "planar", 20, **{"data.atoms": "none"}), home=home, watch=watch)
    told = [each for each in told if each != "preparation" or told.index(each) < 2]
    assert "b = 0 (" in told[0] and told[1].startswith("30 of 330 rows repeat others")
    assert not any("\n" in each for each in told)
    assert told.count("start") == 1 and len(set(told[:2]) - {"preparation"}) == 2
    pitfalls = run.info["pitfalls"]
    assert pitfalls["copied_rows"] == 30
    assert pitfalls["atoms"] == {"b": [[0.0, (np.concatenate([rows, rows[:30]])[:, 1] == 0).mean()]]}
    # It was told, and stands in the run.
    again: list[str] = []
    resume(run, home=home, watch=Watch(on_warning=again.append))
    assert again == []
    text = write_report([run], home.report_path("zeros", [])).markdown.read_text(encoding="utf-8")
    assert "A density has no mass at a point" in text and "rows have b = 0 exactly" in text


def test_a_comparison_tells_what_is_wrong_once_for_each_table(home: Home, tmp_path: Path) -> None:
    tables = [
        write_table(tmp_path / f"{name}.csv", shift + rows_with_zeros())
        for name, shift in (("first", 0.0), ("second", 0.5))
    ]
    told: list[str] = []
    compare(
        [
            small(table, model, 20, **{"data.atoms": "none"})
            for table in tables
            for model in ("gaussian", "kde")
        ],
        home.report_path("zeros", []),
        home=home,
        watch=lambda config: Watch(on_warning=told.append),
    )
    assert [text.partition(". A")[0] for text in told if "same value" in text] == [
        f"Many rows hold exactly the same value: b = {value} (38%)" for value in ("0", "0.5")
    ]


def test_copies_are_in_one_part_and_never_in_two(home: Home, tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "five.csv", np.repeat(np.random.default_rng(0).normal(size=(80, 2)), 5, axis=0)
    )
    dataset, split = load_rows(small(table, "gaussian"), home.datasets)
    parts = [{row.tobytes() for row in dataset.rows[part]} for part in vars(split).values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 80
    assert [len(part) for part in vars(split).values()] == [320, 40, 40]


def test_known_groups_are_united_with_copies(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(90, 2))
    rows[45:] = rows[:45]
    table = write_table(tmp_path / "patients.csv", rows)
    config = small(table, "gaussian")
    found, _ = load_rows(config, home.datasets)
    patients = np.arange(90) // 3
    known = dataclasses.replace(found, groups=patients)
    monkeypatch.setattr(dataset_rows, "load_dataset", lambda *arguments, **options: known)
    dataset, split = load_rows(config, home.datasets)
    for numbers in (patients, np.unique(dataset.rows, axis=0, return_inverse=True)[1].reshape(-1)):
        parts = [set(numbers[part].tolist()) for part in vars(split).values()]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_whole_numbers_are_split_as_ever(home: Home) -> None:
    dataset, split = load_rows(small("iris", "gaussian"), home.datasets)
    assert len(np.unique(dataset.rows, axis=0)) < len(dataset.rows)
    expected = Split.draw(150, (0.8, 0.1, 0.1), 0)
    assert all(np.array_equal(part, getattr(split, name)) for name, part in vars(expected).items())


def test_a_run_with_another_split_is_not_resumed_and_not_compared(home: Home) -> None:
    (run,) = compared(home, stop=True).runs
    sizes = run.info["split"]
    run.update_info(split={**sizes, "train": sizes["train"] - 1, "test": sizes["test"] + 1})
    with pytest.raises(
        DataError, match=r"began with other parts of its table.*train 119.*train 120.*fit anew"
    ):
        resume(run, home=home)
    assert compared(home).runs[0].path != run.path
    (other,) = compared(home).runs
    other.update_info(split={**sizes, "train": 7})
    assert compared(home).runs[0].path not in (run.path, other.path)
    # One from before sizes were recorded goes on.
    run.update_info(split=None)
    assert resume(run, home=home).info["status"] == "finished"


def test_a_failed_fit_keeps_its_folder_and_says_why(home: Home) -> None:
    config = small(
        "iris", "planar", 50, **{"plan.max_rollbacks": 1, "plan.phases": [{"learning_rate": 1e30}]}
    )
    with pytest.raises(RunFailedError, match="failed at step"):
        fit(config, home=home, name="wild")
    run = Run.open(home.runs / "wild")
    assert run.info["status"] == "failed"
    assert "failed at step" in run.info["error"]
    assert np.isfinite(score(run, "iris", home=home).log_prob).all()


def test_an_evaluation_that_failed_is_done_again_otherwise(home: Home) -> None:
    config = small("iris", "cnf", **{"evaluation.integrator.max_nfe": 8})
    with pytest.raises(RunFailedError, match=r"evaluation failed: .*`max_nfe`.*`--resume`"):
        fit(config, home=home, name="short")
    run = Run.open(home.runs / "short")
    assert run.info["status"] == "failed"
    before = load_model(run).state_dict()
    with pytest.raises(ConfigurationError, match="takes the evaluation's options alone"):
        resume(run, settings=["plan.steps=3"], home=home)
    asked = run.config
    with run.lock(), pytest.raises(RunLockedError):
        resume(run, settings=["evaluation.integrator.max_nfe=5000"], home=home)
    assert run.config == asked
    resume(run, settings=["evaluation.integrator.max_nfe=5000"], home=home)
    assert run.info["status"] == "finished" and "error" not in run.info
    assert run.config["evaluation"]["integrator"]["max_nfe"] == 5000
    assert all(
        torch.equal(before[name].nan_to_num(), tensor.nan_to_num())
        for name, tensor in load_model(run).state_dict().items()
    )
    # A comparison that asks for what was asked for at first finds it.
    assert find_runs(config.to_values(), run.dataset["sha256"], home)[0]["finished"] == run


def test_a_fit_is_not_lost_for_a_picture(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise IntegrationError("the step fell below what float32 tells apart")

    for name in ("_grid", "_trajectory"):
        monkeypatch.setattr(fit_results, name, fails)
    told: list[str] = []
    run = fit(small("moons", "planar"), home=home, watch=Watch(on_warning=told.append))
    assert [text.partition(":")[0] for text in told] == [
        "the picture of the density is left out",
        "the picture of the paths is left out",
    ]
    results = run.read_results()
    assert results.grid is None and results.trajectory is None and "grid_mass" not in results.metrics
    other = fit(small("moons", "gaussian"), home=home)
    page = write_report([run, other], home.report_path("pictures", [])).html.read_text(encoding="utf-8")
    assert "planar" in page


def test_a_state_that_could_not_be_validated_is_not_resumed_from(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, it would be what a breakdown returns to, where a run left alone returns to the one before."""
    own, calls = RowCriterion.nll, iter(range(100))

    def breaks(self: RowCriterion, rows: Rows, log_prob: torch.Tensor) -> torch.Tensor:
        return own(self, rows, log_prob) / (next(calls) != 2)

    monkeypatch.setattr(RowCriterion, "nll", breaks)
    told: list[int] = []

    def stop() -> bool:
        return len(told) > 0

    def fails(progress: Progress) -> None:
        if progress.step and not np.isfinite(progress.validation_nll):
            told.append(progress.step)

    run = fit(small("iris", "planar", 40), home=home, watch=Watch(on_progress=fails, should_stop=stop))
    assert run.info["status"] == "interrupted"
    assert told == [20]
    assert TrainingState.unpack(*run.load_resume()).counters.step == 10
    resume(run, home=home)
    assert [record["step"] for record in run.metrics()] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("model", ["cnf", "planar"])
def test_killed_and_resumed_ends_bit_for_bit_alike(model: str, home: Home) -> None:
    """SIGKILL in the middle of a fit in another process, resumed there, against a run left alone."""
    settings = [f"--set={one}" for one in SMALL + TINY.get(model, [])]
    steps = 120
    command = [
        sys.executable, "-m", "flowbench", "fit", "moons", "--model", model, "--rows", "800",
        "--steps", str(steps), "--home", str(home.path), *settings,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--name", "whole"], env=environment, check=True, capture_output=True)
    killed = subprocess.Popen(
        [*command, "--name", "killed"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run_path = home.runs / "killed"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and killed.poll() is None:
        lines = (
            (run_path / "metrics.jsonl").read_text().count("\n")
            if (run_path / "metrics.jsonl").exists()
            else 0
        )
        if lines > 3:
            break
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    run = Run.open(run_path)
    assert run.info["status"] == "running", "the fit ended before it could be killed"
    resume_command = [
        sys.executable,
        "-m",
        "flowbench",
        "fit",
        "--resume",
        "killed",
        "--home",
        str(home.path),
    ]
    subprocess.run(resume_command, env=environment, check=True, capture_output=True)
    assert run.info["status"] == "finished"
    whole = Run.open(home.runs / "whole")
    expected, resumed = whole.load_model()[0], run.load_model()[0]
    assert set(expected) == set(resumed)
    for name, array in expected.items():
        assert array.tobytes() == resumed[name].tobytes(), name
    assert np.array_equal(whole.read_results().scored.log_prob, run.read_results().scored.log_prob)
    timing = {"wall_seconds", "cpu_seconds", "rows_per_second"}
    logs = [
        [{k: v for k, v in line.items() if k not in timing} for line in r.metrics()] for r in (whole, run)
    ]
    assert logs[0] == logs[1]


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS.names())
def test_a_model_learns_on_a_gpu_what_it_learns_on_the_cpu(model: str, home: Home) -> None:
    on_cpu, on_gpu = (
        fit(small("moons", model, 200, device=device).model_copy(update={"evaluation": CERTIFIED}), home=home)
        for device in ("cpu", "cuda")
    )
    results = on_gpu.read_results()
    learnt, expected = (found.metrics["test_nll"].value for found in (results, on_cpu.read_results()))
    # Batches are drawn from other streams.
    assert learnt == pytest.approx(expected, abs=0.2)
    assert all(each.passed for each in results.certificates.values()), results.certificates


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS.names())
def test_a_gpu_scores_and_draws_as_the_cpu_does(
    model: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit(small("moons", model, 50, device="cuda"), home=home)
    kept = run.read_results()
    scored, drawn = score(run, "moons", home=home), sample(run, 30)
    assert scored.log_prob[: len(kept.scored.row)] == pytest.approx(kept.scored.log_prob, abs=1e-9)
    judged = evaluate(run, home=home)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert score(run, "moons", home=home).log_prob == pytest.approx(scored.log_prob, abs=1e-8)
    again = sample(run, 30)
    assert again.x == pytest.approx(drawn.x, abs=1e-7)
    assert again.log_prob == pytest.approx(drawn.log_prob, abs=1e-7)
    for name, metric in evaluate(run, home=home).items():
        assert metric.value == pytest.approx(judged[name].value, abs=0.02), name
