"""Studies go from trials to a verdict and a page, and go on where they were stopped."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from flowbench.cli.app import run_app
from flowbench.errors import DamagedFileError, DataError, RunLockedError, UnknownNameError
from flowbench.registry import STUDIES
from flowbench.report.claim_page import write_claim_page
from flowbench.store.findings import Chart, Findings, Image, Series, read_findings, write_findings
from flowbench.store.study_folder import StudyFolder
from flowbench.store.text_table import TextTable
from flowbench.studies import reproduction
from flowbench.studies.reproduction import Reproduction, StudyWatch, reproduce
from flowbench.studies.study import Budget, Claim, Measurement, Study, Tell, Trial
from flowbench.workflows.home import Home

NASTY = "<script>alert(1)</script> & 温度"


def findings() -> Findings:
    draw = np.random.default_rng(0).uniform
    x = np.array([1.0, 2.0, 4.0])
    return Findings(
        "not reproduced",
        f"It is not so: {NASTY}.",
        (
            TextTable(
                "A table", ("what", "how much"), ((NASTY, "1.0"), ("b", "2.0")), (False, True), ("A note.",)
            ),
        ),
        (
            Chart(
                "A chart", "size", "KL", (Series("a", x, x, x - 0.1, x + 0.1), Series("b", x, x)), ("x", "y")
            ),
        ),
        (Image("An image", np.arange(3.0), np.arange(4.0), draw(size=(3, 4))),),
    )


class Counted(Study):
    """A study of three trials, each of which gives its number."""

    claim: ClassVar[Claim] = Claim("counted", "One is one", "It is.", "Nobody 2026")
    measured: ClassVar[list[str]] = []

    def trials(self, budget: Budget) -> Sequence[Trial]:
        return [Trial(f"trial-{n}", {"n": n}) for n in range(3)]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        self.measured.append(trial.name)
        return Measurement({"n": float(trial.values["n"])}, {"twice": np.full(2, 2.0 * trial.values["n"])})

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        total = sum(m.figures["n"] + m.arrays["twice"].sum() for _, m in measured)
        return dataclasses.replace(findings(), reason=f"The sum is {total:g}.")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setitem(STUDIES.entries, "counted", f"{__name__}:Counted")
    Counted.measured.clear()
    return Counted


@pytest.mark.parametrize("name", STUDIES.names())
def test_claims_say_what_is_claimed_and_by_whom(name: str) -> None:
    study = STUDIES.get(name)()
    claim = study.claim
    assert claim.name == name and claim.title and claim.statement.endswith(".")
    assert re.search(r"\b(19|20)\d\d\b", claim.source)
    for budget in ("quick", "default", "full"):
        names = [trial.name for trial in study.trials(budget)]
        assert len(set(names)) == len(names) > 0
        assert all(re.fullmatch(r"[\w.-]+", each, re.ASCII) for each in names)


def test_a_study_goes_on_where_it_was_stopped(counted: type[Counted], tmp_path: Path) -> None:
    home = Home(tmp_path)
    stopped = reproduce(
        "counted", "quick", home=home, watch=StudyWatch(should_stop=lambda: len(counted.measured) == 2)
    )
    assert stopped.findings is None and stopped.page is None
    assert counted.measured == ["trial-0", "trial-1"]
    with pytest.raises(DataError, match="is not finished"):
        write_claim_page(StudyFolder(stopped.folder), tmp_path / "page")
    whole = reproduce("counted", "quick", home=home)
    assert counted.measured == ["trial-0", "trial-1", "trial-2"]
    assert whole.findings is not None and whole.findings.reason == "The sum is 15."
    assert whole.page is not None and "The sum is 15." in whole.page.read_text(encoding="utf-8")
    # Once more: nothing is left to measure, and the page is written anew.
    whole.page.unlink()
    before = StudyFolder(whole.folder).info
    again = reproduce("counted", "quick", home=home)
    assert len(counted.measured) == 3 and again.page is not None and again.page.exists()
    # When and at which commit it was measured stays.
    info = StudyFolder(again.folder).info
    assert info == before
    listed = (again.page.parents[1] / "index.html").read_text(encoding="utf-8")
    assert f'href="{again.page.parent.name}/index.html"' in listed
    assert "The sum is 15." in listed and "One is one" in listed
    # Another budget is another study.
    reproduce("counted", "default", home=home)
    assert len(counted.measured) == 6


def test_trials_of_another_commit_are_told(
    counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def carry_out(commit: str, most: int) -> Reproduction:
        monkeypatch.setattr(reproduction, "source_commit", lambda: commit)
        watch = StudyWatch(on_progress=told.append, should_stop=lambda: len(counted.measured) == most)
        return reproduce("counted", "quick", home=Home(tmp_path), watch=watch)

    carry_out("aaaa", 1)
    assert told == []
    carry_out("bbbb", 2)
    found = carry_out("bbbb", 4)
    assert told == ["trials of aaaa are kept; this is another commit"] * 2
    assert found.page is not None and "aaaa, bbbb" in found.page.read_text(encoding="utf-8")


def test_a_damaged_study_does_not_stop_the_others(counted: type[Counted], tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = reproduce("counted", "default", home=home)
    (first.folder / "findings.json").write_text("{}", encoding="utf-8")
    found = reproduce("counted", "quick", home=home)
    assert found.page is not None
    listed = (found.page.parents[1] / "index.html").read_text(encoding="utf-8")
    assert "not readable" in listed and "findings.json is not as flowbench wrote it" in listed


def test_two_processes_do_not_measure_the_same(counted: type[Counted], tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "claims" / "counted-quick").lock(), pytest.raises(RunLockedError):
        reproduce("counted", "quick", home=Home(tmp_path))


def test_findings_come_back(tmp_path: Path) -> None:
    write_findings(tmp_path, findings())
    found, expected = (_plain(dataclasses.asdict(each)) for each in (read_findings(tmp_path), findings()))
    assert found == expected
    (tmp_path / "findings.json").write_text('{"verdict": "reproduced"}')
    with pytest.raises(DamagedFileError, match=r"findings\.json is not as flowbench wrote it"):
        read_findings(tmp_path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def test_the_page_shows_all_and_runs_nothing(counted: type[Counted], tmp_path: Path) -> None:
    found = reproduce("counted", "quick", home=Home(tmp_path))
    folder = StudyFolder(found.folder)
    folder.write_findings(findings())
    page = write_claim_page(folder, tmp_path / "page").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    for text in ("One is one", "Nobody 2026", "A table", "A note.", "A chart", "An image", "Not reproduced."):
        assert text in page


def test_the_command(counted: type[Counted], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = ["--home", str(tmp_path)]
    assert run_app(["reproduce", "counted", "--quick", *place]) == 0
    out, err = capfd.readouterr()
    assert Path(out.strip()).name == "index.html" and "Not reproduced. The sum is 15." in err
    assert run_app(["reproduce", "--list"]) == 0
    assert "density-matching" in capfd.readouterr().out
    assert run_app(["reproduce", *place]) == 2
    assert "--list" in capfd.readouterr().err
    assert run_app(["reproduce", "counted", "--quick", "--full", *place]) == 2
    capfd.readouterr()
    assert run_app(["reproduce", "nothing", *place]) == 2
    assert "unknown claim `nothing`" in capfd.readouterr().err
    with pytest.raises(UnknownNameError):
        reproduce("nothing", home=Home(tmp_path))
