"""KL(true || model) of every model on densities that are known, in 2, 8 and 32 columns."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.cases.quality import FLOWBENCH, fit_row
from benchmarks.harness import Entry, Outcome, attempt, scratch
from benchmarks.known import write_known_tables
from flowbench.registry import FLOWS

TEST_ROWS = 4000
#: The largest KL that is asked of the continuous flow, nats a column.
AIM = 0.01


def run(*, quick: bool, seconds: float) -> Outcome:
    """Every model of flowbench as it is by default, after `seconds` of CPU time."""
    seconds = seconds / 12 if quick else seconds
    outcome = Outcome(
        notes=[
            f"{seconds:g} CPU seconds each, 160,000 train rows, behind the marginal Gaussianiser. A Gaussian "
            "with full covariance; bananas in turned pairs of columns; five Gaussians with full covariances. "
            f"Asked of cnf: at most {AIM:g} nat a column. Two contenders run at a time.",
        ]
    )
    with scratch() as folder:
        tables = write_known_tables(folder)
        entries = {
            (name, model): Entry(model, FLOWBENCH, _arguments(str(path), name, model, seconds))
            for name, path in tables.items()
            for model in FLOWS.names()
            if not quick or name.endswith("-2")
        }
        with ThreadPoolExecutor(2) as pool:
            fits = dict(zip(entries, pool.map(attempt, entries.values()), strict=True))
    for (name, model), timing in fits.items():
        outcome.add("recovery", {"density": name, "model": model, **fit_row(timing)})
    return outcome


def _arguments(path: str, truth: str, model: str, seconds: float) -> dict[str, Any]:
    common = {"seed": 0, "test_rows": TEST_ROWS, "model": model}
    return {"dataset": path, "truth": truth, "seconds": seconds, **common}
