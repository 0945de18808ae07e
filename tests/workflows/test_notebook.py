"""The commands as functions of frames and arrays, with real files, frames and runs."""

import re
import warnings
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flowbench
from flowbench.errors import ConfigurationError, DataError, UnknownNameError
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.discrete.planar import PlanarFlow
from flowbench.options import PartOptions
from flowbench.registry import FIELDS, INTEGRATORS
from flowbench.workflows.config import resolve


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return pd.DataFrame({"a": a, "b": 2 * a + rng.normal(size=n), "count": rng.integers(0, 5, n)})


#: Of a fit whose figures nobody looks at.
QUICK = {
    "evaluation.test_rows": 5,
    "evaluation.samples": 5,
    "evaluation.grid": 4,
    "evaluation.paths": 0,
    "evaluation.certificates": False,
}


def quick(data: Any, model: Any = "gaussian", **arguments: Any) -> flowbench.FittedRun:
    """A fit that is hardly evaluated."""
    return flowbench.fit(data, model, options={**QUICK, **arguments.pop("options", {})}, **arguments)


KINDS = {"pandas": lambda table: table, "polars": pl.from_pandas, "pyarrow": pa.Table.from_pandas}


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_of_each_kind_is_fitted_scored_and_drawn(kind: str, tmp_path: Path) -> None:
    table = KINDS[kind](frame())
    run = flowbench.fit(table, "gaussian", folder=tmp_path, name="fitted")
    assert run.run.path == tmp_path / "runs" / "fitted"
    scored = run.score(table)
    assert scored.log_prob.shape == (400,) and np.isfinite(scored.log_prob).all()
    assert np.isfinite(scored.log_prob_error).all()
    assert np.array_equal(run.log_prob(table), scored.log_prob)
    drawn = run.sample(7)
    assert type(drawn) is type(table)
    assert (drawn.column_names if kind == "pyarrow" else list(drawn.columns)) == [
        "a",
        "b",
        "count",
        "log_prob",
        "log_prob_error",
    ]
    again = flowbench.open_run("fitted", tmp_path)
    assert np.array_equal(again.log_prob(table), scored.log_prob)
    assert isinstance(again.sample(3), pd.DataFrame)


def test_frames_and_files_of_the_same_rows_get_the_same_likelihoods(tmp_path: Path) -> None:
    table = frame()
    table.to_parquet(tmp_path / "same.parquet")
    by_frame = quick(table, "gaussian", folder=tmp_path)
    by_file = quick(tmp_path / "same.parquet", "gaussian", folder=tmp_path)
    by_lazy = quick(pl.from_pandas(table).lazy(), "gaussian", folder=tmp_path)
    assert np.array_equal(by_frame.log_prob(table), by_file.log_prob(tmp_path / "same.parquet"))
    assert by_frame.metrics["test_nll"] == by_file.metrics["test_nll"]
    assert by_lazy.metrics["test_nll"] == by_file.metrics["test_nll"]
    # The same frame is written once.
    before = sorted((tmp_path / "datasets").iterdir())
    quick(table, "gaussian", folder=tmp_path)
    assert sorted((tmp_path / "datasets").iterdir()) == before


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    drawn = quick(frame(), "gaussian", folder=tmp_path).sample(50)
    assert drawn["count"].dtype == "int64"


def test_arrays_get_names(tmp_path: Path) -> None:
    x = frame()[["a", "b"]].to_numpy()
    run = quick(x, "gaussian", folder=tmp_path)
    assert run.model.columns == ("x0", "x1")
    assert np.isfinite(run.log_prob(x)).all()


def test_masked_values_are_missing(tmp_path: Path) -> None:
    x = np.ma.masked_greater(frame()[["a", "b"]].to_numpy(), 2.0)
    with pytest.raises(DataError, match="missing"):
        quick(x, "gaussian", folder=tmp_path)
    run = quick(x.data, "gaussian", folder=tmp_path)
    assert np.array_equal(np.isnan(run.log_prob(x)), np.ma.getmaskarray(x).any(1))


def test_an_index_is_left_out(tmp_path: Path) -> None:
    table = frame()
    kept = quick(table, "gaussian", folder=tmp_path)
    odd = table.set_axis(["one", 2, *range(398)], axis=0)
    for other in (
        table.set_axis(range(7, 407), axis=0),
        odd,
        pl.from_pandas(table),
        pa.Table.from_pandas(table),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = quick(other, "gaussian", folder=tmp_path)
        assert run.run.dataset["sha256"] == kept.run.dataset["sha256"]
        assert run.run.dataset["name"] == kept.run.dataset["name"]


def test_a_batch_of_records_keeps_its_names(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pandas(frame())
    assert quick(batch, "gaussian", folder=tmp_path).model.columns == ("a", "b", "count")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame(np.zeros((3, 2)), columns=["a", "a"]), "have one name"),
        (pa.table([[1.0], [2.0]], names=["a", "a"]), "have one name"),
        (pd.DataFrame({"0": [1.0], 0: [2.0]}), "two columns of the frame are called `0`"),
        (pd.DataFrame({"a": ["x", 1.0], "b": [1.0, 2.0]}), "the column `a` of the frame cannot be read"),
        (pd.DataFrame({"a": [1j, 2j]}), "the column `a` of the frame cannot be read"),
    ],
    ids=str,
)
def test_frames_without_a_meaning_name_the_column(table: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        flowbench.fit(table, "gaussian", folder=tmp_path)
    assert not (tmp_path / "datasets").exists()


def test_conditional_models_take_values_or_frames_of_givens(tmp_path: Path) -> None:
    table = frame()[["a", "b"]]
    run = quick(table, "gaussian", given="a", folder=tmp_path)
    drawn = run.sample(200, given={"a": 1.5})
    assert list(drawn.columns) == ["b", "a", "log_prob", "log_prob_error"]
    assert drawn["b"].mean() == pytest.approx(3, abs=0.3) and (drawn["a"] == 1.5).all()
    many = run.sample(3, given=pd.DataFrame({"a": [0.0, 1.0]}))
    assert many["a"].tolist() == [0.0] * 3 + [1.0] * 3
    assert run.log_prob(table).shape == (400,)
    assert "b given a" in repr(run)
    with pytest.raises(ConfigurationError, match="models b given a"):
        run.sample(3)
    for value in ([0.0, 1.0], "x", None, float("nan")):
        with pytest.raises(ConfigurationError, match="the value of `a` must be a finite number"):
            run.sample(3, given={"a": value})
    for n in (0, -1):
        with pytest.raises(ConfigurationError, match="at least one row is drawn"):
            run.sample(n, given={"a": 1.0})


def flow_of(model: str | PartOptions, tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    """The configuration of the flow of a fit of one step."""
    run = quick(frame()[["a", "b"]], model, steps=1, folder=tmp_path, **arguments)
    flow: dict[str, Any] = run.run.config["flow"]
    return flow


def test_options_of_a_model_take_the_place_of_its_name(tmp_path: Path) -> None:
    planar = PlanarFlow.Options(layers=3)  # type: ignore[call-arg]
    assert flow_of(planar, tmp_path) == flow_of("planar", tmp_path) | {"layers": 3}
    assert flow_of(planar, tmp_path, options={"flow.layers": 5})["layers"] == 5


@pytest.mark.parametrize(
    ("field", "engine"), list(zip(FIELDS.names(), cycle(INTEGRATORS.names()), strict=False))
)
def test_parts_among_the_options_are_taken_whole(field: str, engine: str, tmp_path: Path) -> None:
    parts = {"field": FIELDS.get(field).Options(), "integrator": INTEGRATORS.get(engine).Options(rtol=1e-3)}
    flow = flow_of(ContinuousFlow.Options(**parts), tmp_path)
    assert {name: flow[name] for name in parts} == {
        name: part.model_dump(mode="json", exclude_none=True) for name, part in parts.items()
    }
    # What is not set is the default of the model's name.
    assert flow["divergence"] == flow_of("cnf", tmp_path)["divergence"]


def test_arguments_go_before_options(tmp_path: Path) -> None:
    asked = {"seed": 7, "threads": 2}
    config = quick(frame(), seed=3, options=asked, folder=tmp_path).run.config
    assert config["seed"] == 3 and config["threads"] == 2
    assert quick(frame(), "gaussian", options={"seed": 7}, folder=tmp_path).run.config["seed"] == 7


def test_a_configuration_holds_everything(tmp_path: Path) -> None:
    config = resolve("iris", "gaussian", overrides={"seed": 3})
    assert flowbench.fit(config, folder=tmp_path).run.config["seed"] == 3
    for beside in ({"model": "planar"}, {"steps": 3}, {"given": "a"}, {"preset": "ffjord"}, {"seed": 4}):
        with pytest.raises(ConfigurationError, match="a configuration holds everything"):
            flowbench.fit(config, folder=tmp_path, **beside)


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    table = frame().assign(twice=lambda t: 2 * t["a"])
    with pytest.warns(UserWarning, match="determine"):
        quick(table, "gaussian", folder=tmp_path)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    flowbench.fit(frame(), "planar", steps=20, folder=tmp_path, tell=told.append, options=QUICK)
    assert any(re.match(r"step \d+: validation NLL [\d.-]+ nats, best [\d.-]+", text) for text in told)
    assert any(text.startswith("run folder: ") for text in told)


def test_a_run_shows_itself_in_text_and_html(tmp_path: Path) -> None:
    table = frame().rename(columns={"a": "a<b>"})
    run = flowbench.fit(table, "gaussian", folder=tmp_path)
    text, page = repr(run), run._repr_html_()
    assert text.startswith("FittedRun\n") and "gaussian" in text and "± " in text and "a<b>, b, count" in text
    assert page.startswith("<table>") and "a&lt;b&gt;" in page and "a<b>" not in page


def test_a_comparison_of_a_frame(tmp_path: Path) -> None:
    assert flowbench.compare(frame(), "gaussian", folder=tmp_path, name="one").report is not None
    compared = flowbench.compare(frame(), ["gaussian", "mixture"], folder=tmp_path, name="two", time_budget=5)
    assert [run.info["model"] for run in compared.runs] == ["gaussian", "mixture"]
    assert compared.report is not None and compared.report.html == tmp_path / "reports" / "two" / "index.html"


@pytest.mark.parametrize("data", [3, [1, 2], np.zeros(3), np.array([["a", "b"]]), {"a": 1}, None], ids=str)
def test_other_data_are_refused(data: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="data are the name or the path of a table"):
        flowbench.fit(data, "gaussian", folder=tmp_path)
    assert not (tmp_path / "datasets").exists()


def test_frames_that_are_no_tables_of_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text"):
        flowbench.fit(frame().assign(text="x" * 3), "gaussian", folder=tmp_path)
    with pytest.raises(ConfigurationError, match="unknown model"):
        flowbench.compare(frame(), ["gaussian", "gausian"], folder=tmp_path)
    with pytest.raises(UnknownNameError):
        flowbench.open_run("none", tmp_path)
    assert not (tmp_path / "runs").exists() and not list((tmp_path / "datasets").iterdir())
