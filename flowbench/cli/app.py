"""The application: its commands, and the exit codes with which errors end."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from flowbench import __version__, errors
from flowbench.cli import terminal
from flowbench.cli.dataset_commands import datasets_app
from flowbench.cli.doctor_command import doctor
from flowbench.cli.fit_command import fit
from flowbench.cli.model_commands import evaluate, sample, score, tradeoff
from flowbench.cli.report_commands import compare, report
from flowbench.cli.reproduce_command import reproduce
from flowbench.cli.run_commands import runs_app
from flowbench.cli.series_commands import impute, predict

#: The exit code for each class of errors; the first match counts.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.RunFailedError, 1),
    (errors.ConfigurationError, 2),
    (errors.DataError, 3),
    (errors.RunExistsError, 4),
    (errors.RunLockedError, 4),
    (errors.DamagedFileError, 5),
)
FAILED, USAGE, INTERNAL = 1, 2, 70

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
# Help lists them in this order.
for command in (fit, sample, score, predict, impute, evaluate, tradeoff, compare, report, reproduce, doctor):
    app.command()(command)
app.add_typer(datasets_app, name="datasets")
app.add_typer(runs_app, name="runs")


def main() -> None:
    """Run the command line and exit with the documented code."""
    # A path may hold characters that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run_app(sys.argv[1:]))


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; an error that flowbench raises becomes a line on stderr."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="flowbench", standalone_mode=False)
        return int(code or 0)
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "flowbench")
        terminal.say(f"error: {error.format_message().rstrip('.')}; see `{command} --help`")
        return USAGE
    except errors.FlowbenchError as error:
        terminal.say(f"error: {error}")
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), INTERNAL)
    except Exception as error:
        if os.environ.get("FLOWBENCH_DEBUG"):
            traceback.print_exc()
        if _is_out_of_memory(error):
            terminal.say("error: out of memory; use fewer rows, a smaller model or a smaller `batch_size`")
            return FAILED
        hint = "set FLOWBENCH_DEBUG=1 for the traceback, and please report it"
        terminal.say(f"internal error: {type(error).__name__}: {error}; {hint}")
        return INTERNAL


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises a RuntimeError of its own, and a subclass of it on a GPU.
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.print_text(f"flowbench {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Learn a table's density with continuous normalizing flows, and compare them with others."""
