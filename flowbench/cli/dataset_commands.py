"""The commands `flowbench datasets list`, `flowbench datasets show` and `flowbench datasets check`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.option_groups import ONLY_FOR_FITS, ReadingOptions, split_names, with_options
from flowbench.cli.standard_input import lent_stdin

if TYPE_CHECKING:
    from flowbench.data import ColumnSchema

datasets_app = typer.Typer(help="List and describe data sets.")


@datasets_app.command("list")
def print_datasets(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name every data set there is.

    These are the toy densities, scikit-learn's tables, and the files in datasets/.
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
            lent, columns=chosen, folder=Home(home).datasets, reading=given, file=schema
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
