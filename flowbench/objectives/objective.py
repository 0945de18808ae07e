"""The contract of an objective: what one training step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Density


@dataclass(frozen=True)
class LossTerms:
    """The scalar `total` that is minimised, and the unweighted means it is made of, by name.

    `terms` are scalars cut off from gradients; empty for an objective that has one term only.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A loss of a density, of a flow as a rule, on a batch; it holds options only, never state."""

    Options: ClassVar[type[options.PartOptions]]

    def __init__(self, options: options.PartOptions) -> None:
        self.options = options

    def is_static_for(self, flow: Density) -> bool:
        """Whether it does the same work on every batch of a size, whatever its values, and on one device.

        Then a GPU records it. A subclass that does other work than its parent answers for itself.
        """
        return False

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` if `flow` cannot be trained by this objective."""
        # Not every density has parameters; continuous flows always do.
        if next(flow.parameters(), None) is None:
            raise ConfigurationError(
                f"model `{flow.options.name}` is fitted in closed form and has nothing to train; leave its "
                "`plan.phases` empty"
            )

    @abstractmethod
    def __call__(
        self, flow: Density, batch: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> LossTerms:
        """The loss on `batch: (n, d)` in model space, given `context: (n, c)` where the flow is conditional.

        Every random draw comes from `generator`.
        """

    def continuous(self, flow: Density) -> ContinuousFlow:
        """`flow`, if it has a velocity field; raises `ConfigurationError` otherwise."""
        if not isinstance(flow, ContinuousFlow):
            Objective.check(self, flow)
            raise ConfigurationError(
                f"objective `{self.options.name}` needs a continuous flow; train `{flow.options.name}` "
                "with `likelihood`"
            )
        return flow
