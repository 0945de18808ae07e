"""A two-hidden-layer velocity field with a time embedding and a closed-form divergence."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from flowbench import options
from flowbench.fields.activations import ACTIVATIONS
from flowbench.fields.base import VelocityField, seeded_linear, time_column

# 1 - t is resolved down to this: likelihood weighs the linear path by t / (1 - t), so its last
# stretch before the data needs a resolution of its own.
TIME_FLOOR = 1e-3

SILU = ACTIVATIONS["silu"]


class TimeMLPOptions(options.Options):
    """`width` of both hidden layers; `octaves` of sines and cosines in the time embedding."""

    name: Literal["time-mlp"] = "time-mlp"
    width: int = Field(256, ge=1)
    octaves: int = Field(3, ge=0, le=16)


class TimeMLP(VelocityField):
    """v(t, x) = (2t - 1) / s^2 x + net(x / s, t) / s, with s^2 = t^2 + (1 - t)^2.

    The first term is the velocity that carries a standard normal to a standard normal along the linear
    path, where x_t has the standard deviation s; the network, which starts at zero, learns the
    departure from it (preconditioned as in Karras et al. 2022).

    net(y, t) = W3 silu(W2 silu(W1 y + T1 e(t)) + T2 e(t)) + b3, so that
    tr(d net / dy) = d2^T [W2 o (W1 W3)^T] d1 with d1, d2 the derivatives of the activations: one product
    of the size of W2 per row, whatever the number of features. e(t) holds t and
    l = log(1 - t + 1e-3) / log(1e-3), each with the sine and cosine of 2^j pi / 2 times itself.
    """

    Options: ClassVar[type[options.Options]] = TimeMLPOptions
    options: TimeMLPOptions
    has_closed_form_divergence = True
    frequencies: Tensor

    def __init__(self, features: int, options: TimeMLPOptions, generator: torch.Generator) -> None:
        super().__init__(features)
        self.options = options
        width = options.width
        embedded = 2 + 4 * options.octaves
        # Two layers rather than one of twice the width: splitting its output costs a copy in every backward.
        self.time_first = seeded_linear(embedded, width, generator)
        self.time_second = seeded_linear(embedded, width, generator)
        self.first = seeded_linear(features, width, generator, bias=False)
        self.second = seeded_linear(width, width, generator, bias=False)
        self.last = seeded_linear(width, features, generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        frequencies = math.pi / 2 * 2.0 ** torch.arange(options.octaves)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity (n, d)."""
        time = time_column(t, x)
        drift, scale = _gaussian_path(time)
        shift1, shift2 = self._time_shifts(time)
        hidden = SILU.value(torch.addmm(shift1, x / scale, self.first.weight.T))
        hidden = SILU.value(torch.addmm(shift2, hidden, self.second.weight.T))
        velocity: Tensor = drift * x + self.last(hidden) / scale
        return velocity

    def jvp(self, t: Tensor, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian times each of the `tangents` (k, n, d), in one pass."""
        drift, scale, hidden, slope1, slope2 = self._hidden(t, x)
        pushed = functional.linear(tangents / scale, self.first.weight) * slope1
        pushed = functional.linear(pushed, self.second.weight) * slope2
        pushed = functional.linear(pushed, self.last.weight)
        return drift * x + self.last(hidden) / scale, drift * tangents + pushed / scale

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form."""
        drift, scale, hidden, slope1, slope2 = self._hidden(t, x)
        coupling = self.second.weight * (self.first.weight @ self.last.weight).T
        trace = (functional.linear(slope1, coupling) * slope2).sum(-1, keepdim=True)
        divergence = self.features * drift + trace / scale.square()
        return drift * x + self.last(hidden) / scale, divergence.squeeze(-1)

    def _hidden(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Drift and scale of the path, the second hidden layer, and both layers' slopes."""
        time = time_column(t, x)
        drift, scale = _gaussian_path(time)
        shift1, shift2 = self._time_shifts(time)
        hidden, slope1 = SILU.value_and_derivative(torch.addmm(shift1, x / scale, self.first.weight.T))
        hidden, slope2 = SILU.value_and_derivative(torch.addmm(shift2, hidden, self.second.weight.T))
        return drift, scale, hidden, slope1, slope2

    def _time_shifts(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """What the time (m, 1) adds before either activation, each (m, width)."""
        log_time = torch.log(1 - time + TIME_FLOOR) / math.log(TIME_FLOOR)
        times = torch.cat([time, log_time], dim=-1)
        angles = (times[:, :, None] * self.frequencies).flatten(1)
        embedding = torch.cat([times, angles.sin(), angles.cos()], dim=-1)
        return self.time_first(embedding), self.time_second(embedding)


def _gaussian_path(time: Tensor) -> tuple[Tensor, Tensor]:
    """(2t - 1) / s^2 and s of the linear path between standard normals."""
    variance = time.square() + (1 - time).square()
    return (2 * time - 1) / variance, variance.sqrt()
