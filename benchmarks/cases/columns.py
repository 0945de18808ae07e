"""KL(true || model) of tables of every kind of column, and of rows with missing cells."""

import math
from typing import Any

from benchmarks.harness import Entry, Outcome, Timing, attempt_all, scratch
from benchmarks.known_tables import DRAWN_ROWS, LEARNT, TABLES
from benchmarks.statistics import mean_text
from flowbench.statistics.paired import compare_paired

RECOVER = "benchmarks.contenders.table_runs:recover"
RECOVER_INCOMPLETE = "benchmarks.contenders.table_runs:recover_incomplete"
MODELS = ("cnf", "mixture")
#: The largest KL that is asked of the continuous flow, nats.
AIM = 0.02
#: By how much a model of incomplete rows may be behind one of complete rows, nats.
ALLOWED = 0.1
WAYS = ("complete", "model", "drop")
DENSITIES = ("gaussian-5", "banana-2", "banana-4")


def kinds(*, quick: bool, seconds: float, rows: int = 20_000) -> Outcome:
    """Zeros, censored values, ends, categories and angles, each beside a column that it depends on."""
    seconds = seconds / 6 if quick else seconds
    outcome = Outcome(
        notes=[
            f"{rows:,} rows, of which {LEARNT:.0%} are learnt from, for {seconds:g} s in one thread, two "
            "at a time. KL is the mean of log p - log q, nats, over 4,000 fresh rows, and includes "
            f"log-masses. Models go by the defaults of `flowbench fit`. Asked of cnf: at most {AIM:g} nat.",
            f"`outside` counts draws beyond the ends of a column among {DRAWN_ROWS:,}. `atom` is the share "
            "of draws on a value with a probability of its own, and the true one. z is their difference, "
            "divided by the binomial error of the draws and of the learnt rows together.",
        ]
    )
    with scratch() as folder:
        entries = {
            (name, model): Entry(
                model,
                RECOVER,
                {"name": name, "model": model, "seconds": seconds, "rows": rows, "folder": str(folder)},
            )
            for name in TABLES
            for model in MODELS
        }
        for (name, model), timing in attempt_all(entries).items():
            outcome.add("kinds", {"table": name, "model": model, **_recovered(name, timing, rows)})
    return outcome


def gaps(*, quick: bool, seconds: float, rows: int = 4500) -> Outcome:
    """A fifth of the cells missing at random: `--missing model` beside complete rows and `--missing drop`."""
    seconds = seconds / 6 if quick else seconds
    outcome = Outcome(
        notes=[
            f"cnf for {seconds:g} s in one thread, two at a time, of {rows:,} rows, of which {LEARNT:.0%} "
            "are learnt from. The same 4,000 fresh complete rows are scored by all. `behind` is the lead "
            "of a fit of the complete rows, nats, with its 95% interval, paired over rows. `covered` is "
            "the share of missing cells of 1,500 fresh rows in the central 90% that `flowbench impute` "
            "writes.",
            f"Asked: at most {ALLOWED:g} nat behind, ahead of `drop`, and 87 to 93% covered.",
        ]
    )
    with scratch() as folder:
        common = {"model": "cnf", "seconds": seconds, "rows": rows, "folder": str(folder)}
        entries = {
            (density, way): Entry(way, RECOVER_INCOMPLETE, {"density": density, "way": way, **common})
            for density in DENSITIES
            for way in WAYS
        }
        fits = attempt_all(entries)
    for (density, way), timing in fits.items():
        row = {"density": density, "rows": way, **_beside(fits[density, "complete"], timing)}
        outcome.add("gaps", row)
    return outcome


def _recovered(name: str, timing: Timing, rows: int) -> dict[str, Any]:
    if timing.error:
        return {"failed": timing.error}
    row: dict[str, Any] = {
        "KL": mean_text(timing.arrays["truth"] - timing.arrays["log_prob"], digits=4),
        "largest error": float(f"{timing.arrays['error'].max():.2g}"),
        "outside": timing.figures["outside"],
    }
    for column, count in timing.figures["atoms"].items():
        value, share = TABLES[name].atoms[column]
        error = math.sqrt(share * (1 - share) * (1 / DRAWN_ROWS + 1 / (LEARNT * rows)))
        drawn = count / DRAWN_ROWS
        row["atom"] = f"{column} = {value:g}: {drawn:.4f}, true {share:.4f}, z {(drawn - share) / error:+.1f}"
    return {**row, "CPU s": round(timing.figures["seconds"], 1)}


def _beside(complete: Timing, timing: Timing) -> dict[str, Any]:
    if timing.error:
        return {"failed": timing.error}
    row: dict[str, Any] = {"KL": mean_text(timing.arrays["truth"] - timing.arrays["log_prob"], digits=4)}
    if timing is not complete and not complete.error:
        found = compare_paired(complete.arrays["log_prob"], timing.arrays["log_prob"], resample=False)
        if found is not None:
            row["behind"] = f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"
    if "covered" in timing.arrays:
        row["covered"] = mean_text(timing.arrays["covered"].astype(float), digits=4)
    return {**row, "CPU s": round(timing.figures["seconds"], 1)}
