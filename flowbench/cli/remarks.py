"""Remarks that several commands make: how to resume a run, what the likelihood of a cell means."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowbench.cli import terminal

if TYPE_CHECKING:
    from flowbench.store import Run

#: A message names at most this many columns, or reasons, one by one.
MOST_NAMED = 5


def say_dequantised(names: Sequence[str]) -> None:
    """Name the columns that were dequantised, if any, and say what a log-likelihood means with them."""
    if names:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        terminal.say(
            f"values of {', '.join(names[:MOST_NAMED])}{more} are rounded, and each stands for an interval, "
            "its cell: a log-likelihood is the mean log-density over the row's cell, a lower bound of the "
            "log of the mean density there"
        )


def resume_command(run: "Run", home: Path) -> str:
    """The command that goes on with a run."""
    name = run.name if run.path == home / "runs" / run.name else str(run.path)
    command = ["flowbench", "fit", "--resume", name, *(["--home", str(home)] if home != Path() else [])]
    return shlex.join(command)
