"""A two-hidden-layer velocity field with a time embedding and a closed-form divergence."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from flowbench import options
from flowbench.fields.activations import ACTIVATIONS
from flowbench.fields.base import VelocityField, seeded_linear, time_column
from flowbench.fields.mixture_drift import MixtureDrift
from flowbench.ode.clock import Clock

# 1 - t is resolved down to this: likelihood weighs the linear path by t / (1 - t), so its last
# stretch before the data needs a resolution of its own.
TIME_FLOOR = 1e-3

# With multi-scale inputs the exact divergence takes one product of hidden size per column.
MAX_MULTISCALE = 16

SILU = ACTIVATIONS["silu"]


class TimeMLPOptions(options.PartOptions):
    """`width` of both hidden layers, `octaves` of sines and cosines in the time embedding.

    `scales` is the number of octaves in which each column is seen: 0 keeps the divergence cheapest, more
    resolves sharper densities. `frames` sets of perpendicular directions are seen so: the columns
    themselves, then turned ones. By default 6 scales in 6 frames where rows have two columns at most; 8
    scales of the columns alone with up to `MAX_MULTISCALE`, whose edges and steps lie along the columns
    and repay the finer scale; 0 beyond.
    With at most `mixture_rows` train rows the flow starts from a Gaussian mixture of them.
    """

    name: Literal["time-mlp"] = "time-mlp"
    width: int = Field(128, ge=1)
    octaves: int = Field(3, ge=0, le=16)
    scales: int | None = Field(None, ge=0, le=16)
    frames: int | None = Field(None, ge=1, le=16)
    mixture_rows: int = Field(5000, ge=0)


class TimeMLP(VelocityField):
    """v(t, x) = u(t, x) + net(x / s, t) / s, with s^2 = t^2 + (1 - t)^2.

    u is the velocity that carries a standard normal to a standard normal along the linear path, where x_t
    has the standard deviation s; on a small table, to a Gaussian mixture of its rows (`MixtureDrift`). The
    network, which starts at zero, learns the departure from it (preconditioned as in Karras et al. 2022).

    net(y, t) = W3 silu(W2 silu(W1 phi(y) + T1 e(t)) + T2 e(t)) + b3. e(t) holds t and
    l = log(1 - t + 1e-3) / log(1e-3), each with the sine and cosine of 2^j pi / 2 times itself. phi(y) holds
    y and, for each scale k and direction r, a_k sin(2^k r^T y) and a_k cos(2^k r^T y), with
    a_k = exp(-(2^k (1 - t) / s)^2 / 2): what the noise at time t leaves of that wave, as in the integrated
    encoding of Barron et al. (2021).

    The divergence is in closed form. Without scales phi(y) = y and tr(d net / dy) = d2^T [W2 o (W1 W3)^T] d1,
    with d1, d2 the derivatives of the activations: one product of the size of W2 per row, whatever the
    number of features. With scales it takes one for each column, and what follows from it meets the
    gradients of phi, which are known.
    """

    Options: ClassVar[type[options.PartOptions]] = TimeMLPOptions
    has_closed_form_divergence = True
    clock: ClassVar[Clock] = Clock(pace=0.1)
    options: TimeMLPOptions
    frequencies: Tensor
    scales: Tensor
    directions: Tensor

    def __init__(self, features: int, options: TimeMLPOptions, generator: torch.Generator) -> None:
        super().__init__(features)
        self.options = options
        width = options.width
        embedded = 2 + 4 * options.octaves
        # Two layers rather than one of twice the width: splitting its output costs a copy in every backward.
        self.time_first = seeded_linear(embedded, width, generator)
        self.time_second = seeded_linear(embedded, width, generator)
        scales, frames = (6, 6) if features <= 2 else (8, 1) if features <= MAX_MULTISCALE else (0, 1)
        if options.scales is not None:
            scales = options.scales
        directions = _directions(features, options.frames or frames, generator)
        self.register_buffer("directions", directions)
        inputs = features + 2 * scales * directions.shape[1]
        self.first = seeded_linear(inputs, width, generator, bias=False)
        self.second = seeded_linear(width, width, generator, bias=False)
        self.last = seeded_linear(width, features, generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        frequencies = math.pi / 2 * 2.0 ** torch.arange(options.octaves)
        self.drift = MixtureDrift(features)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("scales", 2.0 ** torch.arange(scales), persistent=False)

    def initialise(self, x: Tensor) -> None:
        """Start from a Gaussian mixture of the train rows `x: (n, d)`, where they are few."""
        if len(x) <= self.options.mixture_rows:
            self.drift.fit(x)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity (n, d)."""
        path = _Path.at(time_column(t, x))
        shift1, shift2 = self._time_shifts(path.time)
        hidden = SILU.value(torch.addmm(shift1, self._inputs(x / path.scale, path), self.first.weight.T))
        hidden = SILU.value(torch.addmm(shift2, hidden, self.second.weight.T))
        velocity: Tensor = self.drift.velocity(path.time, x) + self.last(hidden) / path.scale
        return velocity

    def jvp(self, t: Tensor, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian times each of the `tangents` (k, n, d), in one pass."""
        path, _, hidden, slope1, slope2 = self._hidden(t, x)
        pushed = self._push_inputs(x / path.scale, path, tangents / path.scale)
        pushed = functional.linear(pushed, self.first.weight) * slope1
        pushed = functional.linear(pushed, self.second.weight) * slope2
        pushed = functional.linear(pushed, self.last.weight)
        drift, drift_pushed = self.drift.jvp(path.time, x, tangents)
        return drift + self.last(hidden) / path.scale, drift_pushed + pushed / path.scale

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form."""
        path, inputs, hidden, slope1, slope2 = self._hidden(t, x)
        trace = self._trace(inputs, slope1, slope2) if len(self.scales) else self._plain_trace(slope1, slope2)
        drift, drift_divergence = self.drift.velocity_and_divergence(path.time, x)
        divergence = drift_divergence.squeeze(1) + trace / path.scale.square().squeeze(1)
        return drift + self.last(hidden) / path.scale, divergence

    def _plain_trace(self, slope1: Tensor, slope2: Tensor) -> Tensor:
        """tr(d net / dy) (n,) without waves, from the slopes of both layers."""
        coupling = self.second.weight * (self.first.weight @ self.last.weight).T
        return (functional.linear(slope1, coupling) * slope2).sum(-1)

    def _trace(self, inputs: Tensor, slope1: Tensor, slope2: Tensor) -> Tensor:
        """tr(d net / dy) (n,) with waves, from phi(y) and the slopes of both layers."""
        n, d = len(inputs), self.features
        # What each column of the answer owes to the first layer: its gradient there, (d, n, width).
        owed = (slope2 * self.last.weight[:, None]) @ self.second.weight * slope1
        plain, waved = torch.split(self.first.weight, [d, self.first.in_features - d], 1)
        trace = torch.einsum("dnh,hd->n", owed, plain)
        size = self.directions.shape[1]
        sine, cosine = waved.reshape(len(waved), -1, 2, size).unbind(2)
        grown = self.scales[:, None]
        steep = torch.stack([-grown * cosine, grown * sine], 2).flatten(1, 2)
        waves = inputs[:, d:].view(n, -1, size)
        if size == d:
            # Waves of the columns themselves: what a column owes meets that column's alone.
            return ((owed @ steep.permute(2, 0, 1)) * waves.permute(2, 0, 1)).sum((0, 2)) + trace
        # A turned wave lies along every column: each meets all waves, in proportion to their directions.
        met = (owed @ steep.flatten(1)).view(d, *waves.shape) * self.directions[:, None, None]
        return (met.sum(0) * waves).sum((1, 2)) + trace

    def _hidden(self, t: Tensor, x: Tensor) -> tuple["_Path", Tensor, Tensor, Tensor, Tensor]:
        """The path at t, phi(x / s), the second hidden layer, and both layers' slopes."""
        path = _Path.at(time_column(t, x))
        shift1, shift2 = self._time_shifts(path.time)
        inputs = self._inputs(x / path.scale, path)
        hidden, slope1 = SILU.value_and_derivative(torch.addmm(shift1, inputs, self.first.weight.T))
        hidden, slope2 = SILU.value_and_derivative(torch.addmm(shift2, hidden, self.second.weight.T))
        return path, inputs, hidden, slope1, slope2

    def _inputs(self, y: Tensor, path: "_Path") -> Tensor:
        """phi(y): (n, d + 2 scales directions)."""
        if not len(self.scales):
            return y
        parts = [y]
        for weight, sine, cosine in self._waves(y, path):
            parts += [weight * sine, weight * cosine]
        return torch.cat(parts, 1)

    def _push_inputs(self, y: Tensor, path: "_Path", tangents: Tensor) -> Tensor:
        """The derivative of phi at y: (n, d) along `tangents` (k, n, d)."""
        if not len(self.scales):
            return tangents
        parts, turned = [tangents], tangents @ self.directions
        for scale, (weight, sine, cosine) in enumerate(self._waves(y, path)):
            steep = weight * 2.0**scale
            parts += [turned * (steep * cosine), turned * (-steep * sine)]
        return torch.cat(parts, 2)

    def _waves(self, y: Tensor, path: "_Path") -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each scale's weight (m, 1) and the sine and cosine (n, directions) there."""
        angles = y @ self.directions
        sine, cosine = angles.sin(), angles.cos()
        for weight in torch.split(path.visibility(self.scales), 1, dim=1):
            yield weight, sine, cosine
            # The double angle, many times cheaper than its sine and cosine.
            sine, cosine = 2 * sine * cosine, 1 - 2 * sine.square()

    def _time_shifts(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """What the time (m, 1) adds before either activation, each (m, width)."""
        log_time = torch.log(1 - time + TIME_FLOOR) / math.log(TIME_FLOOR)
        times = torch.cat([time, log_time], dim=-1)
        angles = (times[:, :, None] * self.frequencies).flatten(1)
        embedding = torch.cat([times, angles.sin(), angles.cos()], dim=-1)
        return self.time_first(embedding), self.time_second(embedding)


@dataclass(frozen=True)
class _Path:
    """The linear path between standard normals at times (m, 1), m = 1 or n.

    `scale` is its standard deviation s.
    """

    time: Tensor
    scale: Tensor

    @classmethod
    def at(cls, time: Tensor) -> Self:
        variance = time.square() + (1 - time).square()
        return cls(time, variance.sqrt())

    def visibility(self, scales: Tensor) -> Tensor:
        """What the noise leaves of a wave at each of the `scales` (k,): factors (m, k)."""
        return torch.exp(-0.5 * (scales * (1 - self.time) / self.scale).square())


def _directions(features: int, frames: int, generator: torch.Generator) -> Tensor:
    """Unit vectors as columns (d, d frames): the axes, then turned frames; evenly turned in the plane."""
    turned = [torch.eye(features)]
    for frame in range(1, frames if features > 1 else 1):
        if features == 2:
            angle = torch.tensor(math.pi / 2 * frame / frames)
            turned.append(torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2))
        else:
            normal = torch.randn(features, features, generator=generator)
            turned.append(torch.linalg.qr(normal).Q)
    return torch.cat(turned, 1)
