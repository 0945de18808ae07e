"""The base class of every model that a training plan can fit."""

import copy
from abc import ABC
from importlib.util import find_spec
from itertools import chain
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.training_defaults import Adaptation


class Trainable(nn.Module, ABC):
    """A model with its `options`, the plan that trains it by default, and the packages that a fit needs."""

    Options: ClassVar[type[options.PartOptions]]
    #: The default training phases, as plain values for `flowbench.training.plan.TrainingPlan`.
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ({"objective": "likelihood"},)
    #: Changes of the defaults; where two set the same value, the later one holds.
    adaptations: ClassVar[tuple[Adaptation, ...]] = ()
    #: Whether the likelihood can be recorded as a CUDA graph: it does the same operations whatever the values
    #: are, on the device of its parameters alone, and keeps no state in Python.
    is_static: ClassVar[bool] = False
    #: Packages that a fit imports beyond flowbench's own; the extra with the model's name installs them.
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: options.PartOptions) -> None:
        super().__init__()
        self.options = options
        #: What users should know about how the last `initialise` went, in sentences.
        self.remarks: tuple[str, ...] = ()

    @classmethod
    def default_plan(cls, kind: str, seconds: float | None = None) -> dict[str, Any]:
        """The default plan for a kind of data, such as "toy" or "table", as plain values.

        `seconds` is the budget; None is a budget in steps.
        """
        changes: dict[str, Any] = {}
        for adaptation in cls.adaptations:
            if adaptation.suits(kind, seconds):
                changes |= adaptation.phase
        return {"phases": [{**phase, **changes} for phase in cls.default_phases]}

    @classmethod
    def default_options(cls, kind: str, seconds: float | None = None) -> dict[str, Any]:
        """The options whose defaults differ for a kind of data and a budget, as plain values.

        `seconds` is the budget; None is a budget in steps.
        """
        options: dict[str, Any] = {}
        for adaptation in cls.adaptations:
            if adaptation.suits(kind, seconds):
                options |= adaptation.options
        return options

    @classmethod
    def check_packages(cls) -> None:
        """Raises `ConfigurationError` if one of the `packages` that a fit needs is not installed."""
        missing = [name for name in cls.packages if find_spec(name) is None]
        if missing:
            model = cls.Options.model_fields["name"].default
            raise ConfigurationError(
                f"a fit of `{model}` needs the package {', '.join(missing)}, which is not installed; in a "
                f"checkout of flowbench, pip install '.[{model}]' brings it"
            )

    @property
    def like(self) -> Tensor:
        """A tensor with the dtype and the device of the model."""
        return next(chain(self.parameters(), self.buffers()))

    @property
    def parameter_count(self) -> int:
        """The number of parameters that are fitted."""
        return sum(parameter.numel() for parameter in self.parameters())

    def for_validation(self) -> Self:
        """A copy whose likelihoods, in the same dtype, choose among the weights of a fit."""
        return copy.deepcopy(self).requires_grad_(False)
