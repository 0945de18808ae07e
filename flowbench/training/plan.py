"""What a training run does: a list of phases inside one budget."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flowbench.options import Options, part_of
from flowbench.registry import OBJECTIVES
from flowbench.training.optimizers import OptimizerName


class Phase(Options):
    """One objective with its optimiser settings, for a `share` of the budget.

    `optimizer` "adamw" is Adam (Kingma and Ba 2015). "soap" is Adam in the eigenbases of Shampoo's
    preconditioner (Vyas et al. 2025). Both have decoupled weight decay.

    The learning rate warms up linearly over `warmup_steps`. It falls to zero along a cosine over the last
    `decline` of the phase (0: never). `clip_norm` bounds the gradient's norm (0: no bound).

    `smoothing` is the width of the noise around train rows, where these are few
    (`flowbench.training.smoothing`). It holds at the start of the phase and falls evenly to zero.

    `matmul_precision` is torch's `fp32_precision` for the matrix products of a step. "bf16" rounds them to
    bfloat16 where the processor has units for it. Validations are never rounded.
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


#: The fewest rows that may choose between the best and the last weights, unless a plan asks for fewer.
LEAST_RESERVE = 500


class TrainingPlan(Options):
    """Phases, the budget they share, and how progress is judged.

    The budget is `steps` optimiser steps, `seconds` of wall time, or whichever of the two ends first. A phase
    begins from the best weights so far, after a validation, with a fresh optimiser.

    A validation judges the exponential moving average of the weights on the first `validation_rows`
    validation rows. Its decay is min(`ema_decay`, (i + 1) / (i + 10)) at step i of a phase. Validations are
    `validation_steps` steps apart. By default there are forty in the budget, and they are more frequent at
    first where the budget is a time.

    The best weights are kept. Where there are more validation rows, up to `reserve_rows` of them choose
    between the best and the last weights at the end. Fewer than `LEAST_RESERVE` would choose badly, and join
    the others.

    Training stops early when a share `patience` of the budget brought no progress (0: never). Progress is a
    better NLL. While the rate declines, an NLL at most two standard errors above the best counts as well.

    Training that fails goes back to the last validation at half the rate, `max_rollbacks` times at most.
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
        """How many of the validation `rows` judge throughout, and how many more only at the end."""
        judged = min(rows, self.validation_rows)
        reserved = min(rows - judged, self.reserve_rows)
        if reserved < min(LEAST_RESERVE, self.reserve_rows):
            return judged + reserved, 0
        return judged, reserved

    def phase_at(self, fraction: float) -> tuple[int, float]:
        """The index of the phase at this `fraction` of the budget, and how much of the phase is spent."""
        total = sum(phase.share for phase in self.phases)
        for index, phase in enumerate(self.phases):
            share = phase.share / total
            if fraction < share or index == len(self.phases) - 1:
                return index, min(fraction / share, 1.0)
            fraction -= share
        return 0, 1.0
