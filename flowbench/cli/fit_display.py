"""What the user sees of fits: their configurations and their progress."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowbench.cli import terminal
from flowbench.cli.interruption import StopRequest
from flowbench.cli.progress_line import ProgressLine

if TYPE_CHECKING:
    from flowbench.store import Run
    from flowbench.workflows.config import RunConfig
    from flowbench.workflows.preparation import Watch
    from flowbench.workflows.series_config import SeriesConfig

#: The exit code of a command that was interrupted.
INTERRUPTED = 130


def watch_fit(line: ProgressLine, stop: StopRequest, farewell: Callable[["Run"], str]) -> "Watch":
    """A `Watch` that shows a fit on `line` and stops it when `stop` is set.

    `farewell` makes the message of an interruption from the run.
    """
    from flowbench.workflows.preparation import Watch

    def start(run: "Run") -> None:
        terminal.say(f"run folder: {run.path}")
        stop.training, stop.farewell = True, farewell(run)

    def stage(name: str) -> None:
        stop.training = False
        line.stage(name)

    return Watch(
        on_preparation=line.prepare,
        on_choice=line.warn,
        on_start=start,
        on_progress=line.update,
        on_stage=stage,
        on_warning=line.warn,
        should_stop=stop,
    )


def print_config(config: "RunConfig | SeriesConfig", json: bool) -> None:
    """Print one configuration, as TOML unless `json`."""
    if json:
        terminal.print_json(config.to_values())
    else:
        terminal.print_toml(config.to_values())


def label_of(config: "RunConfig | SeriesConfig") -> str:
    """What a fit is called while it is under way, such as "moons cnf (seed 0)"."""
    return f"{Path(config.data.dataset).name} {config.model_name} (seed {config.seed})"


def command_line() -> list[str]:
    """The command that the user typed, which a run keeps."""
    return ["flowbench", *sys.argv[1:]]
