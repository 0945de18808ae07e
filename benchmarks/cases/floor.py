"""Small tables, on which a flow must not come out behind what is fitted in closed form."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.contenders.fits import load
from benchmarks.harness import Entry, Outcome, Timing, attempt, scratch
from benchmarks.tables import write_small_tables

CNF = "benchmarks.contenders.fits:flowbench"
CLASSICAL = "benchmarks.contenders.fits:classical"
SPLITS = 5

#: How each classical density is called, and what is in front of it.
FRONTS = {"Gaussianiser": "gaussianise", "standardised": "standardise"}
DENSITIES = {"Gaussian": "gaussian", "mixture": "mixture", "KDE": "kde"}


def run(*, quick: bool, seconds: float) -> Outcome:
    """NLL of `cnf` and of three classical densities on five splits of eight tables."""
    splits = 1 if quick else SPLITS
    seconds = seconds / 4 if quick else seconds
    outcome = Outcome(
        notes=[
            f"{splits} splits of 80/10/10%, {seconds:g} CPU seconds for cnf. The classical densities are "
            "fitted on train and validation rows together, behind the Gaussianiser and on standardised "
            "columns; best is the one of the six with the lowest mean test NLL over the splits, known only "
            "afterwards. behind is the mean over the splits of the difference in test NLL, +- its standard "
            "error over the splits; allowed is 0.02 nat a column. Nats, data units.",
        ]
    )
    with scratch() as folder:
        tables = write_small_tables(folder)
        entries = {
            (name, label, seed): entry
            for name, path in tables.items()
            for seed in range(splits)
            for label, entry in _entries(path, seed, seconds).items()
        }
        with ThreadPoolExecutor(2) as pool:
            fits = dict(zip(entries, pool.map(attempt, entries.values()), strict=True))
        for name, path in tables.items():
            columns = load(path, "cnf", 1.0, 0, 1, []).dataset.features
            outcome.add("floor", _row(name, columns, fits, splits))
    return outcome


def _entries(path: str, seed: int, seconds: float) -> dict[str, Entry]:
    shared = {"dataset": path, "seed": seed, "test_rows": 20_000}
    entries = {"cnf": Entry("cnf", CNF, {**shared, "model": "cnf", "seconds": seconds})}
    for front, transform in FRONTS.items():
        for label, density in DENSITIES.items():
            own = {"density": density, "settings": [f'transforms=["{transform}"]']}
            entries[f"{label}, {front}"] = Entry(label, CLASSICAL, {**shared, **own})
    return entries


def _row(name: str, columns: int, fits: dict[tuple[str, str, int], Timing], splits: int) -> dict[str, Any]:
    labels = dict.fromkeys(label for table, label, _ in fits if table == name)
    failed = [label for label in labels if any(fits[name, label, seed].error for seed in range(splits))]
    if "cnf" in failed:
        return {"table": name, "columns": columns, "verdict": "cnf failed"}
    nll = {
        label: np.array([-fits[name, label, seed].arrays["log_prob"].mean() for seed in range(splits)])
        for label in labels
        if label not in failed
    }
    best = min((label for label in nll if label != "cnf"), key=lambda label: nll[label].mean())
    behind = nll["cnf"] - nll[best]
    error = behind.std(ddof=1) / splits**0.5 if splits > 1 else np.nan
    allowed = 0.02 * columns
    return {
        "table": name,
        "columns": columns,
        "cnf": f"{nll['cnf'].mean():.3f}",
        "best": best,
        "its NLL": f"{nll[best].mean():.3f}",
        "behind by": f"{behind.mean():.3f} ± {error:.3f}",
        "allowed": round(allowed, 3),
        "verdict": "met" if behind.mean() <= allowed else "not met",
    }
