"""Small tables, on which a flow must not come out behind what is fitted in closed form."""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Entry, Outcome, Timing, attempt_all, scratch
from benchmarks.tables import write_small_tables
from flowbench.data import read_table

CNF = "benchmarks.contenders.fits:flowbench"
CLASSICAL = "benchmarks.contenders.fits:classical"
SPLITS = 5

#: What is in front of the classical densities.
FRONTS = {"Gaussianiser": "gaussianise", "standardised": "standardise"}


def run(*, quick: bool, seconds: float) -> Outcome:
    """NLL of `cnf` and of three classical densities on five splits of eight tables."""
    splits = range(1 if quick else SPLITS)
    outcome = Outcome(
        notes=[
            f"{len(splits)} splits of 80/10/10%, {seconds:g} CPU seconds for cnf. The classical densities "
            "are fitted on train and validation rows together, behind the Gaussianiser and on standardised "
            "columns; the best is the one of the six with the lowest mean test NLL over the splits, known "
            "only afterwards. cnf is behind by the mean over the splits of the difference in test NLL, ± its "
            "standard error over the splits; allowed are 0.02 nat a column. Nats, data units. Columns of "
            "evenly spaced values that repeat are dequantised for all alike, each row at one place in its "
            "cell.",
        ]
    )
    with scratch() as folder:
        tables = write_small_tables(folder)
        entries = {
            (name, label, seed): entry
            for name, path in tables.items()
            for seed in splits
            for label, entry in _entries(path, seed, seconds).items()
        }
        fits = attempt_all(entries)
        failures = {f"{key}: {timing.error}" for key, timing in fits.items() if timing.error}
        outcome.notes += [f"Failed: {failure}" for failure in sorted(failures)]
        for name, path in tables.items():
            columns = len(read_table(path).names)
            nll = _nll({key: timing for key, timing in fits.items() if key[0] == name}, len(splits))
            outcome.add("floor", {"table": name, "columns": columns, **_row(nll, 0.02 * columns)})
    return outcome


def _entries(path: str, seed: int, seconds: float) -> dict[str, Entry]:
    shared = {"dataset": path, "seed": seed, "test_rows": 20_000}
    entries = {"cnf": Entry("cnf", CNF, {**shared, "model": "cnf", "seconds": seconds})}
    for front, transform in FRONTS.items():
        entries[front] = Entry(front, CLASSICAL, {**shared, "settings": [f'transforms=["{transform}"]']})
    return entries


def _nll(fits: dict[tuple[str, str, int], Timing], splits: int) -> dict[str, NDArray[np.float64]]:
    """The mean test NLL on each split of `cnf` and of every classical density behind every front."""
    found: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.full(splits, np.nan))
    for (_, label, seed), timing in fits.items():
        for density, log_prob in timing.arrays.items():
            found["cnf" if label == "cnf" else f"{density}, {label}"][seed] = -log_prob.mean()
    return found


def _row(nll: dict[str, NDArray[np.float64]], allowed: float) -> dict[str, Any]:
    best = min(
        (label for label in nll if label != "cnf"),
        key=lambda label: np.nan_to_num(nll[label].mean(), nan=np.inf),
    )
    behind = nll["cnf"] - nll[best]
    error = behind.std(ddof=1) / len(behind) ** 0.5 if len(behind) > 1 else np.nan
    return {
        "cnf": f"{nll['cnf'].mean():.3f}",
        "best": best,
        "its NLL": f"{nll[best].mean():.3f}",
        "cnf is behind by": f"{behind.mean():.3f} ± {error:.3f}",
        "allowed": f"{allowed:.2f}",
        "verdict": "met" if behind.mean() <= allowed else "not met",
    }
