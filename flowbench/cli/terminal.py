"""What a person at a terminal sees: progress, tables, errors, and Ctrl-C."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from flowbench.errors import RunFailedError

if TYPE_CHECKING:
    from rich.progress import Progress

    from flowbench.training.progress import Progress as TrainingProgress

#: Seconds between progress lines where there is no terminal to redraw.
PLAIN_INTERVAL = 5.0


def cleaned(text: str) -> str:
    """`text` on one line, without what would move a cursor, hide letters or turn their order round.

    Such characters come from the names of files and columns, and from what libraries say of them.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def say(text: str) -> None:
    """A message on stderr, on one line."""
    line = " ".join(text.split())
    if line:
        _put(sys.stderr, cleaned(line))


def write(text: str) -> None:
    """A result on stdout, line by line `cleaned`."""
    _put(sys.stdout, "\n".join(map(cleaned, text.split("\n"))))


def write_file(path: Path) -> None:
    """The bytes of a file on stdout."""
    with path.open("rb") as file:
        while block := file.read(2**20):
            _put(sys.stdout, block)


def write_path(path: str) -> None:
    """The path of what was made, on stdout: byte for byte unless a person reads it, since scripts use it."""
    if sys.stdout.isatty():
        write(path)
    else:
        _put(sys.stdout, path, exact=True)


def write_json(value: Any) -> None:
    """A result on stdout as JSON; numbers that JSON cannot hold become null."""
    from flowbench.store.documents import to_json

    write(to_json(value, indent=2))


def write_toml(values: dict[str, Any]) -> None:
    """A result on stdout as TOML, which gives the same values when it is read again."""
    import tomli_w

    # Whatever is not printable stands between quotation marks, where TOML has these escapes.
    lines = tomli_w.dumps(values).rstrip().split("\n")
    write("\n".join("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in line) for line in lines))


def answer(values: dict[str, Any], path: str, json: bool) -> None:
    """A result on stdout: `values` as JSON, or else the `path` of what was made."""
    if json:
        write_json(values)
    else:
        write_path(path)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; plain tab-separated lines where that is not a terminal."""
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


def _put(stream: TextIO, line: str | bytes, exact: bool = False) -> None:
    try:
        if isinstance(line, bytes):
            stream.flush()
            stream.buffer.write(line)
        elif exact:  # a path need not be text
            stream.flush()
            stream.buffer.write(os.fsencode(line) + b"\n")
        else:
            stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader has left: say the rest to nobody, so that neither this work nor Python's exit fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except OSError as error:
        if stream is sys.stdout:
            # Nor may Python's exit fail on what it could not write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise RunFailedError(f"cannot write the answer to stdout: {error.strerror}") from None


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM while a fit trains; a second, or one at other times, interrupts."""

    def __init__(self) -> None:
        self.asked = False
        #: Whether there is a fit that hears the request.
        self.training = False
        #: What to say when interrupting.
        self.farewell = ""

    def __call__(self) -> bool:
        return self.asked

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        at_once = self.asked or not self.training
        self.asked = True
        text = "stopping after this step, keeping the best so far; press Ctrl-C again to stop at once"
        with suppress(RuntimeError):  # the signal came in the middle of another message
            say(self.farewell if at_once else text)
        if at_once:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a request to stop, if it can be heard."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class ProgressLine:
    """One line that follows a long task: redrawn on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar = _make_bar()
        self._task: Any = None
        self._last = -math.inf
        self._begun = time.monotonic()

    def __enter__(self) -> "ProgressLine":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(cleaned(self._label), total=1.0, text="preparing")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, label: str) -> None:
        """Follow another fit from here on."""
        self._label, self._last, self._begun = label, -math.inf, time.monotonic()
        if self._bar:
            self._bar.update(self._task, description=cleaned(label), completed=0.0, text="preparing")

    def prepare(self, text: str) -> None:
        """Show what is done before training, if that takes long."""
        if self._bar or time.monotonic() - self._begun >= PLAIN_INTERVAL:
            self._show(0.0, text)

    def update(self, progress: "TrainingProgress") -> None:
        """Show where training stands."""
        self._show(progress.fraction, describe(progress))

    def count(self, done: int, total: int, noun: str = "rows") -> None:
        """Show how many rows, or what else there are many of, are done."""
        if done < total:
            self._show(done / total, f"{done:,} of {total:,} {noun}")

    def stage(self, name: str) -> None:
        """Show what is being done after training."""
        if self._bar:
            self._bar.update(self._task, completed=1.0, text=cleaned(name))
        else:
            say(f"{self._label}: {name}")

    def warn(self, text: str) -> None:
        """Say what has to be known when the line is gone."""
        say(f"{self._label}: {text}")

    def _show(self, fraction: float, text: str) -> None:
        if self._bar:
            self._bar.update(self._task, completed=fraction, text=cleaned(text))
        elif time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            say(f"{self._label}: {text}")


def _make_bar() -> "Progress | None":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True, highlight=False)
    # rich believes variables such as FORCE_COLOR, which CI sets and which make no terminal of a log.
    if not sys.stderr.isatty() or not console.is_terminal or console.is_dumb_terminal:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(12, table_column=Column(no_wrap=True)),
        # Where the terminal is narrow, the rest goes on the next line instead of being cut.
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=False)),
        console=console,
        transient=True,
    )


def describe(progress: "TrainingProgress") -> str:
    """Step, objective, validation NLL, nfe, rows a second and time left, in one line."""
    parts = [f"step {progress.step:,}", progress.objective]
    if math.isfinite(progress.validation_nll):
        best = f" (best {progress.best_nll:.4f})" if progress.best_nll < progress.validation_nll else ""
        parts.append(f"validation NLL {progress.validation_nll:.4f}{best}")
    elif progress.step:
        parts.append("validation NLL not finite")
    if progress.nfe is not None:
        parts.append(f"nfe {progress.nfe}")
    if progress.step:
        parts += [f"{progress.rows_per_second:,.0f} rows/s", f"{progress.seconds_left:.0f} s left"]
    return ", ".join(parts)
