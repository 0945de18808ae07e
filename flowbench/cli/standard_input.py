"""A table that is piped into a command, where `-` stands for its path."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flowbench.cli import terminal


def kept_stdin(dataset: str, folder: Path) -> str:
    """Return `dataset`; if it is "-", save standard input in `folder` and return the path of that file.

    A fit needs the file later: `score`, `evaluate` and `--resume` read the table again.
    """
    if dataset != "-":
        return dataset
    from flowbench.data import keep_stream

    path = keep_stream(sys.stdin.buffer, folder)
    terminal.say(f"standard input is kept in {path}")
    return str(path)


@contextmanager
def lent_stdin(dataset: str) -> Iterator[str]:
    """Yield `dataset`; if it is "-", save standard input in a file for the block, and yield its path."""
    if dataset != "-":
        yield dataset
        return
    from flowbench.data import keep_stream

    with TemporaryDirectory() as folder:
        yield str(keep_stream(sys.stdin.buffer, Path(folder)))
