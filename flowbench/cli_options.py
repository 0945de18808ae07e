"""The arguments and options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flowbench.registry import FLOWS, TOYS


def _complete_dataset(incomplete: str) -> list[str]:
    return [name for name in TOYS.names() if name.startswith(incomplete)]


def _complete_run(incomplete: str) -> list[str]:
    return [path.name for path in sorted(Path("runs").glob(f"{incomplete}*")) if path.is_dir()]


HomeOption = Annotated[Path, typer.Option("--home", help="Folder with runs/, reports/ and datasets/ in it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DatasetArgument = Annotated[
    str, typer.Argument(help="A data set's name or a table's path.", autocompletion=_complete_dataset)
]
RunArgument = Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=_complete_run)]
PresetOption = Annotated[str, typer.Option(help="A recipe: default, or ffjord for cnf.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with options, as in a run folder.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="part.option=value, such as flow.field.width=128; repeatable."),
]
BudgetOption = Annotated[str | None, typer.Option("--time-budget", help="Training time: 60s, 5m, 1h.")]
StepsOption = Annotated[int | None, typer.Option(help="Training steps.")]
ColumnsOption = Annotated[str | None, typer.Option(help="Columns of the table, comma-separated.")]
RowsOption = Annotated[int | None, typer.Option(help="Rows to draw of a toy density.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of weights, batches and samples.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write: .h5, .csv, .csv.gz or .parquet.")
]
OptionalDatasetArgument = Annotated[
    str | None, typer.Argument(help="A data set's name or a table's path.", autocompletion=_complete_dataset)
]
DatasetsArgument = Annotated[
    list[str], typer.Argument(help="Names or paths of data sets.", autocompletion=_complete_dataset)
]
TableArgument = Annotated[str, typer.Argument(help="A table's path or a data set's name.")]
RunsArgument = Annotated[
    list[str], typer.Argument(help="Names or folders of runs.", autocompletion=_complete_run)
]
ModelOption = Annotated[str | None, typer.Option(help=f"One of {', '.join(FLOWS.names())} (default: cnf).")]
ModelsOption = Annotated[str, typer.Option(help="Models, comma-separated.")]
NameOption = Annotated[str | None, typer.Option(help="Name of the run's folder in runs/.")]
ReportNameOption = Annotated[str | None, typer.Option(help="Name of the report's folder in reports/.")]
ResumeOption = Annotated[
    str | None, typer.Option(help="Go on with this interrupted run.", autocompletion=_complete_run)
]
OutputFolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write (default: in reports/).")
]
