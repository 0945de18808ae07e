"""Exact log-likelihoods and samples of the default model, each contender at the tolerance that it needs."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, ContenderError, Entry, Outcome, Timing, interleave, once, scratch
from benchmarks.problem import fitted_problem
from flowbench.data import load_dataset

#: The largest error of a row, nats for log-likelihoods and units of model space for samples.
BOUND = 1e-4
TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8)
FLOWBENCH = "benchmarks.contenders.flowbench_cnf:carry"
FFJORD = "benchmarks.contenders.ffjord:carry"
ZUKO = "benchmarks.contenders.zuko_cnf:carry"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Setting:
    """A fitted flow, rows to carry, and the ratio to FFJORD's brute-force evaluation that is asked for."""

    title: str
    problem: Path
    aim: float


def run(*, quick: bool) -> Outcome:
    """Scoring in the plane and of 43 columns; in full, sampling in the plane too."""
    outcome = Outcome(
        notes=[
            "The default model, fitted for a short time, so the field is the same for all. Every contender "
            f"takes the loosest tolerance of {', '.join(f'{t:g}' for t in TOLERANCES)} and the faster of "
            f"float32 and float64 at which no row is off by more than {BOUND:g}; reference float64 at 1e-10.",
            "nfe of an engine that steps each row by itself is that of its slowest row.",
        ]
    )
    with scratch() as folder:
        plane, table = folder / "plane.npz", folder / "table.npz"
        drawn = load_dataset("pinwheel", rows=102_000).rows
        fitted_problem(plane, drawn[2000:], drawn[:2000], steps=1000 if quick else 5000)
        wide = _wide_table(20_050)
        fitted_problem(table, wide[50:], wide[:50], steps=300 if quick else 1500)
        rounds = 2 if quick else 9
        _compare(outcome, Setting("scoring, d = 2, 2,000 rows", plane, 4.0), rounds, "to_base", quick=quick)
        _compare(outcome, Setting("scoring, d = 43, 50 rows", table, 20.0), rounds, "to_base", quick=quick)
        if not quick:
            sampling = Setting("sampling with log-likelihoods, d = 2, 2,000 rows", plane, 4.0)
            _compare(outcome, sampling, rounds, "to_data", quick=quick)
    return outcome


def _wide_table(rows: int) -> NDArray[np.float64]:
    """43 columns that hang together: a bent mixture of four clouds on twelve hidden directions."""
    random = np.random.default_rng(0)
    hidden = (
        random.standard_normal((rows, 12)) + 2 * random.standard_normal((4, 12))[random.integers(0, 4, rows)]
    )
    bent = np.tanh(hidden @ random.standard_normal((12, 43)) / 3)
    return bent + 0.2 * random.standard_normal((rows, 43))


def _compare(outcome: Outcome, setting: Setting, rounds: int, direction: str, *, quick: bool) -> None:
    shared = {"problem": str(setting.problem), "direction": direction}
    exact = {"name": "per-row", "atol": 1e-10, "rtol": 1e-10, "max_nfe": 100_000}
    reference = once(
        Entry("reference", FLOWBENCH, {**shared, "integrator": exact, "dtype": "float64"})
    ).arrays
    contenders = {
        "flowbench per-row dopri5": Entry("", FLOWBENCH, {**shared, "integrator": {"name": "per-row"}}),
        "flowbench per-row tsit5": Entry(
            "", FLOWBENCH, {**shared, "integrator": {"name": "per-row", "method": "tsit5"}}
        ),
        "flowbench native dopri5": Entry("", FLOWBENCH, {**shared, "integrator": {"name": "native"}}),
        "FFJORD brute force": Entry("", FFJORD, shared),
        "zuko exact": Entry("", ZUKO, shared),
    }
    known = _known_choices(setting.title) if quick else {}
    chosen = {
        name: replace(entry, name=name, arguments={**entry.arguments, **known[name]})
        if name in known
        else _cheapest(name, entry, reference)
        for name, entry in contenders.items()
    }
    # A round takes half a minute, beside which a first call's extra tenth of a second is small.
    warmups = 0 if quick else 1
    timings = interleave([entry for entry in chosen.values() if entry is not None], rounds, warmups=warmups)
    for name, entry in chosen.items():
        outcome.add(setting.title, _row(name, entry, timings.get(name), reference))
    ours = timings["flowbench per-row dopri5"]
    for name, timing in timings.items():
        if not name.startswith("flowbench"):
            aim = 4.0 if name.startswith("zuko") else setting.aim
            outcome.compare(setting.title, ours, timing, name, aim=aim)


def _known_choices(title: str) -> dict[str, dict[str, Any]]:
    """By contender, the dtype and tolerance that the stored full run found, since the search takes minutes.

    Whether they are still accurate enough is told by the errors, which stand in the table.
    """
    path = RESULTS / "scoring.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = stored.get("tables", {}).get(title, []) if stored.get("mode") == "full" else []
    return {
        row["contender"]: {key: row[key] for key in ("dtype", "tolerance")} for row in rows if "dtype" in row
    }


def _cheapest(name: str, entry: Entry, reference: Arrays) -> Entry | None:
    """The entry with the dtype and tolerance that make it accurate enough in the least time."""
    best: tuple[float, Entry] | None = None
    for dtype in ("float32", "float64"):
        for tolerance in TOLERANCES:
            arguments = {**entry.arguments, "dtype": dtype, "tolerance": tolerance}
            # zuko's solver never ends where float32 cannot follow the tolerance.
            trial = replace(entry, name=name, arguments=arguments, limit=30.0)
            try:
                timing = once(trial)
            except ContenderError:
                break
            if _error(timing.arrays, reference) < BOUND:
                if best is None or timing.median < best[0]:
                    best = timing.median, trial
                break
    return best and best[1]


def _error(arrays: Arrays, reference: Arrays) -> float:
    return max(float(np.abs(arrays[name] - reference[name]).max()) for name in reference)


def _row(name: str, entry: Entry | None, timing: Timing | None, reference: Arrays) -> dict[str, Any]:
    if entry is None or timing is None or timing.error:
        return {"contender": name, "failed": timing.error if timing else "at no tolerance accurate enough"}
    rows = len(next(iter(reference.values())))
    off = np.concatenate([np.abs(timing.arrays[key] - reference[key]).ravel() for key in reference])
    return {
        "contender": name,
        "rows a CPU second": round(rows / timing.median),
        "dtype": entry.arguments["dtype"],
        "tolerance": entry.arguments["tolerance"],
        "nfe": timing.figures["nfe"],
        "largest error": f"{off.max():.1e}",
        "median error": f"{np.median(off):.1e}",
    }
