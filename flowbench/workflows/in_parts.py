"""Work on the rows of a long table: part by part, kept as it is done, and taken up where it ended."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from flowbench import __version__
from flowbench.errors import DataError, IntegrationError
from flowbench.evaluation.solver_levels import OnRows
from flowbench.store import HeldParts, Parts, Run, StoredParts
from flowbench.store.documents import to_json
from flowbench.store.run import MODEL
from flowbench.store.table_parts import Columns
from flowbench.workflows.stored_run import StoredRun

#: Rows of a part. What a row gets may depend on the others of its part, so it is the same for all tables.
PART_ROWS = 65_536

Tell = Callable[[str], None]


class Job(Protocol):
    """A table that is made in parts of `PART_ROWS` rows, the last of which may be shorter."""

    @property
    def rows(self) -> int:
        """The rows of the whole table."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What the table depends on, by word."""
        ...

    @property
    def state(self) -> Mapping[str, Any]:
        """What is known of all rows so far, as plain values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        ...

    def parts(self, first: int) -> Iterator[Columns]:
        """The parts from row number `first` on."""
        ...

    def write(self, path: Path, parts: Parts) -> None:
        """Write the table, once all of its `parts` are there."""
        ...


class PartProgress:
    """Tells `on_rows` how many of all `rows` are done, while a part of them is worked on."""

    def __init__(self, rows: int, on_rows: OnRows) -> None:
        self._rows, self._on_rows = rows, on_rows
        self._first = self._size = 0

    def begin(self, first: int, size: int) -> None:
        """Begin with a part of `size` rows, of which the first is number `first`."""
        self._first, self._size = first, size

    def __call__(self, done: int, total: int) -> None:
        """Hear that `done` of `total` rows of the part are done."""
        if self._size == self._rows:
            self._on_rows(done, total)
        elif total == self._size:  # some of its rows are worked on again, which is not said
            self._on_rows(self._first + done, self._rows)


def do_in_parts(job: Job, path: Path, tell: Tell) -> None:
    """Make the table of a `job` at `path`, which is written at the end, atomically.

    Each part is kept in a folder beside `path` when it is done, unless there is only one. After a kill the
    parts are taken up, and the table gets the bytes that it would have had. `tell` hears of that. Errors that
    come back with the same table and model leave no parts.
    """
    if job.rows <= PART_ROWS:
        job.write(path, HeldParts(list(job.parts(0))))
        return
    with StoredParts.of(path, {**job.about, "number of rows": [job.rows, PART_ROWS]}, tell) as kept:
        if kept.rows:
            tell(f"taking up at row {kept.rows:,} of {job.rows:,}")
            job.restore(kept.state)
        try:
            for columns in job.parts(kept.rows):
                kept.append(columns, job.state)
            job.write(path, kept)
        except (DataError, IntegrationError):
            kept.discard()
            raise
        except BaseException:
            if kept.rows:
                tell(
                    f"{kept.rows:,} of {job.rows:,} rows are kept in {kept.folder}; the same command goes on "
                    "from there"
                )
            raise
        kept.discard()


def about_run(run: Run) -> dict[str, Any]:
    """What all that comes of a `run` depends on: its weights, its configuration, flowbench and torch."""
    stored = StoredRun(run)
    described = to_json({"config": stored.config.model_dump(), "dataset": stored.dataset})
    return {
        "version": [__version__, torch.__version__],
        "run": [sha256_of(run.path / MODEL), hashlib.sha256(described.encode()).hexdigest()],
    }


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
