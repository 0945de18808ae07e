"""The arguments and options that commands share, what completes them, and how their texts are read."""

import csv
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from flowbench.cli import terminal
from flowbench.errors import ConfigurationError
from flowbench.registry import MODELS


def _complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    from flowbench.data import dataset_names

    return _starting(dataset_names(_home(context) / "datasets"), incomplete) + _complete_path(incomplete)


def _complete_run(context: typer.Context, incomplete: str) -> list[str]:
    names = sorted(path.parent.name for path in (_home(context) / "runs").glob("*/run.json"))
    return _starting(names, incomplete) + _complete_path(incomplete)


def _complete_path(incomplete: str) -> list[str]:
    """Visible files, and folders with a separator behind them."""
    folder, _, start = incomplete.rpartition(os.sep)
    above = f"{folder}{os.sep}" if os.sep in incomplete else ""
    try:
        found = sorted(os.scandir(above or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    names = [entry.name + os.sep * entry.is_dir() for entry in found if not entry.name.startswith(".")]
    return [above + name for name in _starting(names, start)]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _home(context: typer.Context) -> Path:
    return Path(context.params.get("home") or "")


HomeOption = Annotated[
    Path, typer.Option("--home", file_okay=False, help="Folder with runs/, reports/ and datasets/ in it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A data set's name or a table's path; - for standard input.", autocompletion=_complete_dataset
    ),
]
OptionalDatasetArgument = Annotated[
    str | None,
    typer.Argument(
        help="A data set's name or a table's path, - for standard input; may stand in the file of --config.",
        autocompletion=_complete_dataset,
    ),
]
DatasetsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Names or paths of data sets; - for standard input.", autocompletion=_complete_dataset
    ),
]
TableArgument = Annotated[
    str,
    typer.Argument(
        help="A table's path or a data set's name; - for standard input.", autocompletion=_complete_dataset
    ),
]
RunArgument = Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=_complete_run)]
RunsArgument = Annotated[
    list[str], typer.Argument(help="Names or folders of runs.", autocompletion=_complete_run)
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(MODELS.names())} (default: cnf).",
        autocompletion=lambda incomplete: _starting(MODELS.names(), incomplete),
    ),
]
ModelsOption = Annotated[str, typer.Option(help=f"Models, comma-separated, of {', '.join(MODELS.names())}.")]
PresetOption = Annotated[str, typer.Option(help="A recipe: default, or ffjord for cnf.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with options, such as a run's config.toml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="part.option=value, such as flow.field.width=128; repeatable."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        help="Training time: 60s, 5m, 1h (default: 60s, unless --steps or the preset sets steps).",
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Training steps.")]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="Columns of the table to use, comma-separated; names with commas in quotes."),
]
DequantiseOption = Annotated[
    str | None,
    typer.Option(
        help="Spread columns of evenly spaced values over their cells: auto (the default: where most values "
        "repeat), none, or spacings such as age=1,height=0.1.",
    ),
]
RowsOption = Annotated[int | None, typer.Option(help="Rows to draw of a toy density.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads (default: 1).")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu (the default) or cuda.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of weights, batches and samples.")]
DrawSeedOption = Annotated[int, typer.Option(min=0, help="Seed of the draw.")]
NameOption = Annotated[str | None, typer.Option(help="Name of the run's folder in runs/.")]
ReportNameOption = Annotated[str | None, typer.Option(help="Name of the report's folder in reports/.")]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        help="Go on with this interrupted run, as it was, or with --set evaluation.option=value.",
        autocompletion=_complete_run,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write: .h5, .csv, .tsv, .csv.gz, .parquet, .feather; - for CSV on standard output.",
    ),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        help="Largest error of a row, nats: rows above it are solved finer, where no columns are "
        "dequantised, or flagged.",
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Stop at the first row that cannot be scored, and write nothing."),
]
EvaluationSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="evaluation.option=value, such as evaluation.integrator.rtol=1e-7."),
]
OutputFolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write (default: in reports/).")
]

#: How a table's file is read: the options, by their names in `flowbench.data.ReadOptions`.
_READING: dict[str, Any] = {
    "header": Annotated[str | None, typer.Option(help="Whether the first line holds names: yes or no.")],
    "separator": Annotated[
        str | None,
        typer.Option(help="What separates cells: a character, or comma, semicolon, tab, pipe, blanks."),
    ],
    "decimal": Annotated[str | None, typer.Option(help="The decimal sign: a point or a comma.")],
    "thousands": Annotated[
        str | None,
        typer.Option(help="What stands between thousands: a character, or comma, point, blank, apostrophe."),
    ],
    "encoding": Annotated[str | None, typer.Option(help="The encoding of the text, such as cp1252.")],
    "date_format": Annotated[
        list[str] | None, typer.Option(help="How dates are written, such as %d.%m.%Y; repeatable.")
    ],
    "missing_values": Annotated[
        list[str] | None,
        typer.Option("--missing-value", help="A cell that holds nothing, such as -999; repeatable."),
    ],
    "missing": Annotated[
        str | None,
        typer.Option(help="Rows with missing cells: refuse (the default) the table, or drop them."),
    ],
    "keep": Annotated[
        str | None,
        typer.Option(help="Columns whose values are numbers as they stand, whatever they look like."),
    ],
    "group": Annotated[
        str | None, typer.Option(help="Keep rows that agree in this column in one part of the split.")
    ],
}
#: Those that make no sense where rows are only looked at or scored.
OF_A_FIT = ("missing", "group")


def with_reading(*without: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that say how a table's file is read, taken as `reading`."""

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        options = {name: kind for name, kind in _READING.items() if name not in without}

        @wraps(command)
        def call(*arguments: Any, **values: Any) -> Any:
            given = {name: values.pop(name) for name in options}
            if "keep" in given:
                given["keep"] = listed(given["keep"], "--keep")
            told = {name: value for name, value in given.items() if value is not None}
            return command(*arguments, reading=told, **values)

        signature = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != "reading":
                parameters.append(parameter)
                continue
            parameters += [
                inspect.Parameter(name, parameter.kind, default=None, annotation=kind)
                for name, kind in options.items()
            ]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call

    return give


#: Stands in a command's signature where `with_reading` puts the options.
Reading = dict[str, Any]
NOTHING: Reading = {}


def kept_stdin(dataset: str, folder: Path) -> str:
    """The path of the file in `folder` that keeps standard input, where `dataset` is "-"; else `dataset`."""
    if dataset != "-":
        return dataset
    from flowbench.data import keep_stream

    path = keep_stream(sys.stdin.buffer, folder)
    terminal.say(f"standard input is kept in {path}")
    return str(path)


@contextmanager
def lent_stdin(dataset: str) -> Iterator[str]:
    """The path of a file that holds standard input inside the block, where `dataset` is "-"."""
    if dataset != "-":
        yield dataset
        return
    from flowbench.data import keep_stream

    with TemporaryDirectory() as folder:
        yield str(keep_stream(sys.stdin.buffer, Path(folder)))


def overrides(
    time_budget: str | None,
    steps: int | None,
    columns: str | None,
    dequantise: str | None,
    rows: int | None,
    threads: int | None,
    device: str | None,
    seed: int | None,
    reading: Reading,
) -> dict[str, Any]:
    """The options that `fit` and `compare` share, under their names in the configuration."""
    return {
        "plan.seconds": parse_duration(time_budget) if time_budget is not None else None,
        "plan.steps": steps,
        "data.columns": listed(columns, "--columns"),
        "data.dequantise": dequantise,
        "data.rows": rows,
        "threads": threads,
        "device": device,
        "seed": seed,
        **{f"data.{name}": value for name, value in reading.items()},
    }


def parse_duration(text: str) -> float:
    """Seconds in "90", "90s", "1.5m" or "2h"; raises `ConfigurationError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if not match or float(match[1]) == 0:
        raise ConfigurationError(f"`--time-budget` takes a time such as 60s, 5m or 1h; got `{text}`")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def listed(text: str | None, option: str) -> list[str] | None:
    """The names in "a, b"; raises `ConfigurationError` where there are none, or one stands twice."""
    if text is None:
        return None
    names = [name.strip() for line in csv.reader([text], skipinitialspace=True) for name in line]
    if not names or not all(names):
        raise ConfigurationError(f"`{option}` takes names with commas between them; got `{text}`")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`{option}` names one thing twice; got `{text}`")
    return names
