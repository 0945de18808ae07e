"""The velocity field of FFJORD (Grathwohl et al. 2019): a perceptron whose layers are gated by time."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from flowbench import options
from flowbench.models.continuous.fields.activations import ACTIVATIONS, ActivationName
from flowbench.models.continuous.fields.velocity_field import VelocityField, time_column
from flowbench.models.seeded_layers import seeded_linear


class ConcatSquashOptions(options.PartOptions):
    """Widths of the `hidden` layers, their `activation`, and the length of FFJORD's own time axis.

    With `per_feature` each width is multiplied by the number of columns. A larger `time_length` lets the same
    weights move rows further.
    """

    name: Literal["concatsquash"] = "concatsquash"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((64, 64, 64), min_length=1)
    per_feature: bool = False
    activation: ActivationName = "tanh"
    time_length: float = Field(0.5, gt=0)


class ConcatSquash(VelocityField):
    """v(t, x) = -T net(T (1 - t), x), with T the `time_length`.

    FFJORD integrates dx/dtau = net(tau, x) from the data at tau = 0 to the base at tau = T, so tau = T (1 -
    t). Each layer is a `ConcatSquashLinear`; a context adds a term to each.
    """

    Options: ClassVar[type[options.PartOptions]] = ConcatSquashOptions
    is_static: ClassVar[bool] = True
    options: ConcatSquashOptions

    def __init__(
        self,
        features: int,
        options: ConcatSquashOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, context_features)
        self.options = options
        self.time_length = options.time_length
        self.activation = ACTIVATIONS[options.activation]
        factor = features if options.per_feature else 1
        widths = (features, *(factor * width for width in options.hidden), features)
        self.layers = nn.ModuleList(
            ConcatSquashLinear(inputs, outputs, generator, context_features)
            for inputs, outputs in pairwise(widths)
        )

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        tau = self._own_time(t, x)
        *hidden, last = cast(list[ConcatSquashLinear], list(self.layers))
        for layer in hidden:
            x = self.activation.value(layer(tau, x, context))
        velocity: Tensor = -self.time_length * last(tau, x, context)
        return velocity

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian times each of the `tangents` (k, n, d), in one pass."""
        tau = self._own_time(t, x)
        *hidden, last = cast(list[ConcatSquashLinear], list(self.layers))
        for layer in hidden:
            x, tangents = layer.jvp(tau, x, tangents, context)
            x, slope = self.activation.value_and_derivative(x)
            tangents = slope * tangents
        x, tangents = last.jvp(tau, x, tangents, context)
        return -self.time_length * x, -self.time_length * tangents

    def _own_time(self, t: Tensor, x: Tensor) -> Tensor:
        return self.time_length * (1 - time_column(t, x))


class ConcatSquashLinear(nn.Module):
    """The layer (W x + b) * sigmoid(g tau + c) + h tau, with tau a column (1, 1) or (n, 1).

    Given a context, the first bracket is (W x + C context + b).
    """

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, context_features: int = 0
    ) -> None:
        super().__init__()
        self.layer = seeded_linear(inputs, outputs, generator)
        self.gate = seeded_linear(1, outputs, generator)
        self.shift = seeded_linear(1, outputs, generator, bias=False)
        if context_features:
            self.given = seeded_linear(context_features, outputs, generator, bias=False)

    def forward(self, tau: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        """The output (n, outputs) for `x` (n, inputs)."""
        inner = self.layer(x) if context is None else self.layer(x) + self.given(context)
        value: Tensor = inner * torch.sigmoid(self.gate(tau)) + self.shift(tau)
        return value

    def jvp(self, tau: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output and its tangents (k, n, outputs) for `tangents` (k, n, inputs)."""
        gate, shift = torch.sigmoid(self.gate(tau)), self.shift(tau)
        if context is not None:
            value = (self.layer(x) + self.given(context)) * gate + shift
            return value, functional.linear(tangents, self.layer.weight) * gate
        if len(tau) > 1:
            return self.layer(x) * gate + shift, functional.linear(tangents, self.layer.weight) * gate
        # With one time for all rows it is cheaper to gate the weights than the layer's outputs.
        weight = gate.T * self.layer.weight
        bias = torch.addcmul(shift, self.layer.bias, gate).squeeze(0)
        return functional.linear(x, weight, bias), functional.linear(tangents, weight)
