"""What a training run does: a list of phases inside one budget."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flowbench.options import Options, part_of
from flowbench.registry import OBJECTIVES
from flowbench.training.optimizers import OptimizerName


class Phase(Options):
    """One objective with its optimiser settings, for a `share` of the budget.

    `optimizer` "adamw" is Adam (Kingma and Ba 2015), "soap" the same in the eigenbases of Shampoo's
    preconditioner (Vyas et al. 2025), both with decoupled weight decay; the learning rate warms up linearly
    over `warmup_steps`, and falls to zero along a cosine over the last `decline` of the phase (0: never).
    `clip_norm` bounds the gradient's norm (0: no bound). `smoothing` is the width of the noise around train
    rows, where these are few, at the start of the phase, and falls to zero evenly
    (`flowbench.training.smoothing`). `matmul_precision` is torch's `fp32_precision`: "bf16" lets the matrix
    products of a step, never those of a validation, round to bfloat16 where the processor has units for it.
    """

    objective: part_of(OBJECTIVES, "likelihood") = {"name": "likelihood"}  # type: ignore[valid-type]
    share: PositiveFloat = 1.0
    optimizer: OptimizerName = "adamw"
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 100
    decline: float = Field(default=1.0, ge=0, le=1)
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: NonNegativeFloat = 10.0
    smoothing: NonNegativeFloat = 0.0
    matmul_precision: Literal["ieee", "tf32", "bf16"] = "ieee"


#: Rows that choose between the best and the last weights, at least, unless a plan asks for fewer.
LEAST_RESERVE = 500


class TrainingPlan(Options):
    """Phases, the budget they share, and how progress is judged.

    The budget is `steps` optimiser steps, `seconds` of wall time, or whichever of the two ends first.
    Validation is on the first `validation_rows` validation rows, with the exponential moving average of
    the weights (decay min(`ema_decay`, (i + 1) / (i + 10)) at step i of a phase): every `validation_steps`
    steps, or by default every fortieth of the budget, and more often at first where the budget is a time. A
    phase begins from the best weights so far, after a validation, with a fresh optimiser. The best
    weights are kept, but where there are more validation rows, up to `reserve_rows` of them choose between
    these and the last; fewer than `LEAST_RESERVE` would choose badly, and join the others. Training stops
    early when a share `patience` of the budget brought nothing (0: never); where the rate declines, when all
    of that time the NLL was worse than the best by more than two standard errors. Where it fails, it
    goes back to the last validation at half the rate, `max_rollbacks` times at most.
    """

    phases: tuple[Phase, ...] = (Phase(),)
    steps: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    validation_rows: PositiveInt = 1000
    reserve_rows: NonNegativeInt = 5000
    validation_steps: PositiveInt | None = None
    patience: float = Field(default=0.5, ge=0, le=1)
    max_rollbacks: NonNegativeInt = 5

    @model_validator(mode="after")
    def _has_budget(self) -> Self:
        if self.phases and self.steps is None and self.seconds is None:
            raise ValueError(
                "a training plan needs a budget: set `steps`, `seconds` (`--time-budget`) or both"
            )
        return self

    def divide(self, rows: int) -> tuple[int, int]:
        """How many of so many validation `rows` judge all along, and how many more do at the end."""
        judged = min(rows, self.validation_rows)
        reserved = min(rows - judged, self.reserve_rows)
        if reserved < min(LEAST_RESERVE, self.reserve_rows):
            return judged + reserved, 0
        return judged, reserved

    def phase_at(self, fraction: float) -> tuple[int, float]:
        """The phase that runs when `fraction` of the budget is spent, and the spent fraction of the phase."""
        total = sum(phase.share for phase in self.phases)
        for index, phase in enumerate(self.phases):
            share = phase.share / total
            if fraction < share or index == len(self.phases) - 1:
                return index, min(fraction / share, 1.0)
            fraction -= share
        return 0, 1.0
