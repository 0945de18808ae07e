"""The base class of velocity fields."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.models.mixture import Mixture
from flowbench.ode.clock import EVEN, Clock
from flowbench.statistics.gaussian_mixtures import Tell, silent


class VelocityField(nn.Module, ABC):
    """A learnable velocity v(t, x), or given a context v(t, x; context); t = 0 is the base, t = 1 is the
    data.

    `t` is a scalar tensor () or one time per row (n,), within [0, 1]; `x` is (n, d), and `context` (n, c) for
    a field with `context_features` c, None for others. A row of the answer depends on that row of each alone.
    Subclasses are built as `cls(features, options, generator, context_features)` and draw their first weights
    from `generator` alone.
    """

    Options: ClassVar[type[options.Options]]
    has_closed_form_divergence: bool = False
    #: Whether its velocity does the same work whatever the values are, on the device of its parameters alone
    #: and with no state kept in Python, so that a GPU can record it.
    is_static: ClassVar[bool] = False
    #: The time in which the field is smoothest, for solvers to step in.
    clock: ClassVar[Clock] = EVEN
    options: options.Options

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.features = features
        self.context_features = context_features

    def initialise(
        self,
        x: Tensor,
        seconds: float | None = None,
        tell: Tell = silent,
        *,
        context: Tensor | None = None,
    ) -> None:
        """Choose what does not train from train rows `x: (n, d)` in model space, in a part of `seconds`.

        `tell` hears where that stands.
        """

    @property
    def start(self) -> Mixture | None:
        """The Gaussian mixture of train rows whose flow this is before it learns, if it is one's."""
        return None

    @abstractmethod
    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian dv/dx times each of the `tangents` (k, n, d), (k, n, d).

        Forward-mode autodiff, differentiable in turn. Fields override it where the tangents can share
        more work with the value.
        """

        def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.jvp(lambda rows: self.velocity(t, rows, context), (x,), (tangent,))[:2]

        # The stub forbids None, which keeps the value from being repeated for every tangent.
        velocity, pushed = torch.func.vmap(push, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
        return velocity, pushed

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form, where `has_closed_form_divergence`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no closed form of its divergence; push tangents"
        )


def time_column(t: Tensor, x: Tensor) -> Tensor:
    """`t`, () or (n,), as a column (1, 1) or (n, 1) that broadcasts against `x` (n, d), in its dtype."""
    return t.to(x).reshape(-1, 1)
