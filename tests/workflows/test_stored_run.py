"""What the workflows read of a run, how often, and what they say of files that do not belong together."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowbench.store.run as store_run
from flowbench.errors import ConfigurationError, DamagedFileError, FlowbenchError
from flowbench.store import Run
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate, tradeoff
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun, load_model

SMALL = [
    "evaluation.test_rows=40",
    "evaluation.samples=40",
    "evaluation.paths=0",
    "evaluation.certificates=false",
    "evaluation.integrator.rtol=1e-4",
    "evaluation.integrator.atol=1e-4",
    "plan.validation_steps=5",
]
TINY = {"cnf": ["flow.field.width=8", "flow.field.scales=1"], "planar": ["flow.layers=4"]}


def config(table: Path, model: str) -> RunConfig:
    return resolve(str(table), model, overrides={"plan.steps": 15}, settings=[*SMALL, *TINY[model]])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a table of whole numbers, tenths and decimals, a run of two models, and one interrupted."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    age = random.normal(40, 6, 300).round()
    rows = np.stack([age, (1.7 + 0.1 * random.normal(size=300)).round(1), age + random.normal(size=300)], 1)
    np.savetxt(home / "table.csv", rows, delimiter=",", header="age,height,x", comments="", fmt="%.12g")
    for model in TINY:
        fit(config(home / "table.csv", model), home=Home(home), name=model)
    fit(
        config(home / "table.csv", "planar"),
        home=Home(home),
        name="stopped",
        watch=Watch(should_stop=after(6)),
    )
    return home


def after(questions: int) -> Callable[[], bool]:
    asked = iter(range(questions))
    return lambda: next(asked, None) is None


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Home:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return Home(tmp_path)


@pytest.fixture
def table(finished: Path) -> str:
    return str(finished / "table.csv")


def rows_of(table: str) -> torch.Tensor:
    return torch.tensor(np.loadtxt(table, delimiter=",", skiprows=1))


@pytest.mark.parametrize("model", TINY)
def test_a_model_gives_rows_the_likelihoods_that_score_gives_them(model: str, home: Home, table: str) -> None:
    run = home.run(model)
    scored = score(run, table, home=home)
    assert scored.dequantised == ("age", "height")
    own = load_model(run).for_evaluation(StoredRun(run).config.evaluation.integrator)
    x = rows_of(table)
    for found in (own.log_prob(x), own.as_distribution(torch.Generator()).log_prob(x)):
        # The other places than the first are solved loosely by `score`, and its errors cover that.
        assert (np.abs(found.detach().numpy() - scored.log_prob) <= scored.log_prob_error).mean() >= 0.99
    drawn = own.as_distribution(torch.Generator().manual_seed(0)).sample((50,))
    assert torch.equal(drawn[:, 0], drawn[:, 0].round())
    assert torch.equal(drawn[:, 1], (10 * drawn[:, 1]).round() / 10)
    # The density at the row itself is another quantity.
    off = np.abs(own.score_places(x).log_prob.detach().numpy() - scored.log_prob)
    assert np.median(off) > 10 * np.median(np.abs(own.log_prob(x).detach().numpy() - scored.log_prob))


def counting(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Path]:
    """The paths that the store's function `name` is called with from now on."""
    calls: list[Path] = []
    whole = getattr(store_run, name)

    def spy(path: Path, *arguments: Any) -> Any:
        calls.append(path)
        return whole(path, *arguments)

    monkeypatch.setattr(store_run, name, spy)
    return calls


@pytest.mark.parametrize("use", ["score", "sample"])
def test_configuration_and_weights_are_read_once(
    use: str, home: Home, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = home.run("planar")
    configurations, weights = (counting(monkeypatch, name) for name in ("read_toml", "read_tensors"))
    if use == "score":
        score(run, table, home=home)
    else:
        sample(run, 5)
    assert [path.name for path in configurations] == ["config.toml"]
    assert [path.name for path in weights] == ["model.safetensors"]


def test_the_number_of_threads_is_left_as_it_was(home: Home, table: str) -> None:
    run = home.run("cnf")
    calls: dict[str, Callable[[], object]] = {
        "fit": lambda: fit(config(Path(table), "planar"), home=home),
        "resume": lambda: resume(home.run("stopped"), home=home),
        "score": lambda: score(run, table, home=home),
        "sample": lambda: sample(run, 3),
        "evaluate": lambda: evaluate(home.run("planar"), home=home),
        "tradeoff": lambda: tradeoff(run, rows=3, on_solver=lambda done, total: seen.append(threads())),
    }
    threads = torch.get_num_threads
    seen: list[int] = []
    before = threads()
    torch.set_num_threads(3)
    try:
        for name, call in calls.items():
            call()
            assert threads() == 3, name
        assert set(seen) == {1}
        with pytest.raises(FlowbenchError):
            fit(config(Path("nothing.csv"), "planar"), home=home)
        assert threads() == 3
    finally:
        torch.set_num_threads(before)


def as_before(run: Run) -> None:
    """Write a run's files as they were when run.json alone told how its rows were dequantised."""
    for load, save in ((run.load_model, run.save_model), (run.load_resume, run.save_resume)):
        tensors, metadata = load()
        kept = {
            name.removeprefix("encoder."): tensor
            for name, tensor in tensors.items()
            if not {"dequantiser", "support", "circle"} & set(name.split("."))
            and not name.startswith("encoder/")
        }
        metadata.pop("encoder_seconds", None)
        save(kept, metadata)


def test_a_run_from_before_the_encoder_was_saved_is_used_and_resumed(home: Home, table: str) -> None:
    run, stopped = home.run("planar"), home.run("stopped")
    scored, drawn = score(run, table, home=home), sample(run, 20)
    old, older = (Run(shutil.copytree(stopped.path, home.runs / name)) for name in ("old", "older"))
    for each in (run, old, older):
        as_before(each)
        assert any(name.startswith("transforms.0.") for name in each.load_model()[0])
    assert np.array_equal(score(run, table, home=home).log_prob, scored.log_prob)
    assert np.array_equal(sample(run, 20).x, drawn.x)
    ended = [resume(each, home=home).read_results() for each in (stopped, old)]
    assert np.array_equal(ended[0].scored.log_prob, ended[1].scored.log_prob)
    # One from before there were lattices at all has rows that are points.
    dataset = {key: value for key, value in run.dataset.items() if key != "lattices"}
    for each in (run, older):
        each.update_info(dataset=dataset)
    assert score(run, table, home=home).dequantised == ()
    points = resume(older, home=home).read_results().samples.x
    assert not np.allclose(points[:, 0], points[:, 0].round(), atol=1e-9)
    for lattices in (5, {"age": {"step": "wide"}}, {"age": {"step": -1.0, "origin": 0.0}}):
        run.update_info(dataset={**dataset, "lattices": lattices})
        with pytest.raises(DamagedFileError, match="`lattices` of the data set are not as flowbench writes"):
            score(run, table, home=home)


def test_the_weights_and_not_the_description_tell_the_cells(home: Home, table: str) -> None:
    run, stopped = home.run("planar"), home.run("stopped")
    before = score(run, table, home=home)
    for each in (run, stopped):
        each.update_info(dataset={**each.dataset, "lattices": {"x": {"step": 50.0, "origin": 0.0}}})
    after = score(run, table, home=home)
    assert np.array_equal(after.log_prob, before.log_prob) and after.dequantised == ("age", "height")
    resume(stopped, home=home)
    assert list(load_model(stopped).encoder.dequantiser.lattices) == ["age", "height"]


def edit(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    tensors, metadata = run.load_model()
    change(tensors)
    run.save_model(tensors, metadata)


def test_what_does_not_fit_is_told_by_what_it_is(home: Home) -> None:
    run = home.run("planar")
    where = rf"the model in {run.path} does not fit its configuration: "
    remedy = (
        "one of them was changed, or the run is of another version of flowbench and has to be fitted again"
    )
    names = [name for name in run.load_model()[0] if name.startswith("flow.")]

    def refused(*says: str) -> DamagedFileError:
        with pytest.raises(DamagedFileError) as told:
            load_model(run)
        text = str(told.value)
        assert all(each in text for each in (*says, remedy)) and "\n" not in text
        return told.value

    kept = run.load_model()
    edit(run, lambda tensors: tensors.pop(names[0]))
    refused(where, f"it lacks the tensor `{names[0]}`;")
    edit(run, lambda tensors: tensors.update({names[0]: kept[0][names[0]], "a": np.ones(2), "b": np.ones(2)}))
    refused(where, "it has no place for the tensor `a` and 1 more;")
    run.save_model(kept[0] | {names[0]: np.ones((2, 7))}, kept[1])
    assert isinstance(refused(where, f"size mismatch for {names[0]}").__cause__, RuntimeError)
    run.save_model(*kept)
    run.write_config({**run.config, "flow": {"name": "sylvester", "columns": 3, "ortho": 1}})
    with pytest.raises(
        DamagedFileError, match=r"the configuration in .* was changed, or is of another"
    ) as told:
        load_model(run)
    assert isinstance(told.value.__cause__, ConfigurationError)


def test_a_model_of_other_columns_than_the_run_names_is_refused(home: Home, table: str) -> None:
    run = home.run("planar")
    run.update_info(dataset={**run.dataset, "columns": ["height", "age", "x"]})
    with pytest.raises(
        DamagedFileError, match=r"of the columns age,height,x, where run\.json names height, age"
    ):
        score(run, table, home=home)
    run.update_info(dataset={"name": "table"})
    with pytest.raises(DamagedFileError, match="does not name the columns that the run was fitted on"):
        score(run, table, home=home)
