"""One gradient of a latent ODE's evidence bound: the same weights, series, draws and tolerance for all."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import JAX_PYTHON, Entry, Outcome, Timing, interleave, once, scratch
from benchmarks.latent_problem import save_latent_problem
from benchmarks.statistics import relative_error
from flowbench.data.series_toys import Spirals
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.latent_ode import LatentOde, LatentOdeOptions
from flowbench.objectives.evidence_bound import EvidenceBound, EvidenceBoundOptions
from flowbench.training.gradient import Gradient
from flowbench.workflows.machine import cpu_threads

TOLERANCE = 1e-5
FLOWBENCH = "benchmarks.contenders.flowbench_latent_ode:gradient"
TORCHDIFFEQ = "benchmarks.contenders.torchdiffeq_latent_ode:gradient"
DIFFRAX = "benchmarks.contenders.diffrax_latent_ode:gradient"

SERIES, TIMES = 1000, 100
TITLE = f"spirals, batch {SERIES:,}, {TIMES} times, latent 4, dynamics and decoder 20, recognition 25"


def run(*, quick: bool) -> Outcome:
    """All contenders in turns; quick: fewer rounds, and one of diffrax's ways, the fastest."""
    outcome = Outcome(
        notes=[
            "Error: |gradient - reference| / |reference|, all weights together; reference float64 at 1e-11.",
            f"dopri5 at atol = rtol = {TOLERANCE:g}, float32. diffrax is timed after compilation.",
            "torchdiffeq's example calls a recurrent cell for each time (loop). The module is torch.nn.GRU.",
            "diffrax solves for the batch as one state (together), or for each series under vmap (apart).",
        ]
    )
    with scratch() as folder:
        problem = folder / "spirals.npz"
        with cpu_threads(1):
            _fitted_problem(problem)
        timings = interleave(_entries(problem, quick=quick), 5 if quick else 25)
        exact = {"name": "native", "atol": 1e-11, "rtol": 1e-11}
        arguments = {"problem": str(problem), "integrator": exact, "dtype": "float64"}
        reference = once(Entry("reference", FLOWBENCH, arguments))
    for name, timing in timings.items():
        outcome.add(TITLE, _row(name, timing, reference))
    ours = timings["flowbench"]
    for name, timing in timings.items():
        if name != "flowbench":
            aim = {"torchdiffeq loop": 3.0, "diffrax together": 2.0}.get(name)
            outcome.compare("gradient of the evidence bound", ours, timing, name, aim=aim)
    return outcome


def _entries(problem: Path, *, quick: bool) -> list[Entry]:
    given: dict[str, Any] = {"problem": str(problem)}
    integrator = {"name": "native", "atol": TOLERANCE, "rtol": TOLERANCE}
    entries = [
        Entry("flowbench", FLOWBENCH, given | {"integrator": integrator}),
        Entry("torchdiffeq loop", TORCHDIFFEQ, given | {"cell": "loop", "tolerance": TOLERANCE}),
        Entry("torchdiffeq module", TORCHDIFFEQ, given | {"cell": "module", "tolerance": TOLERANCE}),
    ]
    for rows in ("together",) if quick else ("together", "apart"):
        entries.append(
            Entry(f"diffrax {rows}", DIFFRAX, given | {"rows": rows, "tolerance": TOLERANCE}, JAX_PYTHON)
        )
    return [entry for entry in entries if entry.python.exists()]


def _fitted_problem(path: Path) -> None:
    """Take 300 steps on spirals of which every point is seen, so that the dynamics are those of training."""
    drawn = Spirals(noise=0.1, points=TIMES, steps=TIMES).draw(SERIES, 0)
    values = torch.from_numpy(np.array(drawn.values)).float().view(SERIES, TIMES, -1)
    values = (values - values.mean((0, 1))) / values.std((0, 1))
    times = torch.linspace(0, 1, TIMES)
    batch = SeriesBatch(
        times.expand(SERIES, -1).contiguous(),
        values,
        torch.ones_like(values, dtype=torch.bool),
        torch.full((SERIES,), TIMES),
    )
    generator = torch.Generator().manual_seed(0)
    model = LatentOde(2, LatentOdeOptions(latent=4, width=20, layers=1, units=25), generator)
    gradient = Gradient(model, EvidenceBound(EvidenceBoundOptions(cut=0.0)), generator, clip_norm=10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        gradient(batch[torch.randint(SERIES, (64,), generator=generator)])
        optimizer.step()
    save_latent_problem(path, model, times, values)


def _row(name: str, timing: Timing, reference: Timing) -> dict[str, Any]:
    if timing.error:
        return {"contender": name, "failed": timing.error}
    row = {
        "contender": name,
        "CPU ms": round(1e3 * timing.median, 1),
        "nfe": timing.figures["nfe"],
        "relative gradient error": f"{relative_error(timing.arrays, reference.arrays):.1e}",
    }
    if name.startswith("diffrax"):
        row["CPU s to compile"] = timing.figures["compile_cpu_seconds"]
    return row
