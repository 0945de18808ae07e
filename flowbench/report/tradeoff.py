"""Writes a comparison of solvers: a self-contained page, and its numbers as JSON."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flowbench.report.numbers import DASH, count, significant
from flowbench.report.pages import html_environment, write_text
from flowbench.store.atomic import file_errors
from flowbench.store.documents import write_json
from flowbench.store.rung import Rung
from flowbench.store.text_table import TextTable


def write_tradeoff(
    rungs: Sequence[Rung], chosen: Rung | None, error: float, *, name: str, rows: int, folder: Path
) -> Path:
    """Write index.html and tradeoff.json into `folder`, which is made; returns the page's path.

    `rungs` were measured on `rows` rows of the run `name`. `chosen` is the recommended one: its NLL is off by
    at most `error`, nats. Raises `ConfigurationError` if `folder` cannot be written to.
    """
    from flowbench.report.figures.solver_costs import draw_tradeoff
    from flowbench.report.figures.style import figure_style

    with figure_style():
        picture = draw_tradeoff(
            rungs,
            chosen,
            error,
            alt="For each solver, how far it may move the NLL against the rows that it scores a second.",
            key="tradeoff",
        )
    page = html_environment().get_template("tradeoff.html.j2")
    text = page.render(
        title=f"Solvers for {name}",
        verdict=describe_choice(chosen, error),
        picture=picture,
        table=tradeoff_table(rungs, chosen, rows),
    )
    with file_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    values = {
        "run": name,
        "rows": rows,
        "error": error,
        "recommended": chosen and asdict(chosen),
        "solvers": [asdict(rung) for rung in rungs],
    }
    write_json(folder / "tradeoff.json", values)
    write_text(folder / "index.html", text)
    return folder / "index.html"


def describe_choice(chosen: Rung | None, error: float) -> str:
    """The recommendation in a sentence."""
    if chosen is None:
        return (
            f"No solver of the ladder is sure to move the NLL by less than {error:g} nat; raise `--error`, "
            "or `--rows` for narrower intervals."
        )
    return (
        f"The cheapest solver that moves the NLL by less than {error:g} nat is {chosen.label}: "
        f"{count(round(chosen.rows_per_second or 0))} rows a CPU second, off by at most "
        f"{significant(chosen.worst_bias)} nat. `score` uses it with "
        f"{' '.join(f'--set {shlex.quote(setting)}' for setting in chosen.settings)}."
    )


def tradeoff_table(rungs: Sequence[Rung], chosen: Rung | None, rows: int) -> TextTable:
    """The table of all solvers, with their costs and errors."""
    header = (
        "solver",
        "nfe",
        "rows a CPU second",
        "NLL bias (nats) [95%]",
        "99 in 100 rows off by less (nats)",
    )
    lines = tuple(
        (
            rung.label,
            count(rung.nfe),
            count(round(rung.rows_per_second)) if rung.rows_per_second else DASH,
            _bias(rung),
            significant(rung.row_error),
        )
        for rung in rungs
    )
    notes = (
        f"Over {rows:,} test rows, against a solve at 1e-10. Bias: how much too low the NLL is, paired "
        "row by row; a dash: the solve fails. nfe is that of the slowest row. Errors are in nats.",
    )
    marked = rungs.index(chosen) if chosen else None
    return TextTable("Solvers", header, lines, (False, True, True, True, True), notes, marked)


def _bias(rung: Rung) -> str:
    if rung.bias is None or rung.low is None or rung.high is None:
        return DASH
    return f"{rung.bias:+.1e} [{rung.low:+.1e}, {rung.high:+.1e}]".replace("-", "\N{MINUS SIGN}")
