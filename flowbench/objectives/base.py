"""The contract of an objective: what one training step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.flows.base import Flow
from flowbench.flows.continuous import ContinuousFlow


@dataclass(frozen=True)
class LossTerms:
    """The scalar `total` that is minimised, and the unweighted means it is made of, by name.

    `terms` are scalars cut off from gradients; empty for an objective that has one term only.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


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

    def continuous(self, flow: Flow) -> ContinuousFlow:
        """`flow`, if it has a velocity field; raises `ConfigurationError` otherwise."""
        if not isinstance(flow, ContinuousFlow):
            raise ConfigurationError(
                f"objective `{self.options.name}` needs a continuous flow; train `{type(flow).__name__}` "
                "with `likelihood`"
            )
        return flow
