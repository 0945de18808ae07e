"""The commands `flowbench runs list` and `flowbench runs show`."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.remarks import resume_command

if TYPE_CHECKING:
    from flowbench.store import Condition, Run

runs_app = typer.Typer(help="List and describe runs.")


@runs_app.command("list")
def print_runs(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
    """Name the runs in runs/, newest first.

    Says which were killed, and which are damaged or incomplete, as far as the lengths of their files tell;
    `runs show` reads the files.
    """
    from flowbench.errors import FlowbenchError
    from flowbench.report.numbers import moment
    from flowbench.store import condition_of, list_runs
    from flowbench.workflows.home import Home

    runs, warnings = list_runs(Home(home).runs)
    found = []
    for run in runs:
        try:
            found.append((run, run.info, condition_of(run)))
        except FlowbenchError as error:  # the run may have been removed
            warnings.append(str(error))
    warnings += [f"{run.name}: {fault}" for run, _, condition in found for fault in condition.faults]
    for warning in warnings:
        terminal.warn(warning)
    if json:
        terminal.print_json(
            [{"name": run.name, "path": str(run.path), **_honest(info, how)} for run, info, how in found]
        )
        return
    rows = [
        (run.name, *_described(info), how.status or "-", moment(str(info.get("created", "")), "-"))
        for run, info, how in found
    ]
    terminal.print_table(("name", "model", "dataset", "status", "started (UTC)"), rows)


@runs_app.command("show")
def print_run(run: opt.RunArgument, json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> None:
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
    with suppress(FlowbenchError):  # the faults say so
        metrics = dict(opened.read_figures()) if opened.has_results else {}
    with suppress(FlowbenchError):
        config = opened.config
    if json:
        values = {name: asdict(metric) for name, metric in metrics.items()}
        terminal.print_json({"info": _honest(info, condition), "config": config, "metrics": values})
    else:
        model, dataset = _described(info)
        terminal.print_text(f"{opened.name}: {model} on {dataset}, {condition.status or '-'}")
        if "error" in info and condition.status == "failed":
            terminal.print_text(f"error: {info['error']}")
        for fault in condition.faults:
            terminal.print_text(f"fault: {fault}")
        if advice := _advice(condition.status, opened, home):
            terminal.print_text(advice)
        terminal.print_text(f"folder: {opened.path}")
        if started := moment(str(info.get("created", "")), ""):
            terminal.print_text(f"started: {started} UTC")
        rows = [(name, f"{metric.value:.6g}", metric.units) for name, metric in sorted(metrics.items())]
        if rows:
            terminal.print_table(("metric", "value", "units"), rows)
    if condition.status == "damaged":
        raise DamagedFileError(f"the run `{opened.name}` is damaged: {'; '.join(condition.faults)}")


def _advice(status: str, run: "Run", home: Path) -> str:
    if status == "killed":
        return f"its process has ended without a word: go on with `{resume_command(run, home)}`"
    if status == "interrupted":
        return f"go on with `{resume_command(run, home)}`"
    if status in {"damaged", "incomplete"}:
        return "put back what it had, from a copy, or fit anew"
    return ""


def _honest(info: dict[str, Any], condition: "Condition") -> dict[str, Any]:
    """The contents of run.json, with the status and the faults that the files show."""
    return info | {"status": condition.status or None, "faults": list(condition.faults)}


def _described(info: dict[str, Any]) -> tuple[str, str]:
    """Model and data set; a dash for one that a foreign run does not name."""
    dataset = info.get("dataset")
    name = dataset.get("name", "-") if isinstance(dataset, dict) else "-"
    return str(info.get("model", "-")), str(name)
