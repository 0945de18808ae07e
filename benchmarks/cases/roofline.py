"""The share of the processor's own matrix-product rate that training and scoring reach."""

from typing import Any

import torch

from benchmarks.harness import Entry, Outcome, interleave, scratch
from benchmarks.problem import perturbed_flow, save_problem

WIDTH, BATCH = 512, 2000
FLOWBENCH = "benchmarks.contenders.flowbench_cnf"


def run(*, quick: bool) -> Outcome:
    """Training and scoring, width 512, batch 2,000, in 2 and 9 columns (quick: 2), beside like products."""
    outcome = Outcome(
        notes=[
            "Operations are counted by formula, two for each multiplication of a matrix product and none "
            "for anything else; products measured are (2000 x 512) (512 x 512), the faster of torch's two "
            "libraries, in the dtype of the work: float32 for training, float64 for scoring.",
        ]
    )
    rounds = 3 if quick else 9
    with scratch() as folder:
        for features in (2,) if quick else (2, 9):
            problem = folder / f"{features}.npz"
            flow = perturbed_flow(features, {"name": "time-mlp", "width": WIDTH}, 0.02)
            rows = torch.randn(BATCH, features, generator=torch.Generator().manual_seed(1))
            save_problem(problem, flow, rows)
            inputs, directions = flow.field.first.in_features, flow.field.waves.directions.shape[1]
            work = {
                "training step": ("steps", "float32", training_products(features, inputs)),
                "velocity and divergence": (
                    "rates",
                    "float64",
                    scoring_products(features, inputs, directions),
                ),
            }
            for name, (function, dtype, products) in work.items():
                _compare(outcome, f"{name}, d = {features}", function, str(problem), dtype, products, rounds)
    return outcome


def training_products(features: int, inputs: int) -> int:
    """Multiplications for a row's flow-matching gradient: three products a layer, two for the first."""
    return 2 * inputs * WIDTH + 3 * WIDTH**2 + 3 * WIDTH * features + 2 * 2 * 14 * WIDTH


def scoring_products(features: int, inputs: int, directions: int) -> int:
    """Multiplications for a row's velocity and divergence in closed form."""
    velocity = inputs * WIDTH + WIDTH**2 + WIDTH * features + 2 * 14 * WIDTH
    owed = features * WIDTH**2 + features * WIDTH
    waves = directions * features * WIDTH + (inputs - features) * WIDTH
    return velocity + owed + waves


def _compare(
    outcome: Outcome, title: str, function: str, problem: str, dtype: str, products: int, rounds: int
) -> None:
    entries = [
        Entry("work", f"{FLOWBENCH}:{function}", {"problem": problem, "dtype": dtype}),
        *(
            Entry(
                precision,
                f"{FLOWBENCH}:products",
                {"rows": BATCH, "width": WIDTH, "dtype": dtype, "precision": precision},
            )
            for precision in ("ieee", "bf16")
        ),
    ]
    timings = interleave(entries, rounds)
    failed = {name: timing.error for name, timing in timings.items() if timing.error}
    if failed:
        outcome.add("share", {"what": title, "failed": str(failed)})
        return
    rates: dict[str, Any] = {
        name: timings[name].figures["operations"] / timings[name].median / 1e9 for name in ("ieee", "bf16")
    }
    reached = 2 * products * BATCH * timings["work"].figures["repetitions"] / timings["work"].median / 1e9
    outcome.add(
        "share",
        {
            "what": title,
            "GFLOP/s": round(reached, 1),
            "product, GFLOP/s": round(max(rates.values()), 1),
            "share": f"{reached / max(rates.values()):.0%}",
            "asked": "50%",
        },
    )
