"""KL(true || model) of every model on conditional densities that are known, averaged over x."""

from benchmarks.cases.quality import fit_row
from benchmarks.harness import Entry, Outcome, attempt_all
from flowbench.registry import MODELS

CONTENDER = "benchmarks.contenders.regression:known"
TRAIN_ROWS, TEST_ROWS = 20_000, 5000
#: Columns of y given columns of x.
DENSITIES = ("1 given 1", "1 given 5", "2 given 1", "2 given 5")


def run(*, quick: bool, seconds: float) -> Outcome:
    """Every model of flowbench as it is by default, after `seconds` of CPU time."""
    seconds = seconds / 12 if quick else seconds
    outcome = Outcome(
        notes=[
            f"{seconds:g} CPU seconds each, {TRAIN_ROWS:,} rows, of which a tenth chooses the weights. Two "
            "normals whose shares, means and deviations depend smoothly on one or two columns of x; further "
            "columns say nothing. KL is the mean of log p(y | x) - log q(y | x), nats, over "
            f"{TEST_ROWS:,} fresh rows. Two contenders run at a time.",
        ]
    )
    common = {"seconds": seconds, "train_rows": TRAIN_ROWS, "test_rows": TEST_ROWS}
    entries = {
        (density, model): Entry(model, CONTENDER, {"density": density, "model": model, **common})
        for density in DENSITIES
        for model in MODELS.names()
    }
    for (density, model), timing in attempt_all(entries).items():
        outcome.add("known", {"y given x": density, "model": model, **fit_row(timing)})
    return outcome
