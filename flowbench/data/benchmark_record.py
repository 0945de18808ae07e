"""The record that a fetch leaves beside a benchmark table, and what it proves of the table."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowbench.data.benchmarks import Benchmark, PublishedFigure
from flowbench.data.formats import reading_errors
from flowbench.errors import DataError
from flowbench.registry import BENCHMARKS

_ENDING = ".benchmark.json"
#: A record is a few lines.
_LARGEST = 2**16


def record_path(table: Path) -> Path:
    """The record of the table at this path."""
    return table.with_name(table.stem + _ENDING)


@dataclass(frozen=True)
class FetchedTable:
    """A table that is, byte for byte, what a fetch wrote.

    `archive_sha256` is that of the archive it is from. `shortcoming` says in words why the data are not those
    of the papers; it is empty if they are.
    """

    benchmark: Benchmark
    archive_sha256: str
    shortcoming: str = ""

    @property
    def figures(self) -> tuple[PublishedFigure, ...]:
        """The published figures, if the data are those of the papers."""
        return () if self.shortcoming else self.benchmark.figures


@dataclass(frozen=True)
class BenchmarkRecord:
    """What a fetch knows: the `name` of the benchmark, hashes, and the numbers of rows of its parts."""

    name: str
    table_sha256: str
    archive_hash: str
    archive_sha256: str
    rows: tuple[int, ...]
    columns: int
    facts: dict[str, Any] = field(default_factory=dict)

    def to_values(self) -> dict[str, Any]:
        """The record as plain values; `facts` are there for people."""
        return {
            "benchmark": self.name,
            "table_sha256": self.table_sha256,
            "archive_hash": self.archive_hash,
            "archive_sha256": self.archive_sha256,
            "rows": list(self.rows),
            "columns": self.columns,
            **self.facts,
        }


def find_fetched(table: Path) -> FetchedTable | None:
    """What is known of the table file by the record beside it; None without one, or if the file has changed.

    Raises `DataError` for a record that cannot be read.
    """
    record = read_record(table)
    if record is None or not table.is_file():
        return None
    with reading_errors(table), table.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != record.table_sha256:
            return None
    benchmark = BENCHMARKS.get(record.name)
    return FetchedTable(benchmark, record.archive_sha256, shortcoming(record, benchmark))


def shortcoming(record: BenchmarkRecord, benchmark: Benchmark) -> str:
    """Why a fetched table is not that of the papers, in words; empty if it is."""
    if record.archive_hash != benchmark.archive.known_hash:
        return f"its archive has the hash {record.archive_hash}, and not {benchmark.archive.known_hash}"
    if record.rows != benchmark.rows:
        return f"its parts have {_listed(record.rows)} rows, and not {_listed(benchmark.rows)}"
    if record.columns != benchmark.columns:
        return f"it has {record.columns} columns, and not {benchmark.columns}"
    return ""


def read_record(table: Path) -> BenchmarkRecord | None:
    """The record beside the table file, if there is one; raises `DataError` if it cannot be read."""
    path = record_path(table)
    if not path.is_file():
        return None
    with reading_errors(path):
        if path.stat().st_size > _LARGEST:
            raise DataError("it is too long for a record; fetch the table again")
        values = json.loads(path.read_bytes())
        texts = [values[name] for name in ("benchmark", "table_sha256", "archive_hash", "archive_sha256")]
        numbers = [*values["rows"], values["columns"]]
        if not all(isinstance(text, str) for text in texts):
            raise DataError("it is no record of a table; fetch the table again")
        if not all(type(number) is int for number in numbers):
            raise DataError("it has no numbers of rows and columns; fetch the table again")
        if texts[0] not in BENCHMARKS.entries:
            raise DataError("it is of no benchmark that is known; fetch the table again")
        *rows, columns = numbers
        name, table_sha256, archive_hash, archive_sha256 = texts
        return BenchmarkRecord(name, table_sha256, archive_hash, archive_sha256, tuple(rows), columns)


def _listed(rows: tuple[int, ...]) -> str:
    return ", ".join(f"{number:,}" for number in rows)
