"""`flowbench datasets fetch`, from a server on loopback to a report with published figures."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import SMALL

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
from archive_server import serving
from made_benchmarks import members, packed

from flowbench.data import benchmarks

Run = Callable[..., tuple[int, str, str]]
ARCHIVE = packed(members())


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let POWER be the made-up table at `url`, with its numbers of rows, which no proxy is asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    known_hash = f"md5:{hashlib.md5(ARCHIVE).hexdigest()}"
    archive = replace(benchmarks.POWER.archive, urls=(url,), known_hash=known_hash)
    monkeypatch.setattr(benchmarks, "POWER", replace(benchmarks.POWER, archive=archive, rows=(187, 20, 23)))


def test_from_the_net_to_a_report_with_published_figures(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(ARCHIVE) as server:
        point_at(monkeypatch, server.url)
        code, out, err = run("datasets", "fetch", "power")
    assert (code, out) == (0, "datasets/power.parquet\n")
    assert "RandomState(42)" in err
    assert hashlib.sha256(ARCHIVE).hexdigest() in err

    code, out, _ = run("datasets", "show", "power")
    assert code == 0
    assert "published test NLL: FFJORD -0.46 nats (Grathwohl et al. 2019, Table 2)" in out
    assert "Hebrail and Berard (2012)" in out
    assert f"sha256 {hashlib.sha256((home / 'datasets' / 'power.parquet').read_bytes()).hexdigest()}" in out
    assert "\npart\t" not in out
    assert "POWER: electricity" in run("datasets", "list")[1]

    for command in (("fit", "power", "--model", "gaussian"), ("datasets", "check", "power")):
        code, _, err = run(*command, "--rows", "50")
        assert code == 2 and "`power` is a benchmark" in err and "leave `rows` out" in err
    code, _, err = run("fit", "power", "--model", "gaussian", "--name", "p", *SMALL)
    assert code == 0, err
    assert "Train, validation and test rows are those published" in err
    assert "Values are taken as points" in err
    told = json.loads((home / "runs" / "p" / "run.json").read_text())
    assert told["split"] == {"train": 187, "validation": 20, "test": 23}

    assert run("report", "p", "-o", "r")[0] == 0
    page = (home / "r" / "index.html").read_text()
    assert "published test NLL" in page
    assert "FFJORD −0.46 (Grathwohl et al. 2019, Table 2)" in page
    report = json.loads((home / "r" / "report.json").read_text())
    assert {"model": "FFJORD", "nll": -0.46, "source": "Grathwohl et al. 2019, Table 2"} in report[
        "datasets"
    ][0]["published"]
    assert run("score", "p", "power", "-o", "scores.csv")[0] == 0


def test_no_other_report_has_published_figures(run: Run, home: Path) -> None:
    assert run("report", "g", "-o", "r")[0] == 0
    assert "published test NLL" not in (home / "r" / "index.html").read_text()


def test_ctrl_c_says_that_the_download_goes_on(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowbench.cli.progress_line import ProgressLine

    def interrupt(self: ProgressLine, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressLine, "transfer", interrupt)
    with serving(ARCHIVE) as server:
        point_at(monkeypatch, server.url)
        code, out, err = run("datasets", "fetch", "power")
    assert (code, out) == (130, "")
    assert (
        "interrupted; what was downloaded is kept in datasets/downloads, and the same command goes on" in err
    )


def test_errors_have_their_exit_codes(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("datasets", "fetch", "powr")[0] == 2
    point_at(monkeypatch, "http://127.0.0.1:9/data.tar.gz")
    code, _, err = run("datasets", "fetch", "power")
    assert code == 1
    assert "put it at datasets/downloads/zenodo-1161203/data.tar.gz" in err
    code, _, err = run("fit", "power")
    assert code == 2
    assert "flowbench datasets fetch power" in err


def test_a_download_says_how_much_is_there_and_how_long_it_takes(capfd: pytest.CaptureFixture[str]) -> None:
    from flowbench.cli.progress_line import ProgressLine

    with ProgressLine("download") as line:
        line.transfer(50_000_000, 200_000_000)
        line._last = float("-inf")
        line.transfer(100_000_000, 200_000_000)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "download: 50.0 of 200.0 MB"
    assert second.startswith("download: 100.0 of 200.0 MB, ")
    assert second.endswith(" s left")


def test_a_table_with_a_column_of_parts_is_fitted(run: Run, home: Path) -> None:
    lines = (home / "table.csv").read_text().splitlines()
    parts = ["part", *(["train", "validation", "test"] * 20)]
    (home / "parts.csv").write_text(
        "\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True))
    )
    options = ("--model", "gaussian", "--split-column", "part", "--name", "s")
    assert run("fit", "parts.csv", *options, *SMALL)[0] == 0
    told = json.loads((home / "runs" / "s" / "run.json").read_text())
    assert told["split"] == {"train": 20, "validation": 20, "test": 20}
    assert run("score", "s", "parts.csv", "-o", "scores.csv")[0] == 0
    code, _, err = run("fit", "parts.csv", "--series", "part", "--time", "a", "--split-column", "part")
    assert code == 2
    assert "`--split-column` is for tables of rows" in err
