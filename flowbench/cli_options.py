"""The arguments and options that commands share, what completes them, and how their texts are read."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flowbench.errors import ConfigurationError
from flowbench.registry import FLOWS


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
    str, typer.Argument(help="A data set's name or a table's path.", autocompletion=_complete_dataset)
]
OptionalDatasetArgument = Annotated[
    str | None,
    typer.Argument(
        help="A data set's name or a table's path; may stand in the file of --config instead.",
        autocompletion=_complete_dataset,
    ),
]
DatasetsArgument = Annotated[
    list[str], typer.Argument(help="Names or paths of data sets.", autocompletion=_complete_dataset)
]
TableArgument = Annotated[
    str, typer.Argument(help="A table's path or a data set's name.", autocompletion=_complete_dataset)
]
RunArgument = Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=_complete_run)]
RunsArgument = Annotated[
    list[str], typer.Argument(help="Names or folders of runs.", autocompletion=_complete_run)
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(FLOWS.names())} (default: cnf).",
        autocompletion=lambda incomplete: _starting(FLOWS.names(), incomplete),
    ),
]
ModelsOption = Annotated[str, typer.Option(help=f"Models, comma-separated, of {', '.join(FLOWS.names())}.")]
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
ColumnsOption = Annotated[str | None, typer.Option(help="Columns of the table to use, comma-separated.")]
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
    Path | None, typer.Option("--output", "-o", help="File to write: .h5, .csv, .csv.gz or .parquet.")
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        help="Largest error of a row, nats: rows above it are solved finer, where no columns are "
        "dequantised, or flagged.",
    ),
]
EvaluationSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="evaluation.option=value, such as evaluation.integrator.rtol=1e-7."),
]
OutputFolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write (default: in reports/).")
]


def overrides(
    time_budget: str | None,
    steps: int | None,
    columns: str | None,
    dequantise: str | None,
    rows: int | None,
    threads: int | None,
    device: str | None,
    seed: int | None = None,
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
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConfigurationError(f"`{option}` takes names with commas between them; got `{text}`")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`{option}` names one thing twice; got `{text}`")
    return names
