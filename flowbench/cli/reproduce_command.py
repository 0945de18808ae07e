"""The command `flowbench reproduce`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.fit_display import INTERRUPTED, command_line
from flowbench.cli.interruption import stop_on_signals
from flowbench.cli.progress_line import ProgressLine
from flowbench.errors import ConfigurationError

if TYPE_CHECKING:
    from flowbench.studies.study import Budget


def reproduce(
    claim: Annotated[str | None, typer.Argument(help="The claim's name; --list shows them.")] = None,
    list_claims: Annotated[bool, typer.Option("--list", help="List the claims, and measure none.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Less of it, in under three minutes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The published budget: hours.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder of the claim's data, if it reads any (default: datasets/NAME)."
        ),
    ] = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Measure a paper's claim again, in under half an hour.

    Prints the verdict and the path of a page. The same command goes on where it was stopped.
    """
    from flowbench.report.claim_page import headline
    from flowbench.studies.reproduction import StudyWatch, claims
    from flowbench.studies.reproduction import reproduce as carry_out
    from flowbench.workflows.home import Home

    if list_claims:
        known = claims()
        if json:
            terminal.print_json([asdict(each) for each in known])
        else:
            rows = [(each.name, each.title, each.source) for each in known]
            terminal.print_table(("claim", "what it says", "source"), rows)
        return 0
    if claim is None:
        raise ConfigurationError("say which claim; `flowbench reproduce --list` names them")
    if quick and full:
        raise ConfigurationError("`--quick` and `--full` are two budgets; give one of them")
    budget: Budget = "quick" if quick else "full" if full else "default"
    farewell = "interrupted; the same command goes on from here"
    with ProgressLine(claim) as line, stop_on_signals() as stop:
        stop.farewell = farewell
        watch = StudyWatch(
            on_trial=lambda done, total, name: line.count(done, total, f"trials, {name}"),
            on_progress=line.prepare,
            should_stop=stop,
        )
        found = carry_out(claim, budget, home=Home(home), data=data, command=command_line(), watch=watch)
    if found.findings is None:
        terminal.say(farewell)
        return INTERRUPTED
    page = str(found.page)
    terminal.say(headline(found.findings))
    answer = {"verdict": found.findings.verdict, "reason": found.findings.reason, "report": page}
    terminal.print_answer({**answer, "study": str(found.folder)}, page, json)
    return 0
