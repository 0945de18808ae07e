"""The commands `flowbench datasets` and `flowbench runs`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from flowbench import cli_options as opt
from flowbench import terminal

datasets_app = typer.Typer(help="List and describe data sets.")
runs_app = typer.Typer(help="List and describe runs.")


@datasets_app.command("list")
def list_datasets(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name every data set there is.

    These are the toy densities, scikit-learn's tables, and the files in datasets/.
    """
    from flowbench import data
    from flowbench.home import Home

    found = data.list_datasets(Home(home).datasets)
    if json:
        terminal.write_json([asdict(one) for one in found])
        return
    rows = [(d.name, d.kind, str(d.rows or "-"), str(d.columns or "-"), d.description) for d in found]
    terminal.write_table(("name", "kind", "rows", "columns", "description"), rows)


@datasets_app.command("show")
@opt.with_reading(*opt.OF_A_FIT)
def show_dataset(
    dataset: opt.DatasetArgument,
    columns: opt.ColumnsOption = None,
    reading: opt.Reading = opt.NOTHING,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Describe a data set.

    Says where it is from, each column's range and spread, and how many of its cells no model takes, since
    they are missing, infinite or text; of a toy, also its entropy.
    """
    from flowbench import data
    from flowbench.home import Home

    chosen = opt.listed(columns, "--columns")
    described = data.describe_dataset(
        dataset, columns=chosen, folder=Home(home).datasets, reading=data.ReadOptions(**reading)
    )
    for note in described.notes:
        terminal.say(f"{described.name}: {note}")
    if json:
        terminal.write_json(asdict(described))
        return
    source = described.provenance
    terminal.write(f"{described.name}: {described.rows:,} rows, {len(described.columns)} columns")
    if source.description:
        terminal.write(source.description)
    licence = f"; licence: {source.licence}" if source.licence else ""
    terminal.write(f"source: {source.source}{licence}; sha256 {source.sha256}")
    if described.entropy is not None:
        terminal.write(f"entropy: {described.entropy:.6f} nats")
    numbers = [
        (
            c.name,
            *("-" if value is None else f"{value:.6g}" for value in (c.minimum, c.maximum, c.mean, c.sd)),
            f"{c.distinct}",
            f"{c.unfit}",
        )
        for c in described.columns
    ]
    terminal.write_table(("column", "min", "max", "mean", "sd", "distinct", "unfit"), numbers)


@runs_app.command("list")
def list_runs(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name the runs in runs/, newest first."""
    from flowbench.home import Home
    from flowbench.store import list_runs as find_runs

    runs, warnings = find_runs(Home(home).runs)
    for warning in warnings:
        terminal.say(f"warning: {warning}")
    found = [(run, run.info) for run in runs]
    if json:
        terminal.write_json([{"name": run.name, "path": str(run.path), **info} for run, info in found])
        return
    rows = [(run.name, *_described(info), str(info.get("created", "-"))[:16]) for run, info in found]
    terminal.write_table(("name", "model", "dataset", "status", "started"), rows)


@runs_app.command("show")
def show_run(run: opt.RunArgument, json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Describe a run.

    Says how it ended and what was measured; with --json also its configuration.
    """
    from flowbench.home import Home

    opened = Home(home).run(run)
    metrics = opened.read_results().metrics if opened.has_results else {}
    if json:
        values = {name: asdict(metric) for name, metric in metrics.items()}
        terminal.write_json({"info": opened.info, "config": opened.config, "metrics": values})
        return
    info = opened.info
    model, dataset, status = _described(info)
    terminal.write(f"{opened.name}: {model} on {dataset}, {status}")
    if "error" in info and status == "failed":
        terminal.write(f"error: {info['error']}")
    terminal.write(f"folder: {opened.path}")
    rows = [(name, f"{metric.value:.6g}", metric.units) for name, metric in sorted(metrics.items())]
    if rows:
        terminal.write_table(("metric", "value", "units"), rows)


def _described(info: dict[str, Any]) -> tuple[str, str, str]:
    """Model, data set and status; a dash for what a foreign run does not say."""
    dataset = info.get("dataset")
    name = dataset.get("name", "-") if isinstance(dataset, dict) else "-"
    return str(info.get("model", "-")), str(name), str(info.get("status", "-"))
