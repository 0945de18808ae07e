"""The contract of a flow: an invertible map between data-like rows and a standard normal base."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.errors import ConfigurationError


@dataclass(frozen=True)
class Mapped:
    """Rows carried through a flow.

    `value: (n, d)`; `log_det: (n,)` is log|det d value / d input|, nats; `nfe` counts the evaluations of
    the velocity field, and is None for a flow that solves no equation.
    """

    value: Tensor
    log_det: Tensor
    nfe: int | None = None


class Flow(nn.Module, ABC):
    """An invertible map between rows `x: (n, d)` in model space and a standard normal base `z: (n, d)`.

    Implementations hold only the mathematics, in `_to_base` and `_to_data`; shapes are checked here.
    Initial weights are drawn from `generator`, never from the global random state.
    """

    Options: ClassVar[type[options.PartOptions]]
    #: The training plan that suits this flow, as plain values for `flowbench.training.plan.TrainingPlan`.
    default_plan: ClassVar[dict[str, Any]] = {"phases": [{"objective": "likelihood"}]}
    #: Whether a model of this flow keeps a `Background` unless it is told otherwise.
    default_background: ClassVar[bool] = False
    #: Published recipes: name -> function of the kind of data ("toy" or "table") giving configuration values.
    presets: ClassVar[dict[str, Callable[[str], dict[str, Any]]]] = {}

    def __init__(self, features: int, options: options.PartOptions, generator: torch.Generator) -> None:
        super().__init__()
        if features < 1:
            raise ConfigurationError(f"a flow needs at least one feature; got {features}")
        self.features = features
        self.options = options

    @abstractmethod
    def _to_base(self, x: Tensor, generator: torch.Generator | None) -> Mapped: ...

    @abstractmethod
    def _to_data(self, z: Tensor, generator: torch.Generator | None) -> Mapped: ...

    def initialise(self, x: Tensor) -> None:
        """Choose starting parameters from train rows `x: (n, d)` in model space."""

    def to_base(self, x: Tensor, generator: torch.Generator | None = None) -> Mapped:
        """Map data to base: `x: (n, d)` -> `z: (n, d)` with log|det dz/dx|.

        `generator` draws the probes of a stochastic divergence estimator, where the flow uses one.
        Raises `ConfigurationError` for a wrong shape and `IntegrationError` if a solve fails.
        """
        self._check(x)
        return self._to_base(x, generator)

    def to_data(self, z: Tensor, generator: torch.Generator | None = None) -> Mapped:
        """Map base to data: `z: (n, d)` -> `x: (n, d)` with log|det dx/dz|; raises as `to_base` does."""
        self._check(z)
        return self._to_data(z, generator)

    def log_prob(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-density of `x: (n, d)` in model space: `(n,)`, nats; raises as `to_base` does."""
        mapped = self.to_base(x, generator)
        return base_log_prob(mapped.value) + mapped.log_det

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` rows `(n, d)` in model space."""
        return self.sample_and_log_prob(n, generator)[0]

    def sample_and_log_prob(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `n` rows `(n, d)` and their log-densities `(n,)`, nats, model space."""
        like = next(self.parameters())
        z = torch.randn(n, self.features, generator=generator, dtype=like.dtype, device=like.device)
        mapped = self.to_data(z, generator)
        return mapped.value, base_log_prob(z) - mapped.log_det

    def trajectory(self, z: Tensor, times: Tensor) -> Tensor | None:
        """Positions `(k, n, d)` at increasing `times: (k,)` in [0, 1] of base points `z: (n, d)`.

        None for a flow without a time axis.
        """
        return None

    def for_evaluation(self, integrator: options.PartOptions) -> Self:
        """A float64 copy for likelihoods that are reported; solves, if any, use `integrator`'s options."""
        flow = copy.deepcopy(self).double().eval()
        return flow.requires_grad_(False)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ConfigurationError(f"rows must have shape (n, {self.features}); got {tuple(x.shape)}")


def base_log_prob(z: Tensor) -> Tensor:
    """Log-density of the standard normal base at `z: (n, d)`: `(n,)`, nats."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
