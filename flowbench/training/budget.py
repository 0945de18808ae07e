"""How much of a plan's budget is spent, and what follows from that.

Every function takes the `TrainingPlan`, the `Counters` of the run and, where time matters, `wall`: the
seconds on the run's clock. None of them needs a flow.
"""

from flowbench.training.plan import TrainingPlan
from flowbench.training.state import Counters

#: How often a budget is validated, unless the plan says otherwise.
VALIDATIONS = 40
#: The share of the time that validation may take where the budget is a time.
VALIDATION_SHARE = 0.05
#: The share of the time that the choice of the weights at the end may take.
CHOICE_SHARE = 0.1
#: Where the budget is a time, the share of the time so far after which a validation is due again.
FIRST_INTERVALS = 0.1


def elapsed(counters: Counters, wall: float) -> float:
    """Seconds since the first step."""
    return wall - counters.began_at


def spent_share(plan: TrainingPlan, counters: Counters, wall: float) -> float:
    """The share of the budget that is used up: 1 or more at its end.

    Time counts from the first step, and ends early enough for the choice of the weights.
    """
    by_steps = counters.step / plan.steps if plan.steps else 0.0
    if not plan.seconds:
        return by_steps
    whole = plan.seconds - counters.began_at - counters.held_back
    return max(by_steps, elapsed(counters, wall) / whole if whole > 0 else 1.0)


def seconds_left(spent: float, elapsed_seconds: float) -> float:
    """An estimate of the seconds to the end, if the rest of the budget goes as the `spent` share did.

    NaN where nothing is spent, since nothing is known then.
    """
    if spent <= 0:
        return float("nan")
    return max(0.0, elapsed_seconds * (1 - spent) / spent)


def validation_is_due(plan: TrainingPlan, counters: Counters, wall: float, took: float) -> bool:
    """Whether to validate after this step, where the last validation `took` so many seconds."""
    if plan.validation_steps or plan.steps:
        interval = plan.validation_steps or max(1, (plan.steps or 0) // VALIDATIONS)
        if counters.step % interval == 0:
            return True
    if plan.validation_steps or not plan.seconds:
        return False
    last = counters.validated_at
    # More often at first: a small table is overfitted within a second.
    interval_seconds = min(plan.seconds / VALIDATIONS, FIRST_INTERVALS * last)
    return wall - last >= max(interval_seconds, took / VALIDATION_SHARE)


def time_to_hold_back(plan: TrainingPlan, counters: Counters, needed: float) -> float:
    """Seconds to keep for the choice of the weights at the end, which `needed` seconds would do.

    It never falls, so that the spent share does not jump back, and is zero where the budget has no time.
    """
    if not plan.seconds:
        return counters.held_back
    return max(counters.held_back, min(needed, CHOICE_SHARE * plan.seconds))


def is_stale(plan: TrainingPlan, counters: Counters, spent: float) -> bool:
    """Whether the last progress lies the plan's `patience` back, now that a share `spent` is used."""
    return plan.patience > 0 and spent - counters.improved_at >= plan.patience
