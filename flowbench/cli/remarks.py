"""Remarks that several commands make: how to resume a run, what the likelihood of a cell means."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowbench.cli import terminal

if TYPE_CHECKING:
    from flowbench.store import Run

#: Above this standard error, nats, one draw of a bound outweighs the others together.
LOOSE_BOUND = 0.3
#: A message names at most this many columns, or reasons, one by one.
MOST_NAMED = 5


def say_dequantised(names: Sequence[str]) -> None:
    """Name the columns that were dequantised, if any, and say what a log-likelihood means with them."""
    if names:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        terminal.say(
            f"values of {', '.join(names[:MOST_NAMED])}{more} are rounded, and each stands for an interval, "
            "its cell: a log-likelihood is the mean log-density over the row's cell, a lower bound of the "
            "log of the mean density there"
        )


def say_support(ends: Mapping[str, Sequence[float | None]], atoms: Mapping[str, Sequence[float]]) -> None:
    """Name the columns that have ends, if any: low and high end by column, None for no end, and `atoms`."""
    from flowbench.data.schema import Support

    if ends:
        each = [Support.of_ends(own).of(name, atoms.get(name, ())) for name, own in ends.items()]
        more = f" and {len(each) - MOST_NAMED} more" if len(each) > MOST_NAMED else ""
        terminal.say(
            f"columns with ends: {', '.join(each[:MOST_NAMED])}{more}; other values have no density and are "
            "not drawn; "
            "`--support none` takes all numbers"
        )


def say_periodic(ends: Mapping[str, Sequence[float]]) -> None:
    """Name the columns that are periodic, if any: low and high end of one period by column."""
    from flowbench.data.periods import Period

    if ends:
        each = [f"{name} {Period(*own).in_words}" for name, own in ends.items()]
        more = f" and {len(each) - MOST_NAMED} more" if len(each) > MOST_NAMED else ""
        terminal.say(
            f"periodic: {', '.join(each[:MOST_NAMED])}{more}; a density has no cut there, and adds up to 1 "
            "over one period; `--periodic none` takes all columns for lines"
        )


def resume_command(run: "Run", home: Path) -> str:
    """The command that goes on with a run."""
    name = run.name if run.path == home / "runs" / run.name else str(run.path)
    command = ["flowbench", "fit", "--resume", name, *(["--home", str(home)] if home != Path() else [])]
    return shlex.join(command)


def loose_bound(error: float) -> str:
    """What a large standard error of a bound means."""
    return (
        f"the standard error of the bounds is {error:.2f} nats for the median series, so few of the draws "
        "count and the bound is loose; `--set evaluation.draws=4096` tightens it"
    )


def describe_series_figures(values: Mapping[str, float]) -> list[str]:
    """The figures of a fit of series that matter most, in lines."""
    error = values.get("test_nll_per_value_standard_error", float("nan"))
    bound = "bound_error_median" in values
    first = f"test NLL {values['test_nll_per_value']:.4f} ± {error:.4f} nats a value"
    if bound:
        first += f", an upper bound from {values['draws']:.0f} draws"
        if "bound_gain_of_last_draws" in values:
            first += f" (a quarter of them gives {values['bound_gain_of_last_draws']:.2f} nats a series more)"
    if "kl_to_truth" in values:
        error = values.get("kl_to_truth_standard_error", float("nan"))
        first += f"; above the exact NLL by {values['kl_to_truth']:.3f} ± {error:.3f} nats a series"
    lines = [first]
    if values.get("bound_error_median", 0.0) > LOOSE_BOUND:
        lines.append(loose_bound(values["bound_error_median"]))
    for name in ("interpolation", "extrapolation"):
        if f"{name}_rmse" in values:
            lines.append(
                f"{name}: RMSE {values[f'{name}_rmse']:.4f} standard deviations over "
                f"{values[f'{name}_values']:,.0f} held-out values; the 90% bands hold "
                f"{100 * values[f'{name}_coverage_90']:.1f}% of them"
            )
    return lines
