"""KL(true || model) of every model on densities that are known."""

from typing import Any

from benchmarks.cases.quality import FLOWBENCH, fit_row
from benchmarks.harness import Entry, Outcome, attempt_all, scratch
from benchmarks.known import write_known_tables
from flowbench.registry import MODELS

TEST_ROWS = 4000
#: The largest KL that is asked of the continuous flow, nats a column.
AIM = 0.01


def run(*, quick: bool, columns: int, seconds: float) -> Outcome:
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
        tables = write_known_tables(folder, columns)
        entries = {
            (name, model): Entry(model, FLOWBENCH, _arguments(str(path), name, model, seconds))
            for name, path in tables.items()
            for model in MODELS.names()
        }
        fits = attempt_all(entries)
    for (name, model), timing in fits.items():
        outcome.add("recovery", {"density": name, "model": model, **fit_row(timing)})
    return outcome


def _arguments(path: str, truth: str, model: str, seconds: float) -> dict[str, Any]:
    common = {"seed": 0, "test_rows": TEST_ROWS, "model": model}
    return {"dataset": path, "truth": truth, "seconds": seconds, **common}
