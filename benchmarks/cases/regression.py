"""Conditional densities p(y | x) on eight UCI tables: flowbench's, boosted trees and a linear model."""

from typing import Any

import numpy as np

from benchmarks.cases.quality import Contenders
from benchmarks.harness import Entry, NotHereError, Outcome, Timing, attempt_all
from benchmarks.statistics import mean_text, verdict
from benchmarks.uci import SOURCES, SPLITS, is_here, read_table
from flowbench.statistics.paired import compare_paired

FLOWBENCH = "benchmarks.contenders.regression:flowbench"
PEER = "benchmarks.contenders.regression:peer"
OURS = "cnf"
MODELS = ("cnf", "nsf", "mixture")
PEERS = ("ngboost", "boosted mean", "boosted quantiles", "linear")
QUICK_TABLES, QUICK_SPLITS = ("yacht", "concrete", "wine"), 3


def run(*, quick: bool, seconds: float) -> Outcome:
    """Every model on every split of each table, after `seconds` of CPU time where a model takes a budget.

    Where the target is rounded (wine's grades, the logarithms of whole numbers of elevators), it stands for
    a cell. All models learn from it at a random place in its cell, the same place for all. A test row scores
    the logarithm of the cell's mean density: its mass, by the model's distribution function, over its width.
    For flowbench's models the mean is over eight places. So no spike narrower than a cell gains anything.

    All models get the same train and validation rows. NGBoost and the boosted trees use the validation rows
    to choose, and are then fitted to both; so is the linear model, which chooses nothing.
    """
    if not is_here():
        raise NotHereError("the tables are not beside the checkout")
    seconds = seconds / 6 if quick else seconds
    tables, splits = (QUICK_TABLES, QUICK_SPLITS) if quick else (tuple(SOURCES), SPLITS)
    contenders: Contenders = {name: (FLOWBENCH, {"model": name, "seconds": seconds}) for name in MODELS}
    contenders |= {name: (PEER, {"name": name}) for name in PEERS}
    entries = {
        (table, split, label): Entry(label, target, {"table": table, "split": split, **own})
        for table in tables
        for split in range(splits)
        for label, (target, own) in contenders.items()
    }
    fits = attempt_all(entries)
    outcome = Outcome(notes=_notes(tables, splits, seconds))
    for table in tables:
        found = {label: [fits[table, split, label] for split in range(splits)] for label in contenders}
        for label, timings in found.items():
            where = {"table": table, "model": label}
            outcome.add("fits", {**where, **fits_row(timings)})
        for label, timings in found.items():
            if label != OURS:
                where = {"table": table, "against": label}
                outcome.add(f"{OURS} against the others", {**where, **difference_row(found[OURS], timings)})
    return outcome


def fits_row(timings: list[Timing]) -> dict[str, Any]:
    """What a table says of the fits of one model to all splits."""
    done = [timing for timing in timings if not timing.error]
    row: dict[str, Any] = {}
    if len(done) < len(timings):
        failure = next(timing.error for timing in timings if timing.error)
        row["failed"] = f"{len(timings) - len(done)} of {len(timings)}: {failure}"
    if not done:
        return row
    errors = [np.sqrt(max(timing.arrays["squared_error"].mean(), 0.0)) for timing in done]
    return {
        "test NLL": mean_text(-np.array([timing.arrays["log_prob"].mean() for timing in done])),
        "RMSE": mean_text(np.array(errors)),
        "CRPS": mean_text(np.array([timing.arrays["crps"].mean() for timing in done])),
        "in the 90% interval": f"{np.concatenate([timing.arrays['covered'] for timing in done]).mean():.1%}",
        "CPU s": round(float(np.mean([timing.figures["seconds"] for timing in done])), 1),
        **row,
    }


def difference_row(ours: list[Timing], theirs: list[Timing]) -> dict[str, Any]:
    """By how much `ours` are ahead in test NLL, paired over the splits that both have."""
    pairs = [pair for pair in zip(ours, theirs, strict=True) if not any(timing.error for timing in pair)]
    first, second = (np.array([pair[place].arrays["log_prob"].mean() for pair in pairs]) for place in (0, 1))
    found = compare_paired(first, second, resample=False) if pairs else None
    if found is None:
        return {"splits": len(pairs)}
    return {
        f"{OURS} ahead by": f"{found.mean:.3f} ± {found.standard_error:.3f}",
        "splits": len(pairs),
        "verdict": verdict(found),
    }


def _notes(tables: tuple[str, ...], splits: int, seconds: float) -> list[str]:
    described = []
    for table in tables:
        x, remark = read_table(table).x, SOURCES[table].remark
        size = f"{table}, {len(x):,} rows and {x.shape[1]} inputs"
        described.append(f"{size} ({remark})" if remark else size)
    return [
        f"{splits} splits of ten-fold cross-validation; ± is the standard error over them, which is "
        f"too small by some, as train rows overlap. flowbench's models get {seconds:g} CPU seconds a fit; "
        "two contenders run at a time. NLL in nats, in the target's own units. The RMSE of the mean and the "
        "CRPS are estimated without bias from 99 draws for each row. A verdict is that of the paired 95% t "
        "interval.",
        "Tables: " + "; ".join(described) + ".",
    ]
