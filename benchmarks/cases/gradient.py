"""One likelihood gradient: the same field, weights, rows and tolerance for every library."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import JAX_PYTHON, Entry, Outcome, Timing, interleave, once, scratch
from benchmarks.problem import perturbed_flow, save_problem
from benchmarks.statistics import relative_error

TOLERANCE = 1e-5
FLOWBENCH = "benchmarks.contenders.flowbench_cnf:gradient"
FFJORD = "benchmarks.contenders.ffjord:gradient"
ZUKO = "benchmarks.contenders.zuko_cnf:gradient"
DIFFRAX = "benchmarks.contenders.diffrax_cnf:gradient"

#: At which flowbench's error is below those of the libraries that are more accurate at equal tolerance.
FINE = TOLERANCE / 10
FINER = f"flowbench native dopri5, {FINE:g}"

PLANE = "d = 2, batch 512, concatsquash 3 x 64 tanh"
TABLE = "d = 43, batch 1000, two hidden layers x 256, closed-form divergence"


def run(*, quick: bool) -> Outcome:
    """Both settings; quick: one of diffrax's three ways, the fastest."""
    outcome = Outcome(
        notes=[
            "Error: |gradient - reference| / |reference|, all weights together; reference float64 at 1e-10.",
            f"dopri5 at atol = rtol = {TOLERANCE:g}, float32. diffrax is timed after compilation.",
            "At equal tolerance errors differ: flowbench is compared at a tenth of it too.",
            "FFJORD's one-probe trace is unbiased but noisy: its error is the probe's, not the solver's.",
        ]
    )
    with scratch() as folder:
        plane = folder / "plane.npz"
        flow = perturbed_flow(2, {"name": "concatsquash"}, 0.15)
        save_problem(plane, flow, _rows(512, 2))
        entries = _plane_entries(plane, quick=quick)
        _compare(outcome, PLANE, plane, entries, 7 if quick else 25, checkpoint=False)
        table = folder / "table.npz"
        field = {"name": "time-mlp", "width": 256, "scales": 0}
        save_problem(table, perturbed_flow(43, field, 0.045), _rows(1000, 43))
        _compare(outcome, TABLE, table, _table_entries(table), 2 if quick else 9, checkpoint=True)
    return outcome


def _rows(n: int, d: int) -> torch.Tensor:
    return 1.5 * torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def _flowbench(problem: Path, **options: Any) -> dict[str, Any]:
    return {"problem": str(problem), "integrator": {"atol": TOLERANCE, "rtol": TOLERANCE} | options}


def _common(problem: Path) -> list[Entry]:
    return [
        Entry("flowbench native dopri5", FLOWBENCH, _flowbench(problem, name="native")),
        Entry(FINER, FLOWBENCH, _flowbench(problem, name="native", atol=FINE, rtol=FINE)),
        Entry("flowbench native tsit5", FLOWBENCH, _flowbench(problem, name="native", method="tsit5")),
        Entry("flowbench torchdiffeq", FLOWBENCH, _flowbench(problem, name="torchdiffeq")),
        Entry(
            "flowbench torchdiffeq adjoint",
            FLOWBENCH,
            _flowbench(problem, name="torchdiffeq", gradient="adjoint"),
        ),
        Entry("zuko exact", ZUKO, {"problem": str(problem), "tolerance": TOLERANCE}),
    ]


def _plane_entries(problem: Path, *, quick: bool) -> list[Entry]:
    entries = _common(problem)
    entries.append(Entry("FFJORD recipe", FFJORD, {"problem": str(problem), "tolerance": TOLERANCE}))
    ways = (("recursive-checkpoint", "vjp"), ("recursive-checkpoint", "jvp"), ("backsolve", "jvp"))
    # Each compiles for a quarter of a minute; the first is the fastest.
    for adjoint, trace in ways[:1] if quick else ways:
        arguments = {"problem": str(problem), "adjoint": adjoint, "trace": trace, "tolerance": TOLERANCE}
        entries.append(Entry(f"diffrax {adjoint} {trace}", DIFFRAX, arguments, JAX_PYTHON))
    return [entry for entry in entries if entry.python.exists()]


def _table_entries(problem: Path) -> list[Entry]:
    arguments = {"problem": str(problem), "tolerance": TOLERANCE, "approximate": True}
    return [*_common(problem)[:4], Entry("FFJORD recipe, one probe", FFJORD, arguments)]


def _compare(
    outcome: Outcome, title: str, problem: Path, entries: list[Entry], repetitions: int, *, checkpoint: bool
) -> None:
    exact = {"name": "native", "atol": 1e-10, "rtol": 1e-10, "checkpoint": checkpoint}
    if not checkpoint:
        exact = {"name": "torchdiffeq", "atol": 1e-10, "rtol": 1e-10}
    reference = once(
        Entry("reference", FLOWBENCH, {"problem": str(problem), "integrator": exact, "dtype": "float64"})
    )
    timings = interleave(entries, repetitions)
    for name, timing in timings.items():
        outcome.add(title, _row(name, timing, reference))
    ours = timings["flowbench native dopri5"]
    for name, timing in timings.items():
        if name.startswith("FFJORD"):
            outcome.compare(f"likelihood gradient, {title}", ours, timing, name, aim=4.0)
        elif not name.startswith("flowbench"):
            aim = 2.5 if name.startswith("diffrax") else None
            outcome.compare(f"likelihood gradient, {title}", ours, timing, name, aim=aim)
        if not name.startswith("flowbench"):
            outcome.compare(f"{title}, at {FINE:g} for flowbench", timings[FINER], timing, name)


def _row(name: str, timing: Timing, reference: Timing) -> dict[str, Any]:
    if timing.error:
        return {"contender": name, "failed": timing.error}
    row = {
        "contender": name,
        "CPU ms": round(1e3 * timing.median, 1),
        "nfe": timing.figures["nfe"],
        "nfe of the adjoint": timing.figures.get("backward_nfe"),
        "relative gradient error": f"{relative_error(timing.arrays, reference.arrays):.1e}",
    }
    if name.startswith("diffrax"):
        row["CPU s to compile"] = timing.figures["compile_cpu_seconds"]
    return row
