"""The base class of studies: a published claim, and the trials that measure it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.statistics.paired import PairedDifference
from flowbench.store.findings import Findings

Floats = NDArray[np.float64]
#: How much of a study is done: under three minutes, under thirty on two cores, or as published.
Budget = Literal["quick", "default", "full"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Claim:
    """What a paper says: the `statement`, and where it says so (`source`)."""

    name: str
    title: str
    statement: str
    source: str


@dataclass(frozen=True)
class Trial:
    """One piece of a study that is measured and stored on its own.

    `name` is a file's name and unique in the study. `values` say what is measured.
    """

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What a trial gave: single `figures` and `arrays`, by name."""

    figures: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, Floats] = field(default_factory=dict)


def compared(difference: PairedDifference | None) -> str:
    """A difference with its interval, for a table."""
    if difference is None:
        return "one seed"
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def on_arrays(log_prob: Callable[[Tensor], Tensor]) -> Callable[[Floats], Floats]:
    """A log-density of tensors as one of float64 arrays."""
    return lambda x: log_prob(torch.from_numpy(x)).numpy()


class Study(ABC):
    """Measures one claim. Trials do not depend on one another, so a study goes on where it was stopped."""

    claim: ClassVar[Claim]

    @abstractmethod
    def trials(self, budget: Budget) -> Sequence[Trial]:
        """The trials of a budget, in the order in which they are measured."""

    @abstractmethod
    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Carry out one trial; `tell` hears how far it is.

        The same trial gives the same figures where its budget is in steps.
        """

    @abstractmethod
    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """The verdict on all trials of the budget, with tables and pictures."""
