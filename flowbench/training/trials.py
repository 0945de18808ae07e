"""Short trials of untrained flows, of which the validation rows choose one before training."""

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from flowbench.errors import RunFailedError
from flowbench.models.density import Density
from flowbench.statistics.gaussian_mixtures import Tell
from flowbench.training.criterion import RowCriterion
from flowbench.training.judge import Judgement
from flowbench.training.plan import TrainingPlan
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

DensityT = TypeVar("DensityT", bound=Density)

#: The share of a budget that one trial takes. Measured: benchmarks/DEFAULTS.md#trials-of-scales
SHARE = 1 / 12
#: A budget that gives each trial less than this has none.
LEAST_SECONDS, LEAST_STEPS = 3.0, 100
#: No trial takes more, since nothing of a run is stored before they end.
MOST_SECONDS, MOST_STEPS = 60.0, 1000


def choose_by_trials(
    flows: Mapping[str, DensityT],
    plan: TrainingPlan,
    rows: TrainingRows,
    make_criterion: Callable[[], RowCriterion],
    generator: torch.Generator,
    tell: Tell,
) -> tuple[DensityT, str]:
    """The untrained flow of `flows`, by name, whose trial ends best on the validation rows, and a sentence.

    A trial is the whole plan in a `SHARE` of its budget. All trials draw the same random numbers from
    `generator`, and each is judged by a new criterion. The lowest NLL counts, however small the difference:
    where it is small, little depends on the choice. A trial that fails does not count.

    The sentence names the choice and the figures. It is empty where nothing was tried.
    """
    names = list(flows)
    shorter = _shorter(plan)
    if shorter is None or len(names) < 2:
        return flows[names[0]], ""

    def attempt(name: str, budget: TrainingPlan) -> tuple[Judgement, int]:
        generator.set_state(state)
        flow: Density = copy.deepcopy(flows[name])
        trainer = Trainer(
            flow,
            budget,
            TrainingRows(rows.train, rows.validation, None, rows.smoother),
            generator=generator,
            criterion=make_criterion(),
        )
        trainer.run()
        return trainer.last_judgement, trainer.counters.step

    state, found = generator.get_state(), {}
    failed = []
    for name in names:
        tell(f"trying {name}")
        try:
            if name == names[0]:
                # What is slow once in a process must not burden the first trial alone.
                attempt(name, shorter.model_copy(update={"seconds": None, "steps": 1}))
            found[name], steps = attempt(name, shorter)
        except RunFailedError:
            failed.append(name)
            continue
        if steps < LEAST_STEPS:
            return flows[names[0]], f"{names[0]} kept, since {steps} steps of a trial tell too little"
    return _choose(flows, found, failed)


def _choose(
    flows: Mapping[str, DensityT], found: Mapping[str, Judgement], failed: list[str]
) -> tuple[DensityT, str]:
    first = next(iter(flows))
    if not found:
        return flows[first], f"{first} kept, since every trial failed"
    best = min(found, key=lambda name: found[name].nll)
    told = ", ".join(f"{name} {judgement.nll:.4f}" for name, judgement in found.items())
    more = f"; failed: {', '.join(failed)}" if failed else ""
    verb = "kept" if best == first else "chosen"
    return flows[best], f"{best} {verb} by short trials; their validation NLL: {told}{more}"


def _shorter(plan: TrainingPlan) -> TrainingPlan | None:
    """The plan of a trial, which is judged at its end; None if its budget would be too small."""
    seconds = None if plan.seconds is None else min(plan.seconds * SHARE, MOST_SECONDS)
    steps = None if plan.steps is None else min(int(plan.steps * SHARE), MOST_STEPS)
    too_small = (seconds is not None and seconds < LEAST_SECONDS) or (
        steps is not None and steps < LEAST_STEPS
    )
    if not plan.phases or too_small:
        return None
    # A validation that is never due, but at the start and at the end.
    changes = {"seconds": seconds, "steps": steps, "validation_steps": 2**31, "patience": 0.0}
    return plan.model_copy(update=changes)
