"""A line that shows the progress of a long task."""

import math
import sys
import time
from typing import TYPE_CHECKING, Any

from flowbench.cli.terminal import cleaned, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from flowbench.training.progress import Progress as TrainingProgress

#: Seconds between progress lines where there is no terminal to redraw.
PLAIN_INTERVAL = 5.0


class ProgressLine:
    """Shows the progress of a long task.

    On a terminal, it is one line that is redrawn. Elsewhere, it is a new line every few seconds.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar = _make_bar()
        self._task: Any = None
        self._last = -math.inf
        self._begun = time.monotonic()
        #: When counting began, and how many bytes or rows were there then.
        self._counted: tuple[float, int] | None = None

    def __enter__(self) -> "ProgressLine":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(cleaned(self._label), total=1.0, text="preparing")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, label: str) -> None:
        """Show another fit from now on."""
        self._label, self._last, self._begun = label, -math.inf, time.monotonic()
        if self._bar:
            self._bar.update(self._task, description=cleaned(label), completed=0.0, text="preparing")

    def prepare(self, text: str) -> None:
        """Show what is done before training; elsewhere than on a terminal, only once it has taken long."""
        if self._bar or time.monotonic() - self._begun >= PLAIN_INTERVAL:
            self._show(0.0, text)

    def update(self, progress: "TrainingProgress") -> None:
        """Show the progress of training."""
        self._show(progress.fraction, describe(progress))

    def count(self, done: int, total: int, noun: str = "rows") -> None:
        """Show how many rows, or other things called `noun`, are done."""
        if done < total:
            self._show(done / total, f"{done:,} of {total:,} {noun}")

    def pace(self, done: int, total: int) -> None:
        """Show how many rows are done, how many a second, and how long the others take at that."""
        speed = self._speed(done)
        left = f", {speed:,.0f} rows/s, {(total - done) / speed:,.0f} s left" if speed else ""
        if done < total:
            self._show(done / total, f"{done:,} of {total:,} rows{left}")

    def transfer(self, done: int, total: int | None) -> None:
        """Show how many bytes of a download are there, and how long the rest takes at the speed so far."""
        speed = self._speed(done)
        text = f"{done / 1e6:,.1f} MB"
        if total is not None:
            left = f", {(total - done) / speed:,.0f} s left" if speed else ""
            text = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB{left}"
        self._show(done / total if total else 0.0, text)

    def _speed(self, done: int) -> float:
        """How many bytes or rows a second have come since counting began, now that `done` are there."""
        now = time.monotonic()
        begun = self._counted = self._counted or (now, done)
        return (done - begun[1]) / max(now - begun[0], 1e-9)

    def stage(self, name: str) -> None:
        """Show what is being done after training."""
        if self._bar:
            self._bar.update(self._task, completed=1.0, text=cleaned(name))
        else:
            say(f"{self._label}: {name}")

    def warn(self, text: str) -> None:
        """Write a message that stays when the line is gone."""
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
    # rich takes stderr for a terminal if FORCE_COLOR is set, as it is in CI, where stderr is a log.
    if not sys.stderr.isatty() or not console.is_terminal or console.is_dumb_terminal:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(12, table_column=Column(no_wrap=True)),
        # On a narrow terminal, the text is wrapped and not cut.
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=False)),
        console=console,
        transient=True,
    )


def describe(progress: "TrainingProgress") -> str:
    """Progress in one line: step, objective, validation NLL, nfe, rows per second and time left."""
    parts = [f"step {progress.step:,}", progress.objective]
    if math.isfinite(progress.validation_nll):
        best = f" (best {progress.best_nll:.4f})" if progress.best_nll < progress.validation_nll else ""
        parts.append(f"validation NLL {progress.validation_nll:.4f}{best}")
    elif progress.step:
        parts.append("validation NLL not finite")
    if progress.nfe is not None:
        parts.append(f"nfe {progress.nfe}")
    if progress.step:
        parts += [f"{progress.rows_per_second:,.0f} {progress.noun}/s", f"{progress.seconds_left:.0f} s left"]
    return ", ".join(parts)
