"""From a published archive to a benchmark table that a fit finds by its name."""

import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from flowbench.data.benchmark_record import BenchmarkRecord, find_fetched, record_path, shortcoming
from flowbench.data.benchmark_steps import BenchmarkRows, preprocess
from flowbench.data.benchmarks import PART_COLUMN, PARTS, Benchmark
from flowbench.data.raw_table import check_size
from flowbench.errors import DataError, RunLockedError
from flowbench.registry import BENCHMARKS
from flowbench.store import atomic_write, file_errors
from flowbench.store.documents import write_json
from flowbench.workflows.download import OnBytes, fetch_archive

#: Rows of a row group of the written Parquet file.
_GROUP_ROWS = 2**17
#: How the names of folders begin that hold unpacked files for a while.
_UNPACKED = ".unpacked-"
_REMEDY = "remove it, and run the same command again"


@dataclass(frozen=True)
class FetchWatch:
    """What the caller of a fetch wants to hear: sentences, and the bytes of a download."""

    tell: Callable[[str], None] = lambda text: None
    on_bytes: OnBytes = lambda done, total: None


def downloads_folder(datasets: Path) -> Path:
    """Where archives are kept, below the folder of the tables."""
    return datasets / "downloads"


def fetch_benchmark(name: str, datasets: Path, watch: FetchWatch | None = None) -> Path:
    """The table of the benchmark `name` in the folder `datasets`, fetched if it is not there.

    The table is a Parquet file of float32 columns, train rows first, then validation and test rows; its last
    column names the part. The record beside it says where it is from.

    Raises `UnknownNameError` for another name, `DataError` for an archive that is not the published one or
    cannot be used, `RunFailedError` if it cannot be downloaded, and `RunLockedError` while another fetch is
    under way.
    """
    watch = watch or FetchWatch()
    benchmark, table = BENCHMARKS.get(name), datasets / f"{name}.parquet"
    downloads = downloads_folder(datasets)
    with file_errors("write", downloads):
        downloads.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(downloads / ".lock", timeout=0):
            for left in downloads.glob(f"{_UNPACKED}*"):  # of a fetch that was killed
                shutil.rmtree(left, ignore_errors=True)
            if table.exists():
                if find_fetched(table) is None:
                    raise DataError(
                        f"{table} is there, and is not what a fetch wrote; move it away, or remove it and "
                        f"{record_path(table).name}, and run the same command again"
                    )
                watch.tell(f"{table} is there already")
                return table
            archive = fetch_archive(benchmark.archive, downloads, watch.on_bytes)
            with tempfile.TemporaryDirectory(dir=downloads, prefix=_UNPACKED) as folder:
                watch.tell(f"unpacking {', '.join(benchmark.members)} from {archive}")
                files = unpack(archive, benchmark.members, Path(folder))
                for step in benchmark.steps:
                    watch.tell(f"{name}: {step}")
                rows = preprocess(name, files)
            _write(name, benchmark, rows, table, archive, watch)
    except Timeout:
        raise RunLockedError(f"another fetch is at work in {downloads}; try again when it is done") from None
    return table


def unpack(archive: Path, members: Sequence[str], folder: Path) -> list[Path]:
    """Copy the files called `members` out of a packed tar archive into `folder`, under numbers for names.

    No path and no link of the archive is followed, and nothing else of it is unpacked. Raises `DataError` for
    an archive that is damaged or lacks a member.
    """
    found: dict[str, Path] = {}
    try:
        with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name not in members or name in found or not member.isreg():
                    continue
                check_size(member.size)
                content = tar.extractfile(member)
                # The suffix alone is kept, by which readers tell formats.
                path = folder / f"{members.index(name)}{Path(name).suffix}"
                if content is not None:
                    with content, path.open("wb") as file:
                        shutil.copyfileobj(content, file, 2**20)
                    found[name] = path
                if len(found) == len(members):
                    break
    except OSError as error:
        if error.errno is not None:
            with file_errors("write", folder):
                raise
        raise DataError(f"{archive} is damaged: {error}; {_REMEDY}") from error
    # zlib and lzma have errors of their own.
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{archive} is damaged: {error}; {_REMEDY}") from error
    if lacking := [name for name in members if name not in found]:
        raise DataError(f"{archive} lacks `{lacking[0]}`; {_REMEDY}")
    return [found[name] for name in members]


def _write(
    name: str, benchmark: Benchmark, rows: BenchmarkRows, table: Path, archive: Path, watch: FetchWatch
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    sizes = tuple(len(part) for part in rows.parts)
    joined = np.concatenate(rows.parts)
    parts = pa.DictionaryArray.from_arrays(np.repeat(np.arange(3, dtype=np.int8), sizes), list(PARTS))
    content = pa.table({**dict(zip(rows.names, joined.T, strict=True)), PART_COLUMN: parts})
    archive_sha256 = _sha256(archive)
    facts = {
        "parts": list(PARTS),
        "archive": list(benchmark.archive.urls),
        "source": benchmark.source,
        "steps": list(benchmark.steps),
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {package: version(package) for package in ("numpy", "pandas", "pyarrow")},
    }
    known_hash, columns = benchmark.archive.known_hash, len(rows.names)

    def record(path: Path) -> BenchmarkRecord:
        return BenchmarkRecord(name, _sha256(path), known_hash, archive_sha256, sizes, columns, facts)

    # The record comes first, so that a table is never without one.
    with atomic_write(
        table, lambda path: write_json(record_path(table), record(path).to_values())
    ) as partial:
        parquet.write_table(content, partial, row_group_size=_GROUP_ROWS, compression="zstd")
    shown = ", ".join(f"{size:,} {part}" for size, part in zip(sizes, PARTS, strict=True))
    watch.tell(f"{table}: {columns} columns; {shown} rows; sha256 of the archive {archive_sha256}")
    if why := shortcoming(record(table), benchmark):
        watch.tell(f"warning: {table} is not the table of the papers: {why}; published figures are not shown")
    watch.tell(f"{archive} is kept for other tables; remove it when you need none")


def _sha256(path: Path) -> str:
    with file_errors("read", path), path.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
