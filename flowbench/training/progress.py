"""What is told of a training run while it goes on."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress line and for the log.

    `loss`, and the `terms` that it is made of where there are several, are means over the steps since the
    last validation. `validation_nll` and `best_nll` are in nats, data units; `nfe` is what the last
    validation's solve took. `fraction` is the share of the budget that is spent, and `seconds_left` an
    estimate. `noun` is what the examples are called. What is not known yet, such as the loss before the first
    step, is NaN.
    """

    step: int
    phase: int
    objective: str
    loss: float
    terms: dict[str, float]
    learning_rate: float
    validation_nll: float
    best_nll: float
    nfe: int | None
    rows_per_second: float
    wall_seconds: float
    cpu_seconds: float
    fraction: float
    seconds_left: float
    noun: str = "rows"


class LossMeter:
    """Means of the loss and of its terms over `steps`."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._terms: dict[str, float] = {}

    @property
    def steps(self) -> int:
        """How many steps were added."""
        return len(self._losses)

    def add(self, loss: float, terms: Mapping[str, Tensor]) -> None:
        """Count a step with this loss and these terms, ()."""
        self._losses.append(loss)
        for name, term in terms.items():
            self._terms[name] = self._terms.get(name, 0.0) + term.item()

    def loss(self) -> float:
        """The mean loss; NaN without steps."""
        return sum(self._losses) / self.steps if self.steps else math.nan

    def terms(self) -> dict[str, float]:
        """The mean of each term by name."""
        return {name: total / self.steps for name, total in self._terms.items()}


class Throttle:
    """Says yes at most once every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last = -math.inf

    def is_due(self) -> bool:
        """Whether the interval is over since it said yes."""
        now = time.monotonic()
        if now - self._last <= self._interval:
            return False
        self._last = now
        return True
