"""The contract of an objective: what one training step minimises."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowbench import options
from flowbench.flows.base import Flow


@dataclass(frozen=True)
class LossTerms:
    """The scalar that is minimised."""

    total: Tensor


class Objective(ABC):
    """A loss of a flow on a batch; it holds options only, never state."""

    Options: ClassVar[type[options.PartOptions]]

    def __init__(self, options: options.PartOptions) -> None:
        self.options = options

    def check(self, flow: Flow) -> None:  # noqa: B027 - most objectives suit every flow
        """Raise `ConfigurationError` if `flow` cannot be trained by this objective."""

    @abstractmethod
    def __call__(self, flow: Flow, batch: Tensor, generator: torch.Generator) -> LossTerms:
        """The loss on `batch: (n, d)` in model space; every random draw comes from `generator`."""
