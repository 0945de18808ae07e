"""The base class of studies: a published claim, and the trials that measure it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.statistics.paired import PairedDifference
from flowbench.store.findings import Findings, Series

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


@dataclass(frozen=True)
class Workspace:
    """The folders that a study may use: of the `data` that it reads, and of `scraps`.

    A long trial may keep in `scraps` what it has so far, and go on from there after a kill. Without the
    folder it keeps nothing.
    """

    data: Path | None = None
    scraps: Path | None = None


def compared(difference: PairedDifference | None, digits: int = 4) -> str:
    """A difference with its interval, for a table."""
    if difference is None:
        return "one seed"
    mean, low, high = (f"{each:+.{digits}f}" for each in (difference.mean, difference.low, difference.high))
    return f"{mean} [{low}, {high}]"


def over_seeds(label: str, x: Floats, values: Sequence[Floats]) -> Series:
    """A line through the means of the `values`, `(s,)` for each of `x: (n,)`, with bars over all of them."""
    mean, low, high = (np.array([f(each) for each in values]) for f in (np.mean, np.min, np.max))
    return Series(label, x, mean, low, high)


def on_arrays(log_prob: Callable[[Tensor], Tensor]) -> Callable[[Floats], Floats]:
    """A log-density of tensors as one of float64 arrays."""
    return lambda x: log_prob(torch.from_numpy(x)).numpy()


class Study(ABC):
    """Measures one claim. Trials do not depend on one another, so a study goes on where it was stopped."""

    claim: ClassVar[Claim]

    def __init__(self, workspace: Workspace | None = None) -> None:
        self.workspace = workspace or Workspace()

    @classmethod
    def reads(cls, budget: Budget) -> str | None:
        """The folder of `datasets/` that the trials of a budget read; None if they read no files."""
        return None

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
