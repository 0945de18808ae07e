"""Test NLL at equal CPU time: flowbench's models and a neural spline flow behind the same transforms."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import Entry, Outcome, Timing, interleave, scratch
from benchmarks.tables import write_tables
from flowbench.registry import TOYS

FLOWBENCH = "benchmarks.contenders.fits:flowbench"
SPLINE = "benchmarks.contenders.fits:spline"
TEST_ROWS = 20_000

#: By name: the function that makes one, and what it is called with beside what all are.
Contenders = dict[str, tuple[str, dict[str, Any]]]


def toys(*, quick: bool, seconds: float) -> Outcome:
    """KL(true || model) on the toys; one seed."""
    contenders: Contenders = {
        "cnf": (FLOWBENCH, {"model": "cnf"}),
        "zuko NSF": (SPLINE, {}),
        "planar": (FLOWBENCH, {"model": "planar"}),
    }
    names = TOYS.names()[:2] if quick else TOYS.names()
    return _compare({name: name for name in names}, contenders, seconds / 6 if quick else seconds, seeds=1)


def tables(*, quick: bool, seconds: float) -> Outcome:
    """Test NLL on two real tables, behind the marginal Gaussianiser; three seeds, each with its own split."""
    contenders: Contenders = {"cnf": (FLOWBENCH, {"model": "cnf"}), "zuko NSF": (SPLINE, {})}
    with scratch() as folder:
        data = {name: str(path) for name, path in write_tables(folder).items()}
        return _compare(data, contenders, seconds / 6 if quick else seconds, seeds=1 if quick else 3)


def _compare(data: dict[str, str], contenders: Contenders, seconds: float, seeds: int) -> Outcome:
    outcome = Outcome(
        notes=[
            f"{seconds:g} CPU seconds of training each, validations included; the weights that did best on "
            "validation rows are scored once on the test rows, in float64 at 1e-6 with the exact divergence. "
            "Two contenders run at a time. Differences are paired over the test rows, with 95% t intervals; "
            "nats, data units.",
        ]
    )
    if not data:
        outcome.notes.append("Nothing was measured: the tables are not beside the checkout.")
    entries = {
        (name, seed, label): Entry(
            label,
            target,
            {"dataset": path, "seconds": seconds, "seed": seed, "test_rows": TEST_ROWS, **own},
        )
        for name, path in data.items()
        for seed in range(seeds)
        for label, (target, own) in contenders.items()
    }
    with ThreadPoolExecutor(2) as pool:
        fits = dict(zip(entries, pool.map(_fit, entries.values()), strict=True))
    for (name, seed, label), timing in fits.items():
        where = {"data": name, "seed": seed}
        outcome.add("fits", {**where, "model": label, **_row(timing)})
        ours = fits[name, seed, "cnf"]
        if label != "cnf" and not (ours.error or timing.error):
            outcome.add("cnf against the others", {**where, "against": label, **_difference(ours, timing)})
    return outcome


def _fit(entry: Entry) -> Timing:
    return interleave([entry], 1, warmups=0)[entry.name]


def _row(timing: Timing) -> dict[str, Any]:
    if timing.error:
        return {"failed": timing.error}
    log_prob, figures = timing.arrays["log_prob"], timing.figures
    row = {"test NLL": f"{-log_prob.mean():.4f} ± {_error(log_prob):.4f}"}
    if "truth" in timing.arrays:
        excess = timing.arrays["truth"] - log_prob
        row["KL"] = f"{excess.mean():.4f} ± {_error(excess):.4f}"
    return row | {
        "steps": figures["steps"],
        "CPU s": round(figures["seconds"], 1),
        "nfe": figures.get("nfe"),
        "solver error": figures.get("solver_error") and f"{figures['solver_error']:.0e}",
    }


def _difference(ours: Timing, theirs: Timing) -> dict[str, Any]:
    ahead = ours.arrays["log_prob"] - theirs.arrays["log_prob"]
    half = stats.t.ppf(0.975, len(ahead) - 1) * _error(ahead)
    mean = float(ahead.mean())
    verdict = "ahead" if mean > half else "behind" if mean < -half else "level"
    return {"cnf ahead by": f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]", "verdict": verdict}


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)
