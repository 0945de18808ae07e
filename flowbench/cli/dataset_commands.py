"""The commands `flowbench datasets list` and `flowbench datasets show`."""

from dataclasses import asdict
from pathlib import Path

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.option_groups import ONLY_FOR_FITS, ReadingOptions, split_names, with_options
from flowbench.cli.standard_input import lent_stdin

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
