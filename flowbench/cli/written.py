"""Writing the table that a command makes: to its path, or to standard output."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flowbench.cli import terminal
from flowbench.errors import ConfigurationError

if TYPE_CHECKING:
    from flowbench.store import Run


class Writable(Protocol):
    """A table that can be written."""

    def save(self, path: Path, run: "Run") -> None:
        """Write it in the format of the path's ending."""
        ...


def refuse_two_answers(output: Path | None, json: bool) -> None:
    """Refuse a table and an answer that would both go to standard output."""
    from flowbench.workflows.output import STDOUT

    if output == STDOUT and json:
        raise ConfigurationError(
            "`-o -` writes the table to standard output, and so does `--json` its answer"
        )


def save_table(table: Writable, path: Path, run: "Run") -> None:
    """Write a table to its path, or as CSV to standard output."""
    with written_file(path) as file:
        table.save(file, run)


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Yield the path to write a table to; for standard output that of a CSV file, which is then printed."""
    from flowbench.workflows.output import STDOUT

    if path != STDOUT:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        yield file
        terminal.print_file(file)
