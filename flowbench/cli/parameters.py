"""The arguments and single options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flowbench.cli.completion import complete_dataset, complete_model, complete_run
from flowbench.registry import MODELS, SERIES_MODELS

HomeOption = Annotated[
    Path, typer.Option("--home", file_okay=False, help="Folder with runs/, reports/ and datasets/ in it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A data set's name or a table's path; - for standard input.", autocompletion=complete_dataset
    ),
]
OptionalDatasetArgument = Annotated[
    str | None,
    typer.Argument(
        help="A data set's name or a table's path, - for standard input; may stand in the file of --config.",
        autocompletion=complete_dataset,
    ),
]
DatasetsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Names or paths of data sets; - for standard input.", autocompletion=complete_dataset
    ),
]
TableArgument = Annotated[
    str,
    typer.Argument(
        help="A table's path or a data set's name; - for standard input.", autocompletion=complete_dataset
    ),
]
RunArgument = Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=complete_run)]
RunsArgument = Annotated[
    list[str], typer.Argument(help="Names or folders of runs.", autocompletion=complete_run)
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(MODELS.names())} (default: cnf); of series, one of "
        f"{', '.join(SERIES_MODELS.names())} (default: latent-ode).",
        autocompletion=complete_model,
    ),
]
ModelsOption = Annotated[
    str | None,
    typer.Option(
        help=f"Models, comma-separated, of {', '.join(MODELS.names())} (default: cnf,planar,gaussian); of "
        f"series, of {', '.join(SERIES_MODELS.names())} (default: latent-ode,rnn-dt,gp)."
    ),
]
GivenOption = Annotated[
    str | None,
    typer.Option(help="Values of the given columns, such as a=1.5,b=2, or a table that has them."),
]
TimesOption = Annotated[
    str | None,
    typer.Option(help="Times of series: start:end:step, such as 0:10:0.1, or times with commas."),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="Columns of the table to use, comma-separated; names with commas in quotes."),
]
DrawSeedOption = Annotated[int, typer.Option(min=0, help="Seed of the draw.")]
ReportNameOption = Annotated[str | None, typer.Option(help="Name of the report's folder in reports/.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write: .h5, .csv, .tsv, .csv.gz, .parquet, .feather; - for CSV on standard output.",
    ),
]
OutputFolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write (default: in reports/).")
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
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
