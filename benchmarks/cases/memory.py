"""Peak memory: of a likelihood gradient as its solve gets longer, and of scoring as tables do."""

from typing import Any

import torch

from benchmarks.harness import Entry, Outcome, attempt, scratch
from benchmarks.problem import perturbed_flow, save_problem

STEPS = (8, 32, 128)
FLOWBENCH = "benchmarks.contenders.flowbench_cnf"
MIB = 2**20


def run(*, quick: bool) -> Outcome:
    """Gradients by 8 to 128 steps (quick: 32), with and without checkpoints; 10^4 to 10^7 rows (10^5)."""
    outcome = Outcome(
        notes=[
            "Resident memory of a process of its own at its peak, less that of the same process with the "
            "smallest problem of the column; rk4, so that the number of evaluations is known.",
            "Scoring: a small field at a tolerance of 1e-2, float64, since only the memory is of interest. "
            "Rows and their log-likelihoods themselves take 24 bytes a row.",
        ]
    )
    with scratch() as folder:
        problem = folder / "problem.npz"
        flow = perturbed_flow(6, {"name": "time-mlp", "scales": 0}, 0.05)
        save_problem(problem, flow, torch.randn(2000, 6, generator=torch.Generator().manual_seed(1)))
        for checkpoint in (False, True):
            entries = _gradients(str(problem), checkpoint, STEPS[:2] if quick else STEPS)
            _add(outcome, "gradient, d = 6, batch 2,000, width 128", entries)
        sizes = (10**4, 10**5) if quick else (10**4, 10**5, 10**6, 10**7)
        for direction in ("scoring", "sampling"):
            entries = {
                f"{size:,} rows": Entry(
                    f"{direction} {size}", f"{FLOWBENCH}:many", {"rows": size, "direction": direction}
                )
                for size in sizes
            }
            _add(outcome, direction, entries)
    return outcome


def _gradients(problem: str, checkpoint: bool, numbers: tuple[int, ...]) -> dict[str, Entry]:
    integrators: dict[str, dict[str, Any]] = {
        f"{4 * steps} evaluations, {'with' if checkpoint else 'without'} checkpoints": {
            "name": "native",
            "method": "rk4",
            "steps": steps,
            "checkpoint": checkpoint,
        }
        for steps in numbers
    }
    return {
        name: Entry(name, f"{FLOWBENCH}:gradient", {"problem": problem, "integrator": options})
        for name, options in integrators.items()
    }


def _add(outcome: Outcome, title: str, entries: dict[str, Entry]) -> None:
    least = 0
    for name, entry in entries.items():
        timing = attempt(entry)
        if timing.error:
            outcome.add(title, {"what": name, "failed": timing.error})
            continue
        least = least or timing.peak_bytes
        outcome.add(
            title,
            {
                "what": name,
                "peak MiB": round(timing.peak_bytes / MIB),
                "more than the first, MiB": round((timing.peak_bytes - least) / MIB),
                "CPU s": round(timing.median, 2),
            },
        )
