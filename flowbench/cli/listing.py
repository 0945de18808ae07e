"""The commands `flowbench datasets` and `flowbench runs`."""

import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal

if TYPE_CHECKING:
    from flowbench.store import Condition, Run

datasets_app = typer.Typer(help="List and describe data sets.")
runs_app = typer.Typer(help="List and describe runs.")


@datasets_app.command("list")
def list_datasets(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name every data set there is.

    These are the toy densities, scikit-learn's tables, and the files in datasets/.
    """
    from flowbench import data
    from flowbench.workflows.home import Home

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
    from flowbench.workflows.home import Home

    chosen = opt.listed(columns, "--columns")
    with opt.lent_stdin(dataset) as lent:
        described = data.describe_dataset(
            lent, columns=chosen, folder=Home(home).datasets, reading=data.ReadOptions(**reading)
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
    """Name the runs in runs/, newest first.

    Says which were killed, and which are damaged or incomplete, as far as the lengths of their files tell;
    `runs show` reads the files.
    """
    from flowbench.errors import FlowbenchError
    from flowbench.report.numbers import moment
    from flowbench.store import condition_of
    from flowbench.store import list_runs as find_runs
    from flowbench.workflows.home import Home

    runs, warnings = find_runs(Home(home).runs)
    found = []
    for run in runs:
        try:
            found.append((run, run.info, condition_of(run)))
        except FlowbenchError as error:  # it may be gone by now
            warnings.append(str(error))
    warnings += [f"{run.name}: {fault}" for run, _, condition in found for fault in condition.faults]
    for warning in warnings:
        terminal.say(f"warning: {warning}")
    if json:
        terminal.write_json(
            [{"name": run.name, "path": str(run.path), **_honest(info, how)} for run, info, how in found]
        )
        return
    rows = [
        (run.name, *_described(info), how.status or "-", moment(str(info.get("created", "")), "-"))
        for run, info, how in found
    ]
    terminal.write_table(("name", "model", "dataset", "status", "started (UTC)"), rows)


@runs_app.command("show")
def show_run(run: opt.RunArgument, json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Describe a run.

    Says how it ended, whether its files are whole, and what was measured; with --json also its configuration.
    """
    from flowbench.errors import DamagedFileError, FlowbenchError
    from flowbench.report.numbers import moment
    from flowbench.store import condition_of
    from flowbench.workflows.home import Home

    opened = Home(home).run(run)
    info, condition = opened.info, condition_of(opened, thorough=True)
    metrics: dict[str, Any] = {}
    config = None
    with suppress(FlowbenchError):  # its text is among the faults
        metrics = opened.read_results().metrics if opened.has_results else {}
    with suppress(FlowbenchError):
        config = opened.config
    if json:
        values = {name: asdict(metric) for name, metric in metrics.items()}
        terminal.write_json({"info": _honest(info, condition), "config": config, "metrics": values})
    else:
        model, dataset = _described(info)
        terminal.write(f"{opened.name}: {model} on {dataset}, {condition.status or '-'}")
        if "error" in info and condition.status == "failed":
            terminal.write(f"error: {info['error']}")
        for fault in condition.faults:
            terminal.write(f"fault: {fault}")
        if advice := _advice(condition.status, opened, home):
            terminal.write(advice)
        terminal.write(f"folder: {opened.path}")
        if started := moment(str(info.get("created", "")), ""):
            terminal.write(f"started: {started} UTC")
        rows = [(name, f"{metric.value:.6g}", metric.units) for name, metric in sorted(metrics.items())]
        if rows:
            terminal.write_table(("metric", "value", "units"), rows)
    if condition.status == "damaged":
        raise DamagedFileError(f"the run `{opened.name}` is damaged: {'; '.join(condition.faults)}")


def resume_command(run: "Run", home: Path) -> str:
    """What to type to go on with a run."""
    name = run.name if run.path == home / "runs" / run.name else str(run.path)
    command = ["flowbench", "fit", "--resume", name, *(["--home", str(home)] if home != Path() else [])]
    return shlex.join(command)


def _advice(status: str, run: "Run", home: Path) -> str:
    if status == "killed":
        return f"its process has ended without a word: go on with `{resume_command(run, home)}`"
    if status == "interrupted":
        return f"go on with `{resume_command(run, home)}`"
    if status in {"damaged", "incomplete"}:
        return "put back what it had, from a copy, or fit anew"
    return ""


def _honest(info: dict[str, Any], condition: "Condition") -> dict[str, Any]:
    """What run.json says, with the status that the files bear out."""
    return info | {"status": condition.status or None, "faults": list(condition.faults)}


def _described(info: dict[str, Any]) -> tuple[str, str]:
    """Model and data set; a dash for what a foreign run does not say."""
    dataset = info.get("dataset")
    name = dataset.get("name", "-") if isinstance(dataset, dict) else "-"
    return str(info.get("model", "-")), str(name)
