"""The base class of objectives: the loss that a training step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.models.trainable import Trainable

ModelT = TypeVar("ModelT", bound=Trainable)
BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class LossTerms:
    """The scalar `total` that is minimised, and its unweighted terms by name.

    `terms` are detached scalars, means over the batch. They are empty for an objective with one term.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(ABC, Generic[ModelT, BatchT]):
    """A loss of a model on a batch of what it learns from; it holds options only, never state."""

    Options: ClassVar[type[options.PartOptions]]
    #: What the objective can train.
    trains: ClassVar[type[Trainable]]

    def __init__(self, options: options.PartOptions) -> None:
        self.options = options

    def is_static_for(self, model: ModelT) -> bool:
        """Whether the loss on batches of one size can be recorded as a CUDA graph.

        Then it does the same operations whatever the values are, on one device. A subclass with other
        operations than its parent overrides this method.
        """
        return False

    def check(self, model: ModelT) -> None:
        """Raise `ConfigurationError` if this objective cannot train `model`."""
        # Not every model has parameters; continuous flows always do.
        if next(model.parameters(), None) is None:
            raise ConfigurationError(
                f"model `{model.options.name}` is fitted without steps and has nothing to train; leave its "
                "`plan.phases` empty"
            )

    @abstractmethod
    def __call__(
        self, model: ModelT, batch: BatchT, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss on `batch`, in model space, when a share `spent` of the training phase is over.

        Every random draw comes from `generator`.
        """


class DensityObjective(Objective[Density, Rows]):
    """A loss of a density, mostly of a flow, on rows `(n, d)`, given `(n, c)` if it is conditional."""

    trains: ClassVar[type[Trainable]] = Density

    def continuous(self, flow: Density) -> ContinuousFlow:
        """`flow`, if it is a continuous flow; raises `ConfigurationError` otherwise."""
        if not isinstance(flow, ContinuousFlow):
            Objective.check(self, flow)
            raise ConfigurationError(
                f"objective `{self.options.name}` needs a continuous flow; train `{flow.options.name}` "
                "with `likelihood`"
            )
        return flow
