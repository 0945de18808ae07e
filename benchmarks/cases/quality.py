"""Test NLL at equal CPU time: flowbench's models and a neural spline flow behind the same transforms."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import Entry, Outcome, Timing, attempt_all, scratch
from benchmarks.tables import write_tables
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.registry import TOYS
from flowbench.workflows.environment import bfloat16_units

FLOWBENCH = "benchmarks.contenders.fits:flowbench"
OTHER = "benchmarks.contenders.fits:other"
TEST_ROWS = 20_000
#: Where differences are large or runs quick; more would be scored for as long as models are trained.
FEW_TEST_ROWS = 4_000
#: Draws the toys' rows; the defaults were chosen on those of seed 0.
TOY_SEED = 100

#: Of the sweep: options of the field, and values beside the default.
FIELD_VALUES = (
    *(("width", width) for width in (64, 192)),
    *(("scales", scales) for scales in (4, 6, 8, 10)),
    *(("frames", frames) for frames in (1, 3, 6)),
    *(("octaves", octaves) for octaves in (2, 5)),
)

#: By name: the function that makes one, and what it is called with beside what all are.
Contenders = dict[str, tuple[str, dict[str, Any]]]


def _extent(seconds: float, *, quick: bool) -> tuple[float, int]:
    """Seconds of training, and test rows, of a case that asks for `seconds`."""
    return (seconds / 6, FEW_TEST_ROWS) if quick else (seconds, TEST_ROWS)


def toys(*, quick: bool, seconds: float) -> Outcome:
    """KL(true || model) on the toys; one seed."""
    contenders: Contenders = {
        "cnf": (FLOWBENCH, {"model": "cnf"}),
        "nsf": (FLOWBENCH, {"model": "nsf"}),
        "planar": (FLOWBENCH, {"model": "planar"}),
    }
    seconds, test_rows = _extent(seconds, quick=quick)
    data = {name: name for name in (TOYS.names()[:2] if quick else TOYS.names())}
    return _compare(data, contenders, seconds, (TOY_SEED,), test_rows)


def tables(*, quick: bool, seconds: float) -> Outcome:
    """Test NLL on two real tables, behind the marginal Gaussianiser; three seeds, each with its own split."""
    contenders: Contenders = {"cnf": (FLOWBENCH, {"model": "cnf"}), "nsf": (FLOWBENCH, {"model": "nsf"})}
    seconds, test_rows = _extent(seconds, quick=quick)
    with scratch() as folder:
        return _compare(write_tables(folder), contenders, seconds, range(1 if quick else 3), test_rows)


def _phase(phase: dict[str, Any], **changes: Any) -> str:
    """The only phase of a plan, `phase` with some values changed, as `--set` takes it."""
    values = ", ".join(f"{key} = {_toml(value)}" for key, value in {**phase, **changes}.items())
    return f"plan.phases=[{{{values}}}]"


def _matching(phase: dict[str, Any], objective: dict[str, Any], **changes: Any) -> str:
    """`_phase` in which the objective, too, has some values changed."""
    own = phase["objective"] if isinstance(phase["objective"], dict) else {"name": phase["objective"]}
    return _phase(phase, objective={**own, **objective}, **changes)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def _ingredients(kind: str, seconds: float) -> dict[str, list[str]]:
    """What the default for this kind of data consists of, each with the settings that take it away."""
    (phase,) = ContinuousFlow.default_plan(kind, seconds)["phases"]
    own = {
        "toy": {
            "turned directions": ["flow.field.frames=1"],
            "batches of 1,024": [_phase(phase, batch_size=256)],
        },
        "table": {
            "marginal Gaussianiser": ['transforms=["standardise"]'],
            "a high rate for most of the time": [_phase(phase, decline=1.0)],
            "SOAP": [_phase(phase, optimizer="adamw", batch_size=1024, learning_rate=6e-3)],
            "mirror images": [_matching(phase, {"antithetic": False}, batch_size=4096)],
            "batches of 2,048": [_phase(phase, batch_size=512, learning_rate=4e-3)],
        },
    }
    rounded = {"rounded products": [_phase(phase, matmul_precision="ieee")]}
    return own[kind] | {
        "multi-scale inputs": ["flow.field.scales=0"],
        "sines and cosines of the time": ["flow.field.octaves=0"],
        "most times close to the data": [_matching(phase, {"late_share": 0.0})],
        "background": ["background=false"],
        "averaged weights": ["plan.ema_decay=0.0"],
        "any decline of the rate": [_phase(phase, decline=0.0)],
        # A processor without units for it rounds nothing.
        **(rounded if bfloat16_units() else {}),
    }


def ablation(*, quick: bool, seconds: float) -> Outcome:
    """What each ingredient of the default is worth: the test NLL without it, on two toys and two tables."""
    seconds, _ = _extent(seconds, quick=quick)
    changes = {
        kind: {f"without {name}": settings for name, settings in _ingredients(kind, seconds).items()}
        for kind in ("toy", "table")
    }
    return _changed(changes, seconds)


def sweep(*, quick: bool, seconds: float) -> Outcome:
    """What other values of the default's numbers would bring, on two toys and two tables."""
    seconds, _ = _extent(seconds, quick=quick)
    return _changed({kind: _values(kind, seconds) for kind in ("toy", "table")}, seconds)


def _values(kind: str, seconds: float) -> dict[str, list[str]]:
    """Other values of the numbers of the default for this kind of data, each with the settings for them."""
    (phase,) = ContinuousFlow.default_plan(kind, seconds)["phases"]
    rows, rate = phase["batch_size"], phase["learning_rate"]
    changed = {f"{name} = {value}": [f"flow.field.{name}={value}"] for name, value in FIELD_VALUES}
    for factor in (0.5, 2):
        for name, value in (("batch_size", int(factor * rows)), ("learning_rate", factor * rate)):
            changed[f"{name} = {value:g}"] = [_phase(phase, **{name: value})]
    for decline in (0.25, 1.0):
        changed[f"decline = {decline:g}"] = [_phase(phase, decline=decline)]
    return changed | {f"ema_decay = {decay:g}": [f"plan.ema_decay={decay}"] for decay in (0.99, 0.9997)}


def _changed(changes: dict[str, dict[str, list[str]]], seconds: float) -> Outcome:
    """The default against itself with `changes`, by kind of data and name the settings that make them."""
    outcome = Outcome()
    with scratch() as folder:
        data = {
            "toy": {name: name for name in ("rings", "checkerboard")},
            "table": write_tables(folder),
        }
        for kind, places in data.items():
            contenders: Contenders = {"cnf": (FLOWBENCH, {"model": "cnf"})}
            for name, settings in changes[kind].items():
                contenders[name] = (FLOWBENCH, {"model": "cnf", "settings": settings})
            outcome.extend(_compare(places, contenders, seconds, range(1), FEW_TEST_ROWS))
    return outcome


def peers(*, quick: bool, seconds: float) -> Outcome:
    """Flows of other libraries as their users build them beside flowbench's; some without a Gaussianiser."""
    adam = _phase({"objective": "likelihood", "batch_size": 512, "learning_rate": 1e-3})
    zuko: dict[str, Any] = {"name": "zuko CNF", "like": "planar", "settings": [adam]}
    common: Contenders = {
        "cnf": (FLOWBENCH, {"model": "cnf"}),
        "nsf": (FLOWBENCH, {"model": "nsf"}),
        "planar": (FLOWBENCH, {"model": "planar"}),
        "zuko CNF": (OTHER, zuko),
        "normflows planar": (OTHER, {**zuko, "name": "normflows planar"}),
    }
    plain = ['transforms=["standardise"]']
    standardised: Contenders = {
        "cnf, standardised": (FLOWBENCH, {"model": "cnf", "settings": plain}),
        "nsf, standardised": (FLOWBENCH, {"model": "nsf", "settings": plain}),
        "zuko CNF, standardised": (OTHER, {**zuko, "settings": [adam, *plain]}),
    }
    outcome = Outcome()
    seconds, _ = _extent(seconds, quick=quick)
    with scratch() as folder:
        for data, contenders in (
            ({name: name for name in ("rings", "checkerboard")}, common),
            (write_tables(folder), {**common, **standardised}),
        ):
            outcome.extend(_compare(data, contenders, seconds, range(1), FEW_TEST_ROWS))
    return outcome


def _compare(
    data: dict[str, str],
    contenders: Contenders,
    seconds: float,
    seeds: Iterable[int],
    test_rows: int,
) -> Outcome:
    outcome = Outcome(
        notes=[
            f"{seconds:g} CPU seconds of training each, validations included; the weights that did best on "
            "validation rows are scored once on the test rows, in float64 at 1e-6 with the exact divergence. "
            "Two contenders run at a time. Differences are paired over the test rows, with 95% t intervals; "
            "nats, data units. Columns of evenly spaced values that repeat are dequantised for all alike, "
            "each row at one place in its cell.",
        ]
    )
    if not data:
        outcome.notes.append("Nothing was measured: the tables are not beside the checkout.")
    entries = {
        (name, seed, label): Entry(
            label,
            target,
            {"dataset": path, "seconds": seconds, "seed": seed, "test_rows": test_rows, **own},
        )
        for name, path in data.items()
        for seed in seeds
        for label, (target, own) in contenders.items()
    }
    fits = attempt_all(entries)
    for (name, seed, label), timing in fits.items():
        where = {"data": name, "seed": seed}
        outcome.add("fits", {**where, "model": label, **fit_row(timing)})
        if "nfe_of_batches" in timing.figures:
            outcome.add("evaluations of a solve at 1e-5", {**where, "model": label, **_evaluations(timing)})
        ours = fits[name, seed, "cnf"]
        if label != "cnf" and not (ours.error or timing.error):
            outcome.add("cnf against the others", {**where, "against": label, **_difference(ours, timing)})
    return outcome


def fit_row(timing: Timing) -> dict[str, Any]:
    """What a table says of one fit."""
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
        "row error": figures.get("row_error") and f"{figures['row_error']:.0e}",
        "background": figures.get("background") and f"{figures['background']:.0e}",
    }


def _evaluations(timing: Timing) -> dict[str, Any]:
    figures = timing.figures
    return {
        "mean row": round(figures["nfe_of_mean_row"], 1),
        "slowest row": figures["nfe_of_slowest_row"],
        "batches of 1,024 with common steps, the most": figures["nfe_of_batches"],
    }


def _difference(ours: Timing, theirs: Timing) -> dict[str, Any]:
    ahead = ours.arrays["log_prob"] - theirs.arrays["log_prob"]
    half = stats.t.ppf(0.975, len(ahead) - 1) * _error(ahead)
    mean = float(ahead.mean())
    verdict = "ahead" if mean > half else "behind" if mean < -half else "level"
    return {"cnf ahead by": f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]", "verdict": verdict}


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)
