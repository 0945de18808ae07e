"""The base class of velocity fields."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.models.mixture import Mixture
from flowbench.ode.clock import EVEN, Clock
from flowbench.ode.integrator import Velocity
from flowbench.statistics.gaussian_mixtures import Tell, silent


class VelocityField(nn.Module, ABC):
    """A learnable velocity v(t, x), or v(t, x; context) for a conditional flow.

    t = 0 is the base and t = 1 is the data. `t` is a scalar tensor () or one time per row (n,), within [0,
    1]. `x` is (n, d). `context` is (n, c) for a field with `context_features` c > 0, and None otherwise. Each
    row of the result depends on the same row of the arguments alone.

    Subclasses are built as `cls(features, options, generator, context_features)`. They draw their initial
    weights from `generator` alone.
    """

    Options: ClassVar[type[options.Options]]
    has_closed_form_divergence: bool = False
    #: Whether the velocity can be recorded as a CUDA graph: it does the same operations whatever the values
    #: are, on the device of its parameters alone, and keeps no state in Python.
    is_static: ClassVar[bool] = False
    #: The time variable of the solver, in which the field is smoothest.
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
        weights: Tensor | None = None,
    ) -> None:
        """Set what is not trained, from training rows `x: (n, d)` in model space.

        A row of weight 2 in `weights: (n,)` counts as two rows. This may take a part of the budget of
        `seconds`. `tell` gets sentences about the progress.
        """

    def variants(self) -> dict[str, Self]:
        """As `Density.variants`: copies that differ in what training cannot change."""
        return {}

    @property
    def start(self) -> Mixture | None:
        """The Gaussian mixture of training rows that the untrained field flows to, or None."""
        return None

    def at(self, times: Tensor) -> Sequence[Velocity]:
        """The velocity at each of the `times: (k,)`; what is returned is asked for at its own time only.

        A field whose work depends largely on time alone overrides this method, and does it for all times at
        once.
        """
        return [self] * len(times)

    @abstractmethod
    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian dv/dx times each of the `tangents` (k, n, d), (k, n, d).

        Computed by forward-mode autodiff, and differentiable in turn. A field overrides this method if the
        products can share more work with the velocity.
        """

        def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.jvp(lambda rows: self.velocity(t, rows, context), (x,), (tangent,))[:2]

        # torch's type stub forbids None in `out_dims`. It means that the velocity is not repeated for each
        # tangent.
        velocity, pushed = torch.func.vmap(push, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
        return velocity, pushed

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form.

        Only for a field with `has_closed_form_divergence`; any other raises `NotImplementedError`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no closed form of its divergence; push tangents"
        )


def time_column(t: Tensor, x: Tensor) -> Tensor:
    """`t`, () or (n,), as a column (1, 1) or (n, 1) in the dtype of `x: (n, d)`."""
    return t.to(x).reshape(-1, 1)
