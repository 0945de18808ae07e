"""What a GPU brings: training steps, recorded and not, and exact scoring, beside one core of the CPU."""

import numpy as np
import torch

from benchmarks.harness import Entry, NotHereError, Outcome, Timing, interleave, scratch
from benchmarks.problem import perturbed_flow, save_problem
from flowbench.models.density_model import CHUNK, GPU_CHUNK

FLOWBENCH = "benchmarks.contenders.flowbench_cnf"
#: Columns, and rows of a step: the default's for a toy and a table after a minute.
SIZES = ((2, 1024), (9, 4096))
STEPS, CPU_STEPS = 200, 10


def run(*, quick: bool) -> Outcome:
    """The default field on 2 and 9 columns."""
    if not torch.cuda.is_available():
        raise NotHereError("there is no CUDA device")
    outcome = Outcome(
        notes=[
            f"{torch.cuda.get_device_name()} beside one core. CPU time of the process, which waits for the "
            "GPU without rest. A step is a gradient of flow matching, clipped, and one of Adam. Scores are "
            f"float64 at 1e-6 with the exact divergence, {GPU_CHUNK:,} rows at once on the GPU and {CHUNK:,} "
            "on the CPU; the error is the largest difference between the two.",
        ]
    )
    rounds = 3 if quick else 9
    with scratch() as folder:
        for features, batch in SIZES:
            flow = perturbed_flow(features, {"name": "time-mlp"}, 0.02)
            generator = torch.Generator().manual_seed(1)
            rows = torch.randn(GPU_CHUNK, features, generator=generator, dtype=torch.float64)
            parts = {"whole": rows, "chunk": rows[:CHUNK], "batch": rows[:batch]}
            paths = {name: folder / f"{features}-{name}.npz" for name in parts}
            for name, part in parts.items():
                save_problem(paths[name], flow, part)
            _steps(outcome, features, str(paths["batch"]), rounds)
            _scores(outcome, features, str(paths["whole"]), str(paths["chunk"]), rounds)
    return outcome


def _steps(outcome: Outcome, features: int, problem: str, rounds: int) -> None:
    ways = {
        "GPU, recorded": {"device": "cuda", "recorded": True, "repetitions": STEPS},
        "GPU, launch by launch": {"device": "cuda", "recorded": False, "repetitions": STEPS},
        "CPU": {"device": "cpu", "recorded": False, "repetitions": CPU_STEPS},
    }
    timings = interleave(
        [Entry(name, f"{FLOWBENCH}:steps", {"problem": problem, **way}) for name, way in ways.items()], rounds
    )
    for name, timing in timings.items():
        each = {"failed": timing.error} if timing.error else {"ms a step": round(_each(timing) * 1e3, 3)}
        outcome.add("training", {"what": f"d = {features}, {name}", **each})


def _scores(outcome: Outcome, features: int, whole: str, chunk: str, rounds: int) -> None:
    common = {"integrator": {"name": "per-row", "atol": 1e-6, "rtol": 1e-6}, "direction": "to_base"}
    ways = {"GPU": {"problem": whole, "device": "cuda"}, "CPU": {"problem": chunk, "device": "cpu"}}
    timings = interleave(
        [
            Entry(name, f"{FLOWBENCH}:carry", {**common, "dtype": "float64", **way})
            for name, way in ways.items()
        ],
        rounds,
    )
    for name, timing in timings.items():
        row = {"what": f"d = {features}, {name}"}
        if timing.error:
            outcome.add("scoring", {**row, "failed": timing.error})
            continue
        speed = len(timing.arrays["log_prob"]) / timing.median
        outcome.add("scoring", {**row, "rows a second": f"{speed:,.0f}"})
    if not any(timing.error for timing in timings.values()):
        own, other = (timings[name].arrays["log_prob"][:CHUNK] for name in ways)
        outcome.tables["scoring"][-2]["error"] = f"{np.abs(own - other).max():.1e}"


def _each(timing: Timing) -> float:
    """CPU seconds of one of the repetitions."""
    return timing.median / float(timing.figures["repetitions"])
