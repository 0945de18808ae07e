"""What a schema file says becomes options of a fit, which then has what the file says."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import flowbench
from flowbench.data import check_table
from flowbench.data.schema import LEVELLED, Support
from flowbench.encoding.atoms import parse_atoms
from flowbench.encoding.dequantiser import parse_spacings
from flowbench.encoding.support_map import parse_supports
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.models.probability_mass import STRENGTHS
from flowbench.store import Run
from flowbench.workflows.checking import check_with_file
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.dataset_rows import load_rows
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.schema_options import apply_schema
from flowbench.workflows.scoring import score
from flowbench.workflows.stored_run import StoredRun

SMALL = ["evaluation.test_rows=40", "evaluation.samples=50", "evaluation.grid=8", "evaluation.paths=2",
         "evaluation.certificates=false"]  # fmt: skip
PENGUINS = Path(__file__).resolve().parents[2] / "datasets" / "penguins.csv"
N = 400


def table() -> pd.DataFrame:
    """Text, few numbers, zeros, dates, times of day, counts, shares, rounded and other numbers, an index."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + rng.integers(0, 200, N)
    seconds = rng.integers(0, 86400, N)
    return pd.DataFrame(
        {
            "id": range(1, N + 1),
            "colour": rng.choice(["red", "green", "blue"], N),
            "grade": rng.choice([1, 2, 5], N),
            "rain": np.where(rng.random(N) < 0.4, 0.0, rng.lognormal(size=N).round(5)),
            "day": days.astype(str),
            "clock": [f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in seconds],
            "visits": rng.poisson(4, N),
            "share": rng.beta(0.7, 0.7, N).round(6),
            "height": rng.normal(170, 9, N).round(0),
            "x": rng.normal(size=N),
        }
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    table().to_csv("t.csv", index=False)
    return Home(tmp_path)


def configured(home: Home, toml: str, **options: object) -> tuple[RunConfig, str]:
    """A configuration of the table with a schema file, and the lines that tell of it."""
    Path("s.toml").write_text(toml)
    overrides = {f"data.{name}": value for name, value in options.items()}
    config = resolve("t.csv", "gaussian", overrides=overrides, settings=SMALL)
    lines: list[str] = []
    (found,) = apply_schema([config], Path("s.toml"), home.datasets, lines.append)
    return found, "\n".join(lines)


def fitted(home: Home, toml: str, **options: object) -> Run:
    return fit(configured(home, toml, **options)[0], home=home)


def read(home: Home, config: RunConfig) -> Any:
    return load_rows(config, home.datasets)[0]


def test_each_key_becomes_an_option_of_its_column(home: Home) -> None:
    config, said = configured(
        home,
        """
        [columns.id]
        kind = "identifier"
        [columns.grade]
        kind = "continuous"
        spacing = 0.5
        atoms = []
        [columns.visits]
        kind = "ordinal"
        levels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
        [columns.rain]
        support = "positive"
        atoms = [0]
        [columns.height]
        spacing = "none"
        [columns.x]
        support = "real"
        [columns.share]
        support = [-1, 2]
        """,
    )
    data = config.data
    assert (data.leave_out, data.categories) == (("id",), ("visits",))
    assert data.numeric == ("grade", "rain", "share", "height", "x")
    (levels,) = data.levels or ()
    assert (levels.column, levels.values) == ("visits", tuple(map(float, range(16))))
    assert parse_supports(data.support) == {
        "rain": Support(0.0), "x": Support(), "share": Support(-1.0, 2.0),
    }  # fmt: skip
    assert parse_atoms(data.atoms) == {"rain": [0.0], "grade": []}
    assert parse_spacings(data.dequantise) == {"grade": 0.5, "height": None}
    assert (
        "t: s.toml settles: categories visits; numbers grade, rain, share, height, x; left out id; levels of "
        "visits; support of rain, share, x; atoms of grade, rain; spacing of grade, height" in said
    )
    assert "s.toml: the order of the levels of visits is not used" in said
    # What a run keeps of it makes the same configuration, without the file.
    assert RunConfig(**config.to_values()) == config


def test_a_run_has_what_the_file_says_and_infers_the_rest(home: Home) -> None:
    run = fitted(
        home,
        """
        [columns.colour]
        levels = ["red", "green", "blue", "violet"]
        [columns.grade]
        kind = "categorical"
        levels = [5, 3, 2, 1]
        [columns.visits]
        kind = "categorical"
        [columns.rain]
        atoms = []
        support = "real"
        [columns.share]
        support = [-1, 2]
        [columns.height]
        spacing = 0.5
        [columns.clock]
        kind = "identifier"
        """,
    )
    stored = StoredRun(run)
    assert stored.categorical == ("colour", "grade", "visits")
    assert stored.types["colour"].levels == ("red", "green", "blue", "violet")
    assert stored.levels["grade"] == [1.0, 2.0, 3.0, 5.0]
    assert "clock" not in stored.order and "id" not in stored.order
    assert stored.atoms == {}
    supports = stored.model.encoder.support.supports
    assert supports["share"] == Support(-1.0, 2.0) and "rain" not in supports
    # Days repeat, which nothing is said of.
    assert {name: each["step"] for name, each in run.dataset["lattices"].items()} == {
        "height": 0.5, "day": 1.0,
    }  # fmt: skip
    notes = " ".join(run.dataset["notes"])
    assert "column `clock` is left out, as the schema says" in notes


def test_a_level_without_rows_has_its_smoothed_share_and_can_be_scored(home: Home) -> None:
    toml = """
        [columns.colour]
        levels = ["blue", "green", "red", "violet"]
        [columns.grade]
        levels = [1, 2, 3, 5]
        """
    plain, told = fitted(home, ""), fitted(home, toml)
    row = table().iloc[:1].drop(columns="id")
    pd.concat([row.assign(colour="violet", grade=3), row]).to_csv("new.csv", index=False)
    first, second = (score(run, "new.csv", home=home) for run in (plain, told))
    assert first.counts() and not second.counts()
    assert second.log_mass is not None and first.log_mass is not None
    assert -np.inf < second.log_mass[0] < second.log_mass[1] - 2
    mass = StoredRun(told).model.mass
    assert mass is not None
    assert mass.log_prob(mass.enumerate()).exp().sum().item() == pytest.approx(1, abs=1e-12)
    # The uniform share of one of five, which s rows are worth, beside those of the train rows.
    violet = mass.log_prob(torch.tensor([[3.0, torch.nan, torch.nan]], dtype=torch.float64)).exp().item()
    rows = len(told.read_results().split.train)
    assert np.abs(STRENGTHS / 5 / (rows + STRENGTHS) / violet - 1).min() < 1e-9
    drawn = sample(told, 50, home=home)
    assert np.isfinite(drawn.log_prob).all()


def test_a_run_goes_on_and_is_repeated_without_the_file(home: Home) -> None:
    toml = '[columns.grade]\nlevels = [1, 2, 3, 5]\n[columns.height]\nspacing = "none"'
    Path("s.toml").write_text(toml)
    config = resolve("t.csv", "planar", overrides={"plan.steps": 6}, settings=SMALL)
    (config,) = apply_schema([config], Path("s.toml"), home.datasets, print)
    run = fit(config, home=home, watch=Watch(should_stop=lambda: True))
    assert run.status == "interrupted"
    Path("s.toml").unlink()
    resume(run, home=home)
    again = resolve(file=run.path / "config.toml")
    assert again == config
    assert StoredRun(run).levels["grade"] == [1.0, 2.0, 3.0, 5.0]


CONTRADICTIONS = [
    ('kind = "count"', "grade", {"categories": ("grade",)}, '`kind = "count"` contradicts `--categories`'),
    ('kind = "categorical"', "grade", {"keep": ("grade",)}, "contradicts `--keep`"),
    ('kind = "identifier"', "x", {"columns": ("x", "rain")}, "contradicts `--columns`"),
    ('kind = "constant"', "colour", {"given": ("colour",)}, "row 2 holds"),
    ('kind = "identifier"', "colour", {"given": ("colour",)}, "contradicts `--given`"),
    ("support = [-9, 9]", "x", {"support": "x=-8:8"}, "`support` contradicts `--support x=-8:8`"),
    ("support = [-9, 9]", "x", {"support": "none"}, "`support` contradicts `--support none`"),
    ("atoms = [0]", "rain", {"atoms": "none"}, "`atoms` contradicts `--atoms none`"),
    ("atoms = []", "rain", {"atoms": "rain=0"}, "`atoms` contradicts `--atoms rain=0`"),
    ("spacing = 0.5", "height", {"dequantise": "height=1"}, "contradicts `--dequantise height=1`"),
    ('spacing = "none"', "height", {"dequantise": "auto,height=1"}, "contradicts `--dequantise auto,"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "column", "options", "message"), CONTRADICTIONS)
def test_a_file_and_an_option_must_not_contradict_each_other(
    home: Home, line: str, column: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises((ConfigurationError, DataError)) as caught:
        configured(home, f"[columns.{column}]\n{line}\n", **options)
    assert str(caught.value).startswith(f"s.toml: column `{column}`: ")
    assert message in str(caught.value)


def test_options_that_agree_or_are_of_other_columns_stand_beside_a_file(home: Home) -> None:
    toml = """
        [columns.rain]
        atoms = [0]
        support = "positive"
        [columns.grade]
        kind = "categorical"
        [columns.height]
        spacing = "none"
        """
    options = {
        "categories": ("grade",), "atoms": "rain=0", "support": "auto,share=0:1", "dequantise": "none",
    }  # fmt: skip
    data = configured(home, toml, **options)[0].data
    assert (data.atoms, data.dequantise, data.categories) == ("rain=0", "none", ("grade",))
    assert data.support == "auto,share=0:1,rain=(0.0:)"


def test_what_a_fit_cannot_do_is_said(home: Home) -> None:
    toml = """
        [columns.grade]
        kind = "categorical"
        [columns.rain]
        atoms = [0]
        [columns.share]
        support = [0, 1]
        [columns.clock]
        support = [0, 86400]
        [columns.height]
        levels = [1, 2]
        [columns.visits]
        kind = "count"
        """
    config, said = configured(home, toml, given=("share",), group="visits")
    assert "column `visits` is no data, as `--group` names it" in said
    assert "column `grade` is learnt as a number" in said
    assert (
        "column `rain`: a fit makes no use of `atoms`, since atoms are not learnt given other columns" in said
    )
    assert "column `share`: a fit makes no use of `support`, since the column is given" in said
    assert "column `clock`: a fit makes no use of `support`, since the column is periodic" in said
    assert "column `height`: a fit makes no use of `levels`, since the column is count" in said
    assert (config.data.support, config.data.atoms) == ("auto", "auto")
    assert config.data.numeric == ("grade", "rain", "clock", "share")


MISTAKES: list[tuple[str, type[Exception], str]] = [
    ("[columns.mass]", UnknownColumnError, "s.toml: unknown column `mass`"),
    ("[columns.x]\nkind = 'sort'", ConfigurationError, "s.toml: column `x`: `kind`: unknown kind `sort`"),
    ("[columns.colour]\nlevels = ['red', 'blue']", DataError, "`levels`: row"),
    ("[columns.share]\nsupport = [0, 0.5]", DataError, "s.toml: column `share`: `support = [0.0, 0.5]`: row"),
    ("[columns.x]\nspacing = 1", DataError, "s.toml: column `x`: `spacing`: row 1 holds"),
    ("[columns.colour]\nkind = 'count'", DataError, "row 1 holds `blue`, which is not read as a number"),
]


@pytest.mark.parametrize(("toml", "error", "message"), MISTAKES, ids=[each[0] for each in MISTAKES])
def test_what_the_table_contradicts_is_refused(
    home: Home, toml: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        configured(home, toml)
    assert message in str(caught.value)


def test_other_data_with_another_level_is_refused_with_its_row(home: Home) -> None:
    toml = '[columns.colour]\nlevels = ["blue", "green", "red"]\n[columns.grade]\nlevels = [1, 2, 5]'
    config, _ = configured(home, toml)
    for column, value in (("colour", "violet"), ("grade", "3")):
        other = table().astype({"grade": str})
        other.loc[6, column] = value
        other.to_csv("t.csv", index=False)
        with pytest.raises(DataError, match=f"column `{column}`, row 7: `{value}` is none of the `levels`"):
            read(home, config)


def test_a_file_that_is_not_there_and_data_that_are_no_file_are_refused(home: Home) -> None:
    config = resolve("t.csv", "gaussian")
    with pytest.raises(ConfigurationError, match=r"there is no schema file no\.toml; `flowbench"):
        apply_schema([config], Path("no.toml"), home.datasets, print)
    assert not Path("no.toml").exists()
    Path("s.toml").write_text("")
    for name in ("moons", "iris"):
        with pytest.raises(ConfigurationError, match=f"`{name}` is none"):
            apply_schema([resolve(name, "gaussian")], Path("s.toml"), home.datasets, print)


@pytest.mark.parametrize(("name", "options"), [(str(PENGUINS), {"missing": "drop"}), ("t.csv", {})])
def test_a_file_that_is_not_edited_gives_the_fit_that_there_is_without(
    home: Home, name: str, options: dict[str, object]
) -> None:
    check_with_file(name, folder=home.datasets, file=Path("s.toml"))
    overrides = {f"data.{option}": value for option, value in options.items()}
    config = resolve(name, "gaussian", overrides=overrides, settings=SMALL)
    (told,) = apply_schema([config], Path("s.toml"), home.datasets, print)
    assert told != config
    plain, with_file = fit(config, home=home), fit(told, home=home)
    for key in ("columns", "categorical", "order", "levels", "atoms", "lattices", "support", "types"):
        assert with_file.dataset.get(key) == plain.dataset.get(key), key
    schema = check_table(name, folder=home.datasets)
    assert set(StoredRun(with_file).categorical) - set(StoredRun(with_file).states) == {
        each.name for each in schema.columns if each.kind in LEVELLED and each.kind != "constant"
    }


def test_columns_that_a_fit_leaves_out_stay_out_unless_the_file_was_edited(home: Home) -> None:
    scores = table().assign(log_prob=np.arange(N) / 7, log_prob_error=0.5)
    scores.loc[0, "log_prob_error"] = 0.25
    scores.to_csv("t.csv", index=False)
    toml = '[columns.log_prob]\nkind = "continuous"\n[columns.id]\nkind = "identifier"'
    kept, said = configured(home, toml)
    assert "column `log_prob` is no data to a fit: flowbench wrote it" in said
    assert set(table()) - {"id"} == set(read(home, kept).column_names)
    edited, _ = configured(home, '[columns.id]\nkind = "continuous"')
    assert "id" in read(home, edited).column_names


def test_marks_of_missing_cells_are_refused_as_without_a_file(home: Home) -> None:
    frame = table()
    frame.loc[5, "height"] = -999
    frame.to_csv("t.csv", index=False)
    config, _ = configured(home, '[columns.height]\nkind = "continuous"')
    with pytest.raises(DataError, match="row 6: -999 stands apart"):
        read(home, config)


def test_names_may_hold_commas_and_equals_signs(home: Home) -> None:
    frame = table()[["colour", "rain", "x"]].rename(columns={"rain": "rain, mm", "x": "x=y"})
    frame.to_csv("t.csv", index=False)
    toml = '[columns."rain, mm"]\natoms = [0]\nsupport = "positive"\n[columns."x=y"]\nsupport = [-9, 9]'
    run = fitted(home, toml)
    assert StoredRun(run).atoms == {"rain, mm": [0.0]}
    assert StoredRun(run).model.encoder.support.supports == {
        "rain, mm": Support(0.0), "x=y": Support(-9.0, 9.0),
    }  # fmt: skip


def test_functions_take_a_schema_file(home: Home) -> None:
    Path("s.toml").write_text('[columns.visits]\nkind = "categorical"\n')
    heard: list[str] = []
    options = {name: int(value) for name, value in (each.split("=") for each in SMALL[:-1])}
    told: dict[str, Any] = {"options": {**options, "evaluation.certificates": False}, "schema": "s.toml"}
    frame = table().drop(columns=["id", "day", "clock"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_ = flowbench.fit(frame, "gaussian", folder=home.path, tell=heard.append, **told)
        compared = flowbench.compare(frame, "gaussian", folder=home.path, **told)
    assert StoredRun(fit_.run).categorical[-1] == "atom of rain"
    assert "visits" in StoredRun(fit_.run).categorical
    assert any("s.toml settles: categories visits" in line for line in heard)
    assert [run.path for run in compared.runs] == [fit_.run.path]
    with pytest.raises(ConfigurationError, match="a configuration holds everything"):
        flowbench.fit(resolve("t.csv", "gaussian"), schema="s.toml", folder=home.path)
