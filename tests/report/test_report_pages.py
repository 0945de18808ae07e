import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from flowbench.errors import ConfigurationError, DamagedFileError, DataError
from flowbench.registry import MODELS
from flowbench.report import ReportPaths, write_report
from flowbench.report.grouping import group_runs
from flowbench.report.numbers import fixed, shared_decimals
from flowbench.report.records import read_runs
from flowbench.report.tables import likelihood_table
from flowbench.store import Results, Run

RunMaker = Callable[..., Run]

NASTY = "<script>alert('x')</script>"
NASTY_COLUMN = '"$\\frac{1}$ & <img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """The rows of all tables, the text outside figures, every tag and every attribute of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        #: What is said of each outer picture to those who cannot see it.
        self.alts: list[str | None] = []
        self._cell = False
        self._svg = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "svg" and not self._svg:
            self.alts.append(dict(attrs).get("aria-label"))
        self._svg += tag == "svg"
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._svg -= tag == "svg"
        self._cell = self._cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data
        if not self._svg:
            self.text += data


def markdown_rows(path: Path) -> list[list[str]]:
    """The rows of all tables, without the lines that only align columns."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not set(line) <= set("| -:"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            rows.append([re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells])
    return rows


@pytest.fixture(scope="module")
def compared(run_writer: RunMaker, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], ReportPaths]:
    """A toy with three models, two seeds each, beside a small table of unknown density."""
    folder = tmp_path_factory.mktemp("compared")
    runs = [
        run_writer(folder, model, seed=seed) for model in ("cnf", "planar", "gaussian") for seed in (0, 1)
    ]
    table = {"dataset": "faithful", "sha256": "ab" * 32, "truth": False, "test_rows": 28}
    names = ("eruptions", "waiting")
    runs += [run_writer(folder, model, columns=names, **table) for model in ("cnf", "gaussian")]
    return runs, write_report(runs, folder / "new" / "report")


def test_page_markdown_and_json_agree(compared: tuple[list[Run], ReportPaths]) -> None:
    runs, paths = compared
    page, written = Page(paths.html), json.loads(paths.json.read_text(encoding="utf-8"))
    assert page.rows == markdown_rows(paths.markdown)
    markdown = paths.markdown.read_text(encoding="utf-8")
    sections = group_runs(read_runs(runs))
    compared_with_the_best = 0
    assert [each["name"] for each in written["datasets"]] == ["8gaussians", "faithful"]
    for each, section in zip(written["datasets"], sections, strict=True):
        assert each["verdict"] in page.text
        assert each["verdict"].replace("(", r"\(").replace(")", r"\)") in markdown
        decimals = shared_decimals(model["test_nll_standard_error"] for model in each["models"])
        rows = {row[0]: row for row in map(list, likelihood_table(section).rows)}
        for model in each["models"]:
            row = rows[model["label"]]
            assert row in page.rows
            nll = fixed(model["test_nll"], decimals)
            assert row[1] == f"{nll} ± {fixed(model['test_nll_standard_error'], decimals)}"
            if model["difference_to_best"] is not None:
                compared_with_the_best += 1
                low = model["difference_to_best"]["low"]
                assert float(re.split(r"[\[,]", row[2])[1]) == pytest.approx(low, abs=6e-3)
    assert compared_with_the_best == 3


def test_json_holds_what_the_runs_hold(compared: tuple[list[Run], ReportPaths]) -> None:
    runs, paths = compared

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    written = json.loads(paths.json.read_text(encoding="utf-8"), parse_constant=refuse)
    toy, table = written["datasets"]
    assert written["schema_version"] == 1
    assert toy["columns"] == ["x", "y"]
    assert toy["test_rows"] == 1000
    assert toy["entropy"] == runs[0].read_results().metrics["entropy"].value
    assert [model["label"] for model in toy["models"]] == ["cnf", "planar", "gaussian"]
    cnf, planar, _ = toy["models"]
    assert cnf["seeds"] == [0, 1]
    assert cnf["nfe"] == 182
    assert cnf["log_prob_error_largest"] == 3.4e-5
    assert planar["nfe"] is None
    assert planar["kl_to_truth"] > cnf["kl_to_truth"]
    assert len(toy["runs"]) == 6
    assert toy["runs"][0]["metrics"]["cpu_seconds"] == {"value": 61.2, "units": "seconds"}
    assert table["entropy"] is None
    assert table["models"][0]["test_nll_spread"] is None


def test_page_shows_every_part(compared: tuple[list[Run], ReportPaths]) -> None:
    page = Page(compared[1].html)
    headings = ["Held-out likelihood", "Densities and samples", "From base to data: cnf", "Learning curves"]
    for heading in (*headings, "Cost and checks", "Certificates", "Runs", "Made with"):
        assert heading in page.text
    for fact in ("5f5f5f5f5f5f", "8,000 train, 1,000 validation, 1,000 test", "entropy (floor)", "eruptions"):
        assert fact in page.text
    assert "The intervals rest on 28 test rows only" in page.text
    assert len(page.alts) > 5
    assert all(page.alts)
    for alt in (
        "Density of the truth",
        "Density of planar",
        "samples of gaussian",
        "Colour scale",
        "time 0.50",
    ):
        assert any(alt in (each or "") for each in page.alts)


def test_page_needs_nothing_else(compared: tuple[list[Run], ReportPaths]) -> None:
    page = Page(compared[1].html)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in {"href", "src", "xlink:href"}:
            assert (value or "").startswith(("#", "data:image/png;base64,"))
    source = compared[1].html.read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|@font-face", source)
    assert "http://" not in source
    assert "https://" not in source


def test_ids_in_the_page_are_unique(compared: tuple[list[Run], ReportPaths]) -> None:
    page = Page(compared[1].html)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 5
    links = [value[1:] for name, value in page.attributes if name == "href" and value and value[0] == "#"]
    assert links
    assert set(links) <= set(ids)


def test_the_same_runs_give_the_same_report(compared: tuple[list[Run], ReportPaths], tmp_path: Path) -> None:
    runs, first = compared
    again = write_report(runs, tmp_path / "again")
    pairs = [(first.html, again.html), (first.markdown, again.markdown), (first.json, again.json)]
    for pair in pairs:
        texts = [path.read_text(encoding="utf-8") for path in pair]
        one, other = (re.sub(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\+00:00)?", "", text) for text in texts)
        assert one == other


@pytest.mark.parametrize("features", [1, 2, 3, 8])
def test_any_number_of_columns(make_run: RunMaker, tmp_path: Path, features: int) -> None:
    run = make_run("cnf", features=features, grid=False, test_rows=40)
    page = Page(write_report([run], tmp_path / "report").html)
    assert "Data against samples" in page.text
    assert ("left out: column 7, column 8" in page.text) == (features == 8)
    assert ("Only the first two of" in page.text) == (features > 2)


def test_of_many_models_a_few_are_named_and_drawn(
    make_run: RunMaker, results_of: Callable[..., Results], tmp_path: Path
) -> None:
    runs = []
    for k, model in enumerate(("cnf", *sorted(set(MODELS.names()) - {"cnf"}))):
        results = results_of("cnf", features=3)
        scored = dataclasses.replace(results.scored, log_prob=results.scored.log_prob - 0.1 * k)
        runs.append(make_run(model, results=dataclasses.replace(results, scored=scored)))
    page = write_report(runs, tmp_path / "report").html.read_text(encoding="utf-8")
    # The best one is compared with the next six.
    assert f"and {len(runs) - 7} others by more, as the table shows" in page
    assert f"Of {len(runs)} models, the 6 of the lowest test NLL." in page
    curves = page[page.index("Learning curves") :]
    assert curves.count("<svg") == 3
    # A pair of columns is one path of dots, not an element for each.
    assert page.count("<use") < 3000


def test_text_from_data_is_shown_and_never_run(make_run: RunMaker, tmp_path: Path) -> None:
    nasty = {
        "dataset": NASTY,
        "columns": [NASTY_COLUMN, "温度 🌡 #010203 line\nbreak \x1b " + "long" * 40],
        "info": {"status": NASTY, "versions": {NASTY: NASTY}, "command": [NASTY], "started": NASTY},
    }
    runs = [make_run("planar", name=f"run-{k}", options={"note": NASTY * k}, **nasty) for k in (0, 1)]
    runs.append(make_run("cnf", name="broken", results=False, dataset=NASTY, info={"error": NASTY}))
    paths = write_report(runs, tmp_path / "report", title=NASTY)
    page = Page(paths.html)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert NASTY in page.text
    assert NASTY_COLUMN in page.text
    assert "<" not in re.sub(r"&lt;", "", paths.markdown.read_text(encoding="utf-8"))
    assert json.loads(paths.json.read_text(encoding="utf-8"))["title"] == NASTY


def test_control_characters_in_names_turn_nothing_round(make_run: RunMaker, tmp_path: Path) -> None:
    odd = "sales\u202evsc.\x9b31m\u2066\x1b[31m"
    columns = [f"x {odd}", f"y {odd}"]
    runs = [make_run(model, dataset=odd, name=model, columns=columns) for model in ("cnf", "planar")]
    paths = write_report(runs, tmp_path / "report", title=odd)
    for path in (paths.html, paths.markdown, paths.json):
        text = path.read_text(encoding="utf-8")
        assert "sales" in text
        assert not re.search("[\x1b\x9b\u202e\u2066]", text)
    written = json.loads(paths.json.read_text(encoding="utf-8"))
    assert written["title"] == odd
    assert written["datasets"][0]["columns"] == columns


def test_a_killed_run_is_not_said_to_be_running(make_run: RunMaker, tmp_path: Path) -> None:
    killed, under_way, robbed = (
        make_run("planar", seed=seed, results=False, status=status)
        for seed, status in ((3, "running"), (4, "running"), (5, "finished"))
    )
    with under_way.lock():
        paths = write_report([make_run("cnf"), killed, under_way, robbed], tmp_path / "report")
    page, written = Page(paths.html), json.loads(paths.json.read_text(encoding="utf-8"))
    told = {row[0]: (row[4], row[-1]) for row in page.rows if row[0].startswith("8gaussians-planar")}
    assert told[killed.name][0] == "killed"
    assert told[under_way.name][0] == "running"
    assert told[robbed.name] == ("finished", "results.h5 is missing")
    assert [each["status"] for each in written["unfinished"]] == ["killed", "running", "finished"]
    assert f"{killed.name} (killed)" in page.text


def test_times_say_that_they_are_in_utc(make_run: RunMaker, tmp_path: Path) -> None:
    runs = [
        make_run("cnf"),
        make_run("planar", info={"started": "2026-05-01T23:30:00-02:00"}),
        make_run("maf", info={"started": "yesterday"}),
        make_run("nsf", results=False),
    ]
    page = Page(write_report(runs, tmp_path / "report").html)
    assert sum("started (UTC)" in row for row in page.rows) == 2
    cells = {row[0]: row for row in page.rows if "8gaussians" in row[0]}
    assert "2026-05-01 12:00" in cells[runs[0].name]
    assert "2026-05-02 01:30" in cells[runs[1].name]
    assert cells[runs[2].name][-1] == "–"
    assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC", page.text)


def test_runs_without_results_are_listed(make_run: RunMaker, tmp_path: Path) -> None:
    failed = make_run("planar", seed=3, results=False, status="failed", info={"error": "the loss is NaN"})
    paths = write_report([make_run("cnf"), failed], tmp_path / "report")
    page, written = Page(paths.html), json.loads(paths.json.read_text(encoding="utf-8"))
    (row,) = (row for row in page.rows if row[0] == failed.name)
    assert row[1:6] == ["8gaussians", "planar", "3", "failed", "400"]
    assert row[-1] == "the loss is NaN"
    assert f"Without results, and so not compared: {failed.name} (failed)." in page.text
    assert [each["name"] for each in written["unfinished"]] == [failed.name]
    assert [model["label"] for model in written["datasets"][0]["models"]] == ["cnf"]


def test_no_results_at_all(make_run: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`8gaussians-cnf-0` \(interrupted\)"):
        write_report([make_run(results=False, status="interrupted")], tmp_path / "report")
    with pytest.raises(DataError, match="given: none"):
        write_report([], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_run_information_that_is_missing_or_odd(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run()
    odd = {
        "dataset": "not a table",
        "split": [1, 2],
        "seed": "zero",
        "versions": 3,
        "host": None,
        "command": "x",
    }
    (run.path / "run.json").write_text(json.dumps(odd), encoding="utf-8")
    page = Page(write_report([run], tmp_path / "report").html)
    assert "unnamed data" in page.text
    assert "unknown model" in page.text


def test_likelihoods_that_are_not_finite(
    make_run: RunMaker, results_of: Callable[..., Results], tmp_path: Path
) -> None:
    results = results_of("planar")
    log_prob = results.scored.log_prob.copy()
    log_prob[0] = -np.inf
    grid = dataclasses.replace(results.grid, log_prob=np.full((100, 100), -np.inf)) if results.grid else None
    scored = dataclasses.replace(results.scored, log_prob=log_prob)
    broken = dataclasses.replace(results, scored=scored, grid=grid)
    paths = write_report([make_run("planar", results=broken), make_run("cnf")], tmp_path / "report")
    models = json.loads(paths.json.read_text(encoding="utf-8"))["datasets"][0]["models"]
    assert [model["label"] for model in models] == ["cnf", "planar"]
    assert models[1]["test_nll"] is None
    assert models[1]["impossible_rows"] == 1


def test_a_damaged_run_is_named(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run()
    (run.path / "results.h5").write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"results\.h5"):
        write_report([run], tmp_path / "report")


def test_a_folder_that_cannot_be_made(make_run: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="file"):
        write_report([make_run()], tmp_path / "file")


def test_a_report_is_replaced_and_leaves_nothing_behind(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run("gaussian")
    write_report([run], tmp_path / "report", title="first")
    paths = write_report([run], tmp_path / "report", title="second")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "index.html",
        "report.md",
        "report.json",
    }
    assert "first" not in paths.html.read_text(encoding="utf-8").split("</header>")[0]


def test_settings_of_matplotlib_are_left_alone(make_run: RunMaker, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    write_report([make_run("gaussian")], tmp_path / "report")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def test_a_report_is_made_without_torch(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run("gaussian")
    code = (
        "import sys; from pathlib import Path\n"
        "from flowbench.store import Run; from flowbench.report import write_report\n"
        "assert 'matplotlib' not in sys.modules and 'scipy' not in sys.modules\n"
        "write_report([Run.open(Path(sys.argv[1]))], Path(sys.argv[2]))\n"
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(run.path), str(tmp_path / "report")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").is_file()
