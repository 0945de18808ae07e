"""The base class of objectives: the loss that a training step minimises."""

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
    """The scalar `total` that is minimised, and its unweighted terms by name.

    `terms` are detached scalars, means over the batch. They are empty for an objective with one term.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A loss of a density, mostly of a flow, on a batch; it holds options only, never state."""

    Options: ClassVar[type[options.PartOptions]]

    def __init__(self, options: options.PartOptions) -> None:
        self.options = options

    def is_static_for(self, flow: Density) -> bool:
        """Whether the loss on batches of one size can be recorded as a CUDA graph.

        Then it does the same operations whatever the values are, on one device. A subclass with other
        operations than its parent overrides this method.
        """
        return False

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` if this objective cannot train `flow`."""
        # Not every density has parameters; continuous flows always do.
        if next(flow.parameters(), None) is None:
            raise ConfigurationError(
                f"model `{flow.options.name}` is fitted without steps and has nothing to train; leave its "
                "`plan.phases` empty"
            )

    @abstractmethod
    def __call__(
        self, flow: Density, batch: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> LossTerms:
        """The loss on `batch: (n, d)` in model space, given `context: (n, c)` if the flow is conditional.

        Every random draw comes from `generator`.
        """

    def continuous(self, flow: Density) -> ContinuousFlow:
        """`flow`, if it is a continuous flow; raises `ConfigurationError` otherwise."""
        if not isinstance(flow, ContinuousFlow):
            Objective.check(self, flow)
            raise ConfigurationError(
                f"objective `{self.options.name}` needs a continuous flow; train `{flow.options.name}` "
                "with `likelihood`"
            )
        return flow
