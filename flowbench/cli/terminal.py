"""Answers on stdout and messages on stderr."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from flowbench.errors import RunFailedError


def cleaned(text: str) -> str:
    """`text` on one line, without characters that move a cursor, hide letters or turn their order round.

    Such characters come from the names of files and columns, and from what libraries say of them.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def say(text: str) -> None:
    """Write a message to stderr, on one line."""
    line = " ".join(text.split())
    if line:
        _put(sys.stderr, cleaned(line))


def warn(text: str) -> None:
    """Write a message to stderr that tells of something amiss."""
    say(f"warning: {text}")


def print_text(text: str) -> None:
    """Write text to stdout, each of its lines `cleaned`."""
    _put(sys.stdout, "\n".join(map(cleaned, text.split("\n"))))


def print_file(path: Path) -> None:
    """Copy a file to stdout, byte for byte."""
    with path.open("rb") as file:
        while block := file.read(2**20):
            _put(sys.stdout, block)


def print_path(path: str) -> None:
    """Write the path of what was made to stdout: byte for byte for a script, `cleaned` on a terminal."""
    if sys.stdout.isatty():
        print_text(path)
    else:
        # A path need not be text.
        _put(sys.stdout, os.fsencode(path) + b"\n")


def print_json(value: Any) -> None:
    """Write `value` to stdout as JSON; numbers that JSON cannot hold become null."""
    from flowbench.store.documents import to_json

    print_text(to_json(value, indent=2))


def print_toml(values: dict[str, Any]) -> None:
    """Write `values` to stdout as TOML, from which a reader gets the same values."""
    import tomli_w

    # Characters that are not printable stand in quoted strings, where TOML has these escapes for them.
    lines = tomli_w.dumps(values).rstrip().split("\n")
    print_text(
        "\n".join("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in line) for line in lines)
    )


def print_answer(values: dict[str, Any], path: str, json: bool) -> None:
    """Write the answer of a command that makes files: `values` as JSON, or else the `path`."""
    if json:
        print_json(values)
    else:
        print_path(path)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout: aligned on a terminal, tab-separated lines elsewhere."""
    rows = [[cleaned(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _put(sys.stdout, "\n".join("\t".join(row) for row in (columns, *rows)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _put(stream: TextIO, content: str | bytes) -> None:
    """Write bytes as they are, or a line of text.

    Raises `RunFailedError` if an answer cannot be written; a message that cannot is given up.
    """
    try:
        if isinstance(content, bytes):
            stream.flush()
            stream.buffer.write(content)
        else:
            stream.write(content + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader has left. What else is written goes nowhere, so that neither this work nor Python's
        # exit fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except OSError as error:
        if stream is sys.stdout:
            # Python's exit would fail on what it could not write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise RunFailedError(f"cannot write the answer to stdout: {error.strerror}") from error
