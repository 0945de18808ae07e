"""The commands `flowbench datasets list`, `show`, `check` and `fetch`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.completion import complete_benchmark
from flowbench.cli.option_groups import ONLY_FOR_FITS, ReadingOptions, split_names, with_options
from flowbench.cli.progress_line import ProgressLine
from flowbench.cli.standard_input import lent_stdin
from flowbench.registry import BENCHMARKS

if TYPE_CHECKING:
    from flowbench.data import ColumnSchema

datasets_app = typer.Typer(help="List, describe and fetch data sets.")


@datasets_app.command("list")
def print_datasets(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name every data set there is.

    These are the toy densities, scikit-learn's tables, the files in datasets/, and benchmarks to fetch.
    """
    from flowbench import data
    from flowbench.workflows.home import Home

    found = data.list_datasets(Home(home).datasets)
    if json:
        terminal.print_json([asdict(one) for one in found])
        return
    rows = [(d.name, d.kind, str(d.rows or "-"), str(d.columns or "-"), d.description) for d in found]
    terminal.print_table(("name", "kind", "rows", "columns", "description"), rows)


@datasets_app.command("show")
@with_options(without=ONLY_FOR_FITS)
def print_dataset(
    dataset: opt.DatasetArgument,
    columns: opt.ColumnsOption = None,
    *,
    reading: ReadingOptions,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Describe a data set.

    Says where it is from, each column's range and spread, and how many of its cells no model takes, since
    they are missing, infinite or text; of a toy, also its entropy.
    """
    from flowbench import data
    from flowbench.workflows.home import Home

    given, chosen = data.ReadOptions(**reading.given()), split_names(columns, "--columns")
    with lent_stdin(dataset) as lent:
        described = data.describe_dataset(lent, columns=chosen, folder=Home(home).datasets, reading=given)
    for note in described.notes:
        terminal.say(f"{described.name}: {note}")
    if json:
        terminal.print_json(asdict(described))
        return
    source = described.provenance
    terminal.print_text(f"{described.name}: {described.rows:,} rows, {len(described.columns)} columns")
    if source.description:
        terminal.print_text(source.description)
    licence = f"; licence: {source.licence}" if source.licence else ""
    terminal.print_text(f"source: {source.source}{licence}; sha256 {source.sha256}")
    if described.entropy is not None:
        terminal.print_text(f"entropy: {described.entropy:.6f} nats")
    for figure in described.published:
        terminal.print_text(f"published test NLL: {figure.model} {figure.nll:.2f} nats ({figure.source})")
    numbers = [
        (
            c.name,
            *("-" if value is None else f"{value:.6g}" for value in (c.minimum, c.maximum, c.mean, c.sd)),
            f"{c.distinct}",
            f"{c.unfit}",
        )
        for c in described.columns
    ]
    terminal.print_table(("column", "min", "max", "mean", "sd", "distinct", "unfit"), numbers)


@datasets_app.command("check")
@with_options(without=ONLY_FOR_FITS)
def print_schema(
    dataset: opt.DatasetArgument,
    columns: opt.ColumnsOption = None,
    *,
    reading: ReadingOptions,
    schema: Annotated[
        Path | None,
        typer.Option(help="TOML file with what the columns are: made for editing, or read if it is there."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of a file to draw at random (default: all).")
    ] = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Say what each column of a table is, with the evidence.

    That is its kind, its support, values with a probability mass, missing cells, spacing and tails. Then come
    rows that repeat, and columns that follow from others.
    """
    from flowbench import data
    from flowbench.workflows.checking import check_with_file
    from flowbench.workflows.home import Home

    given, chosen = data.ReadOptions(**reading.given()), split_names(columns, "--columns")
    with lent_stdin(dataset) as lent:
        found, is_new = check_with_file(
            lent, columns=chosen, folder=Home(home).datasets, reading=given, file=schema, rows=rows
        )
    for note in found.notes:
        terminal.say(f"{found.name}: {note}")
    if is_new:
        terminal.say(f"{schema} holds what was found; edit it, and name it again with `--schema`")
    if json:
        terminal.print_json(found.to_values())
        return
    terminal.print_text(f"{found.name}: {found.rows:,} rows, {len(found.columns)} columns")
    headings = ("column", "kind", "support", "atoms", "missing", "spacing", "tails", "evidence")
    terminal.print_table(headings, [_described(column) for column in found.columns])
    repeated = f"{found.repeated_rows:,} of {found.rows:,}"
    terminal.print_text(f"rows that repeat an earlier row, identifiers aside: {repeated}")
    for relation in found.relations:
        terminal.print_text(str(relation))


@datasets_app.command("fetch")
def fetch_datasets(
    names: Annotated[
        list[str],
        typer.Argument(
            help=f"Benchmarks: {', '.join(BENCHMARKS.names())}.", autocompletion=complete_benchmark
        ),
    ],
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Download benchmark tables and preprocess them as published, into datasets/.

    All five are in one archive. A download that is interrupted goes on from where it was.
    """
    from flowbench.workflows.fetching import FetchWatch, downloads_folder, fetch_benchmark
    from flowbench.workflows.home import Home

    folder = Home(home).datasets
    paths = []
    with ProgressLine("download") as line:
        watch = FetchWatch(tell=terminal.say, on_bytes=line.transfer)
        try:
            for name in dict.fromkeys(names):
                paths.append(fetch_benchmark(name, folder, watch))
        except KeyboardInterrupt:
            terminal.say(
                f"interrupted; what was downloaded is kept in {downloads_folder(folder)}, and the same "
                "command goes on from there"
            )
            raise
    if json:
        terminal.print_json([{"name": path.stem, "path": str(path)} for path in paths])
        return
    for path in paths:
        terminal.print_path(str(path))


def _described(column: "ColumnSchema") -> tuple[str, ...]:
    """A line of the table: `-` for what the column's kind does not have, or what cannot be told."""
    from flowbench.data.schema import SUPPORTED

    return (
        column.name,
        column.kind,
        str(column.support) if column.kind in SUPPORTED else "-",
        ", ".join(f"{each.value:g} ({each.share:.1%})" for each in column.atoms) or "-",
        f"{column.missing:,} ({column.missing_share:.1%})" if column.missing else "-",
        "-" if column.spacing is None else f"{column.spacing:g}",
        column.tails or "-",
        "; ".join((*column.because, *column.overridden)),
    )
