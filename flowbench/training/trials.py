"""Short trials of untrained flows, of which the validation rows choose one before training."""

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from flowbench.errors import RunFailedError
from flowbench.models.density import Density
from flowbench.statistics.gaussian_mixtures import Tell
from flowbench.training.plan import TrainingPlan
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

DensityT = TypeVar("DensityT", bound=Density)

#: The share of a budget that one trial takes. Measured: benchmarks/DEFAULTS.md#trials-of-scales
SHARE = 1 / 12
#: Without so many seconds or steps for each trial, there are none: they would tell too little.
LEAST_SECONDS, LEAST_STEPS = 3.0, 100
#: No trial takes longer, since nothing of a run is stored before they end.
MOST_SECONDS, MOST_STEPS = 60.0, 2000


def choose_by_trials(
    flows: Mapping[str, DensityT],
    plan: TrainingPlan,
    rows: TrainingRows,
    generator: torch.Generator,
    tell: Tell,
    should_stop: Callable[[], bool],
) -> tuple[DensityT, str]:
    """The untrained flow of `flows`, by name, whose trial ends at the lowest validation NLL, and a sentence.

    A trial is the whole plan in a `SHARE` of its budget, or in a minute where that is less. All trials draw
    the same random numbers from `generator`. If one fails or `should_stop` asks for an end, the first of the
    flows is chosen. The sentence names the choice and the figures, and is empty where nothing was tried.
    """
    first = next(iter(flows.values()))
    shorter = _shorter(plan)
    if shorter is None or len(flows) < 2:
        return first, ""
    state, figures = generator.get_state(), {}
    for name, flow in flows.items():
        tell(f"trying {name}")
        generator.set_state(state)
        trainer = Trainer(
            copy.deepcopy(flow),
            shorter,
            TrainingRows(rows.train, rows.validation, None, rows.smoother),
            generator=generator,
            should_stop=should_stop,
        )
        try:
            trainer.run()
        except RunFailedError as error:
            return first, f"nothing was chosen by trials, since that of {name} failed: {error}"
        if should_stop():
            return first, ""
        figures[name] = trainer.counters.best_nll
    best = min(figures, key=lambda name: figures[name])
    told = ", ".join(f"{name} {nll:.4f}" for name, nll in figures.items())
    return flows[best], f"short trials chose {best}; validation NLL in model space: {told}"


def _shorter(plan: TrainingPlan) -> TrainingPlan | None:
    """The plan of a trial, which is judged at its end; None if its budget would be too small."""
    seconds = None if plan.seconds is None else min(plan.seconds * SHARE, MOST_SECONDS)
    steps = None if plan.steps is None else min(int(plan.steps * SHARE), MOST_STEPS)
    if not plan.phases or (seconds or LEAST_SECONDS) < LEAST_SECONDS or (steps or LEAST_STEPS) < LEAST_STEPS:
        return None
    # A validation that is never due, but at the start and at the end.
    changes = {"seconds": seconds, "steps": steps, "validation_steps": 2**31, "patience": 0.0}
    return plan.model_copy(update=changes)
