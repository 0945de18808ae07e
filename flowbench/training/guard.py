"""What happens when a training step fails."""

import math

from flowbench.errors import RunFailedError
from flowbench.training.state import Counters, TrainingState


def find_fault(loss: float, gradient_norm: float) -> str:
    """Why a step must not be taken; empty if it may."""
    if not math.isfinite(loss):
        return "the loss is not finite"
    return "" if math.isfinite(gradient_norm) else "the gradient is not finite"


class Guard:
    """Keeps the last state that passed a validation, `trusted`, for training to return to.

    After `max_rollbacks` returns it gives up.
    """

    def __init__(self, trusted: TrainingState, max_rollbacks: int) -> None:
        self.trusted = trusted
        self._max_rollbacks = max_rollbacks

    def roll_back(self, counters: Counters, *, fault: str, objective: str, learning_rate: float) -> Counters:
        """The counters to go on with from the `trusted` weights: half the rate, and the failed step counts.

        Raises `RunFailedError` with a diagnosis if training returned too often before.
        """
        if counters.rollbacks >= self._max_rollbacks:
            raise RunFailedError(
                f"training with `{objective}` failed at step {counters.step}, after {counters.rollbacks} "
                "returns to the last good weights at ever lower learning rates "
                f"(now {learning_rate:.2g}): {fault}; "
                "lower `learning_rate`, raise `batch_size`, or look for extreme values in the table"
            )
        return counters.replace(
            step=counters.step + 1, rollbacks=counters.rollbacks + 1, rate_scale=counters.rate_scale / 2
        )
