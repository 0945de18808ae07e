"""Benchmarks are fetched from a server on loopback, through all that can go wrong on the way."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from pyarrow import parquet

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
from archive_server import ArchiveServer, serving
from made_benchmarks import members, packed, write_members

from flowbench.data import benchmarks, describe_dataset, list_datasets, load_dataset
from flowbench.data.benchmark_steps import preprocess
from flowbench.errors import ConfigurationError, DataError, RunFailedError, RunLockedError, UnknownNameError
from flowbench.registry import BENCHMARKS
from flowbench.workflows import download
from flowbench.workflows.config import resolve
from flowbench.workflows.dataset_rows import describe_dataset as describe_for_run
from flowbench.workflows.dataset_rows import find_dequantiser, load_rows
from flowbench.workflows.download import fetch_archive
from flowbench.workflows.fetching import FetchWatch, fetch_benchmark, unpack

ARCHIVE = packed(members())


def point_at(
    monkeypatch: pytest.MonkeyPatch, urls: tuple[str, ...], content: bytes, **changes: object
) -> None:
    """Let the facts of every benchmark be those of `content`, which the `urls` serve."""
    digest = hashlib.md5(content).hexdigest()
    for name in BENCHMARKS.names():
        facts = BENCHMARKS.get(name)
        archive = replace(facts.archive, urls=urls, known_hash=f"md5:{digest}")
        monkeypatch.setattr(benchmarks, name.upper(), replace(facts, archive=archive, **changes))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach loopback directly, whatever the machine's settings are."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    """A server of the made-up archive, to which the facts of the benchmarks point."""
    with serving(ARCHIVE) as state:
        point_at(monkeypatch, (state.url,), ARCHIVE)
        yield state


def partial_file(datasets: Path) -> Path:
    return archive_file(datasets).with_name("data.tar.gz.part")


def archive_file(datasets: Path) -> Path:
    return datasets / "downloads" / "zenodo-1161203" / "data.tar.gz"


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_a_fetch_writes_the_published_rows_and_their_parts(
    server: ArchiveServer, tmp_path: Path, name: str
) -> None:
    path = fetch_benchmark(name, tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    expected = preprocess(name, write_members(raw, BENCHMARKS.get(name).members))
    table = parquet.read_table(path)
    assert table.column_names == [*expected.names, "part"]
    assert {str(table.schema.field(each).type) for each in expected.names} == {"float"}
    part = np.array(table["part"].to_pylist())
    for label, rows in zip(("train", "validation", "test"), expected.parts, strict=True):
        kept = table.filter(part == label)
        np.testing.assert_array_equal(
            np.column_stack([kept[each].to_numpy() for each in expected.names]), rows
        )
    record = json.loads((tmp_path / f"{name}.benchmark.json").read_text())
    assert record["archive_sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert record["table_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not list((tmp_path / "downloads").glob(".unpacked-*"))


def test_one_download_serves_all_tables(server: ArchiveServer, tmp_path: Path) -> None:
    for name in ("power", "gas", "power"):
        fetch_benchmark(name, tmp_path)
    assert server.asked == [None]


def test_an_interrupted_download_goes_on_where_it_was(
    server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download, "_BLOCK", 500)
    server.cuts = [1000, 2000]
    with pytest.raises(RunFailedError, match=r"broke off.*1,000 bytes are kept.*goes on from there"):
        fetch_benchmark("power", tmp_path)
    assert partial_file(tmp_path).read_bytes() == ARCHIVE[:1000]
    with pytest.raises(RunFailedError, match="3,000 bytes are kept"):
        fetch_benchmark("power", tmp_path)
    heard: list[tuple[int, int | None]] = []
    fetch_benchmark("power", tmp_path, FetchWatch(on_bytes=lambda *each: heard.append(each)))
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]
    assert server.sent == len(ARCHIVE)
    assert heard[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert archive_file(tmp_path).read_bytes() == ARCHIVE
    assert not partial_file(tmp_path).exists()


def test_ctrl_c_keeps_what_was_downloaded(server: ArchiveServer, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_benchmark("power", tmp_path, FetchWatch(on_bytes=interrupt))
    kept = partial_file(tmp_path).read_bytes()
    assert kept
    assert ARCHIVE.startswith(kept)
    assert [path.name for path in archive_file(tmp_path).parent.iterdir()] == ["data.tar.gz.part"]


def test_a_server_without_ranges_sends_all_again(server: ArchiveServer, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.cuts = [1000]
    with pytest.raises(RunFailedError, match="broke off"):
        fetch_benchmark("power", tmp_path)
    fetch_benchmark("power", tmp_path)
    assert server.sent == 1000 + len(ARCHIVE)
    assert archive_file(tmp_path).read_bytes() == ARCHIVE


def test_a_download_that_was_killed_at_its_end_is_taken_up(server: ArchiveServer, tmp_path: Path) -> None:
    partial_file(tmp_path).parent.mkdir(parents=True)
    partial_file(tmp_path).write_bytes(ARCHIVE)
    fetch_benchmark("power", tmp_path)
    assert server.sent == 0


def test_a_wrong_file_is_refused_and_not_kept(server: ArchiveServer, tmp_path: Path) -> None:
    server.content = ARCHIVE + b"more"
    expected, found = (hashlib.md5(each).hexdigest() for each in (ARCHIVE, server.content))
    with pytest.raises(DataError, match=rf"{expected} but got {found}.*run the same command again"):
        fetch_benchmark("power", tmp_path)
    assert not list(archive_file(tmp_path).parent.iterdir())
    server.content = ARCHIVE
    fetch_benchmark("power", tmp_path)


def test_a_partial_file_of_something_else_costs_one_more_try(server: ArchiveServer, tmp_path: Path) -> None:
    partial_file(tmp_path).parent.mkdir(parents=True)
    partial_file(tmp_path).write_bytes(b"x" * 500)
    with pytest.raises(DataError, match="another file than the published one"):
        fetch_benchmark("power", tmp_path)
    fetch_benchmark("power", tmp_path)
    assert server.asked == ["bytes=500-", None]


def test_a_file_put_there_by_hand_is_used(server: ArchiveServer, tmp_path: Path) -> None:
    archive_file(tmp_path).parent.mkdir(parents=True)
    archive_file(tmp_path).write_bytes(ARCHIVE)
    fetch_benchmark("power", tmp_path)
    assert server.asked == []


def test_a_wrong_file_put_there_by_hand_stays_and_is_named(server: ArchiveServer, tmp_path: Path) -> None:
    archive_file(tmp_path).parent.mkdir(parents=True)
    archive_file(tmp_path).write_bytes(b"not it")
    with pytest.raises(DataError, match=r"data\.tar\.gz is not the file.*its hash is .*remove it"):
        fetch_benchmark("power", tmp_path)
    assert archive_file(tmp_path).read_bytes() == b"not it"


def test_a_missing_file_says_so_and_what_to_do(server: ArchiveServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(RunFailedError, match=r"answered 404.*download it by hand, put it at .*data\.tar\.gz"):
        fetch_benchmark("power", tmp_path)


def test_the_next_address_is_tried(
    server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, ("http://127.0.0.1:9/gone", server.url), ARCHIVE)
    fetch_benchmark("power", tmp_path)
    assert server.asked == [None]


def test_without_a_server_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, ("http://127.0.0.1:9/data.tar.gz",), ARCHIVE)
    with pytest.raises(RunFailedError, match=r"no connection to the server.*by hand"):
        fetch_benchmark("power", tmp_path)


@pytest.mark.parametrize(
    "content",
    [ARCHIVE[: len(ARCHIVE) // 2], b"no archive", packed({"a": b"b"})],
    ids=["half", "no archive", "another archive"],  # packed bytes hold the time of packing
)
def test_a_damaged_archive_is_a_data_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    with serving(content) as state:
        point_at(monkeypatch, (state.url,), content)
        with pytest.raises(DataError, match=r"data\.tar\.gz (is damaged|lacks).*remove it"):
            fetch_benchmark("bsds300", tmp_path)
    assert not (tmp_path / "bsds300.parquet").exists()


def test_unpacking_follows_neither_paths_nor_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in (("../../outside", tarfile.REGTYPE), ("data/x.npy", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert unpack(path, ["../../outside"], folder) == [folder / "0"]
    with pytest.raises(DataError, match=r"lacks `data/x\.npy`"):
        unpack(path, ["data/x.npy"], folder)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "evil.tar.gz", "secret"]


def test_a_table_of_the_user_is_not_overwritten(server: ArchiveServer, tmp_path: Path) -> None:
    (tmp_path / "power.parquet").write_bytes(b"mine")
    with pytest.raises(DataError, match="not what a fetch wrote"):
        fetch_benchmark("power", tmp_path)
    assert (tmp_path / "power.parquet").read_bytes() == b"mine"


def test_what_a_killed_fetch_unpacked_is_removed(server: ArchiveServer, tmp_path: Path) -> None:
    left = tmp_path / "downloads" / ".unpacked-abc"
    left.mkdir(parents=True)
    (left / "0.npy").write_bytes(b"much")
    fetch_benchmark("power", tmp_path)
    assert not left.exists()


def test_two_fetches_at_once_are_refused(server: ArchiveServer, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    with FileLock(tmp_path / "downloads" / ".lock"), pytest.raises(RunLockedError, match="another fetch"):
        fetch_benchmark("power", tmp_path)


def test_an_unknown_benchmark_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean `power`"):
        fetch_benchmark("powr", tmp_path)


def test_a_fit_of_a_benchmark_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="`flowbench datasets fetch power` downloads it, about"):
        load_dataset("power", folder=tmp_path)
    listed = {each.name: each for each in list_datasets(tmp_path)}
    assert listed["power"].kind == "benchmark"
    assert (listed["power"].rows, listed["power"].columns) == (2_049_280, 6)


def test_the_published_split_is_used(server: ArchiveServer, tmp_path: Path) -> None:
    table = parquet.read_table(fetch_benchmark("power", tmp_path))
    part = np.array(table["part"].to_pylist())
    for seed in (0, 1):
        config = resolve("power", "gaussian", overrides={"data.seed": seed})
        dataset, split = load_rows(config, tmp_path)
        for name in ("train", "validation", "test"):
            np.testing.assert_array_equal(np.sort(getattr(split, name)), np.flatnonzero(part == name))
    assert "part" not in dataset.column_names


@pytest.mark.parametrize("overrides", [{"split.train": 0.7, "split.test": 0.2}, {"data.group": "time"}])
def test_another_split_is_refused(
    server: ArchiveServer, tmp_path: Path, overrides: dict[str, object]
) -> None:
    fetch_benchmark("power", tmp_path)
    with pytest.raises(ConfigurationError, match="a column names the part of each row"):
        load_rows(resolve("power", "gaussian", overrides=overrides), tmp_path)


def told_of_a_run(tmp_path: Path, **overrides: object) -> dict[str, object]:
    """What `run.json` says of the data set of a run on `power`."""
    config = resolve(
        "power", "gaussian", overrides={f"data.{key}": value for key, value in overrides.items()}
    )
    dataset, split = load_rows(config, tmp_path)
    return describe_for_run(dataset, find_dequantiser(config, dataset, split))


def complete(monkeypatch: pytest.MonkeyPatch, server: ArchiveServer) -> None:
    """Let the published numbers of rows be those of the made-up POWER."""
    point_at(monkeypatch, (server.url,), ARCHIVE, rows=(187, 20, 23))


def test_published_figures_stand_beside_runs_on_the_complete_table(
    server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete(monkeypatch, server)
    fetch_benchmark("power", tmp_path)
    told = told_of_a_run(tmp_path)
    assert {"model": "FFJORD", "nll": -0.46, "source": "Grathwohl et al. 2019, Table 2"} in told["published"]  # type: ignore[operator]
    assert told["lattices"] == {}
    assert str(told["source"]).startswith("Hebrail")
    assert describe_dataset("power", folder=tmp_path).published
    others = ({"columns": ["time", "voltage"]}, {"given": ["time"]}, {"dequantise": "time=0.1443375"})
    for each in others:
        assert "published" not in told_of_a_run(tmp_path, **each)


def test_no_published_figures_without_the_published_rows(server: ArchiveServer, tmp_path: Path) -> None:
    heard: list[str] = []
    fetch_benchmark("power", tmp_path, FetchWatch(tell=heard.append))
    assert any("not the table of the papers: its parts have 187, 20, 23 rows" in text for text in heard)
    told = told_of_a_run(tmp_path)
    assert "published" not in told
    assert any("published figures are not shown" in str(note) for note in told["notes"])  # type: ignore[attr-defined]


def test_no_published_figures_for_a_table_that_was_changed(
    server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete(monkeypatch, server)
    path = fetch_benchmark("power", tmp_path)
    table = parquet.read_table(path)
    parquet.write_table(table.slice(1), path)
    dataset, _ = load_rows(resolve("power", "gaussian", overrides={"data.split_column": "part"}), tmp_path)
    assert dataset.published == ()


def test_no_published_figures_for_an_archive_with_another_hash(
    server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete(monkeypatch, server)
    fetch_benchmark("power", tmp_path)
    point_at(monkeypatch, (server.url,), b"another", rows=(187, 20, 23))
    assert "published" not in told_of_a_run(tmp_path)


def test_a_record_that_makes_no_sense_is_a_data_error(server: ArchiveServer, tmp_path: Path) -> None:
    fetch_benchmark("power", tmp_path)
    record = tmp_path / "power.benchmark.json"
    for text in ("{", "[]", "{}", json.dumps({**json.loads(record.read_text()), "rows": ["1"]})):
        changed = tmp_path / "power.benchmark.json"
        before = changed.read_text()
        changed.write_text(text)
        with pytest.raises(DataError, match=r"power\.benchmark\.json"):
            load_dataset("power", folder=tmp_path)
        changed.write_text(before)


def test_progress_counts_what_was_there_before(server: ArchiveServer, tmp_path: Path) -> None:
    archive = BENCHMARKS.get("power").archive
    part = tmp_path / archive.folder / "data.tar.gz.part"
    part.parent.mkdir()
    part.write_bytes(ARCHIVE[:700])
    heard: list[tuple[int, int | None]] = []
    fetch_archive(archive, tmp_path, lambda *each: heard.append(each))
    assert all(700 < done <= len(ARCHIVE) and total == len(ARCHIVE) for done, total in heard)
