"""A two-hidden-layer velocity field with a time embedding and a closed-form divergence."""

import copy
import math
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from flowbench import options
from flowbench.models.continuous.fields.activations import ACTIVATIONS
from flowbench.models.continuous.fields.mixture_drift import MixtureDrift
from flowbench.models.continuous.fields.velocity_field import VelocityField, time_column
from flowbench.models.mixture import FEW_ROWS, Mixture
from flowbench.models.seeded_layers import seeded_linear
from flowbench.models.waves import Waves
from flowbench.ode.clock import Clock
from flowbench.statistics.gaussian_mixtures import Tell, silent

# The embedding resolves 1 - t down to this value. Along the linear path the likelihood weighs the squared
# error of the velocity by t / (1 - t), so the last stretch before the data needs a resolution of its own.
TIME_FLOOR = 1e-3

# The exact divergence takes one product of hidden size per column if the Fourier features enter the first
# hidden layer. So they do up to this number of columns; beyond, `aside` is the default.
MAX_BELOW = 16

# The most octaves of the Fourier features of a context.
MOST_CONTEXT_SCALES = 6

# So many train rows keep all scales of their own, and at least so many of the context. Measured:
# benchmarks/DEFAULTS.md#scales-of-a-conditional-density.
MANY_ROWS = 20_000
MANY_ROWS_CONTEXT_SCALES = 3

SILU = ACTIVATIONS["silu"]


class TimeMLPOptions(options.PartOptions):
    """Size of the network, resolution of its inputs, and when it starts from a Gaussian mixture.

    `width` is that of the hidden layers, and `octaves` the number of octaves of sines and cosines in the time
    embedding. `scales` is the number of octaves in the Fourier features of each column (`Waves`): more of
    them resolve sharper densities. `frames` is the number of their sets of perpendicular directions, of which
    the first is the columns themselves.

    By default rows of two columns get 6 scales in 6 frames, and rows of one column 6 scales. More columns get
    8 scales in one frame, since edges and steps of their densities lie along the columns. More than
    `MAX_BELOW` columns get 4 scales, since the features would otherwise take most of the time of a step.

    `context_scales` is the number of octaves in the Fourier features of each column of the context. By
    default a conditional density gets no more scales of either than its train rows resolve
    (`resolved_scales`); from `MANY_ROWS` train rows on it gets all of its own and at least 3 of the context.

    `aside` gives the Fourier features a hidden layer of their own, which keeps the exact divergence cheap; by
    default beyond `MAX_BELOW` columns. With at most `mixture_rows` training rows the flow starts from a
    Gaussian mixture of them.
    """

    name: Literal["time-mlp"] = "time-mlp"
    width: int = Field(128, ge=1)
    octaves: int = Field(3, ge=0, le=16)
    # Measured: benchmarks/DEFAULTS.md#scales-and-frames
    scales: int | None = Field(None, ge=0, le=16)
    frames: int | None = Field(None, ge=1, le=16)
    aside: bool | None = None
    mixture_rows: int = Field(FEW_ROWS, ge=0)
    context_scales: int | None = Field(None, ge=0, le=16)


class TimeMLP(VelocityField):
    """v(t, x) = u(t, x) + net(x / s, t) / s, with s^2 = t^2 + (1 - t)^2.

    u is the velocity of a known flow along the linear path. That flow carries a standard normal to a standard
    normal, and x_t then has the standard deviation s. On a small table it carries a standard normal to a
    Gaussian mixture of the rows (`MixtureDrift`). The network starts at zero and learns the difference from
    u; its inputs and outputs are scaled by s (preconditioning as in Karras et al. 2022).

    net(y, t) = W3 silu(W2 silu(W1 phi(y) + T1 e(t)) + T2 e(t)) + b3. The time embedding e(t) holds t and l =
    log(1 - t + 1e-3) / log(1e-3), each with the sine and cosine of 2^j pi / 2 times itself. phi(y) holds the
    columns and their Fourier features (`Waves`). Those of scale k have the weight exp(-(2^k (1 - t) / s)^2 /
    2), the factor by which the noise at time t damps them, as in the integrated encoding of Barron et al.
    (2021). With many columns the features enter a hidden layer of their own: net(y, t) = W3 silu(W2 silu(W1 y
    + T1 e(t)) + T2 e(t)) + b3 + W5 silu(W4 phi(y) + T4 e(t)). Given a context c, every hidden layer gets a
    further term C_i phi(c), whose features are not damped.

    The divergence has a closed form. If both layers get y alone, tr(d net / dy) = d2^T [W2 o (W1 W3)^T] d1,
    with d1, d2 the derivatives of the activations. That is one product of the size of W2 per row, whatever
    the number of columns. A layer for the features takes one more, of the size of W4. If the features enter
    the first layer, the gradients of the outputs with respect to it take one product for each column. They
    are then multiplied by the known derivatives of phi.
    """

    Options: ClassVar[type[options.PartOptions]] = TimeMLPOptions
    is_static: ClassVar[bool] = True
    has_closed_form_divergence = True
    # Measured: benchmarks/DEFAULTS.md#pace-of-the-clock
    clock: ClassVar[Clock] = Clock(pace=0.1)
    options: TimeMLPOptions
    frequencies: Tensor

    def __init__(
        self,
        features: int,
        options: TimeMLPOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, context_features)
        self.options = options
        width = options.width
        embedded = 2 + 4 * options.octaves
        # Two layers rather than one of twice the width: splitting the output of one costs a copy in every
        # backward pass.
        self.time_first = seeded_linear(embedded, width, generator)
        self.time_second = seeded_linear(embedded, width, generator)
        scales = 6 if features <= 2 else 8 if features <= MAX_BELOW else 4
        # The only frame of one column is that column.
        frames = 6 if features == 2 else 1
        if options.scales is not None:
            scales = options.scales
        self.waves = Waves(features, scales, options.frames or frames, generator)
        aside = features > MAX_BELOW if options.aside is None else options.aside
        self.aside = _Aside(self.waves, embedded, width, generator) if aside and scales else None
        inputs = features + (0 if self.aside else self.waves.count)
        self.first = seeded_linear(inputs, width, generator, bias=False)
        self.second = seeded_linear(width, width, generator, bias=False)
        self.last = seeded_linear(width, features, generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        frequencies = math.pi / 2 * 2.0 ** torch.arange(options.octaves)
        self.drift = MixtureDrift(features, context_features)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self._has_many_rows = False
        if context_features:
            seen_scales = MOST_CONTEXT_SCALES if options.context_scales is None else options.context_scales
            self.context_waves = Waves(context_features, seen_scales, 1, generator)
            seen = context_features + self.context_waves.count
            self.context_first = seeded_linear(seen, width, generator, bias=False)
            self.context_second = seeded_linear(seen, width, generator, bias=False)
            if self.aside:
                self.aside.see(seen, generator)

    def initialise(
        self,
        x: Tensor,
        seconds: float | None = None,
        tell: Tell = silent,
        *,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Start from a Gaussian mixture of the training rows `x: (n, d)`, if there are few of them.

        Given their `context: (n, c)`, leave out scales that the rows do not resolve, unless they are many.
        """
        if context is not None:
            scales, context_scales = len(self.waves.scales), len(self.context_waves.scales)
            most, many = resolved_scales(len(x), self.context_features), len(x) >= MANY_ROWS
            self._has_many_rows = many
            if self.options.scales is None and not many:
                scales = most
            if self.options.context_scales is None:
                context_scales = max(most, MANY_ROWS_CONTEXT_SCALES) if many else most
            self._keep_scales(scales, context_scales)
        if len(x) <= self.options.mixture_rows:
            self.drift.fit_within(x, seconds, tell, context=context, weights=weights)

    def variants(self) -> dict[str, Self]:
        """Copies of a conditional field with fewer scales, where the number follows from that of the rows.

        Smooth densities are learnt better with fewer scales than the rows resolve.
        """
        asked = self.options.scales, self.options.context_scales
        most = len(self.context_waves.scales) if self.context_features else 0
        if asked != (None, None) or self._has_many_rows or most < 2:
            return {}
        own = len(self.waves.scales)
        name = f"{most} scales" if own == most else f"{own} scales of the columns and {most} of the givens"
        found = {name: copy.deepcopy(self)}
        for scales in sorted({max(1, most // 2), 1}, reverse=True):
            found[f"{scales} scale{'s' * (scales > 1)}"] = field = copy.deepcopy(self)
            field._keep_scales(scales, scales)
        return found

    @property
    def start(self) -> Mixture | None:
        """The Gaussian mixture that the field starts from, or None."""
        return self.drift if len(self.drift.means) else None

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        at = self._at(t, x, context)
        hidden = SILU.value(torch.addmm(self._first_shift(at), at.inputs, self.first.weight.T))
        hidden = SILU.value(torch.addmm(self._second_shift(at), hidden, self.second.weight.T))
        net = self.last(hidden)
        if self.aside is not None:
            net = net + self.aside(at)
        velocity: Tensor = self.drift.velocity(at.time, x, context) + net / at.scale
        return velocity

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and the Jacobian times each of the `tangents` (k, n, d), in one pass."""
        at = self._at(t, x, context)
        net, slope1, slope2 = self._layers(at)
        pushed_phi = self.waves.push(at.y, at.weights, tangents / at.scale)
        pushed = pushed_phi[..., : at.inputs.shape[1]]
        pushed = functional.linear(pushed, self.first.weight) * slope1
        pushed = functional.linear(pushed, self.second.weight) * slope2
        pushed = functional.linear(pushed, self.last.weight)
        if self.aside is not None:
            value, slope = self.aside.value_and_slope(at)
            net, pushed = net + value, pushed + self.aside.push(pushed_phi, slope)
        drift, drift_pushed = self.drift.jvp(at.time, x, tangents, context)
        return drift + net / at.scale, drift_pushed + pushed / at.scale

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form."""
        at = self._at(t, x, context)
        net, slope1, slope2 = self._layers(at)
        if at.inputs.shape[1] == self.features:
            coupling = self.second.weight * (self.first.weight @ self.last.weight).T
            trace = (functional.linear(slope1, coupling) * slope2).sum(-1)
        else:
            # The gradient of each output with respect to the first layer's pre-activations, (d, n, width).
            gradients = (slope2 * self.last.weight[:, None]) @ self.second.weight * slope1
            trace = self.waves.trace_from_gradients(at.y, at.phi, self.first.weight, gradients)
        if self.aside is not None:
            value, slope = self.aside.value_and_slope(at)
            net = net + value
            layers = self.aside.first.weight, slope, self.aside.last.weight
            trace = trace + self.waves.trace_of_layer(at.y, at.phi, *layers)
        drift, drift_divergence = self.drift.velocity_and_divergence(at.time, x, context)
        divergence = drift_divergence.squeeze(1) + trace / at.scale.square().squeeze(1)
        return drift + net / at.scale, divergence

    def _keep_scales(self, scales: int, context_scales: int) -> None:
        """Leave out the Fourier features beyond so many scales, of the rows and of the context."""
        layer = self.first if self.aside is None else self.aside.first
        layers = [self.context_first, self.context_second]
        if self.aside is not None and self.aside.context is not None:
            layers.append(self.aside.context)
        for waves, kept, seen_by in (
            (self.waves, scales, [layer]),
            (self.context_waves, context_scales, layers),
        ):
            waves.scales = waves.scales[:kept]
            for each in seen_by:
                _keep_inputs(each, waves.features + waves.count)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.context_features:

            def stored(waves: Waves, asked: int | None, layer: str) -> int:
                """As many scales as the weights are of, where no option says how many there are."""
                weight = state_dict.get(f"{prefix}{layer}.weight")
                if asked is None and isinstance(weight, Tensor) and weight.ndim == 2:
                    return waves.scales_of(weight.shape[1])
                return len(waves.scales)

            self._keep_scales(
                stored(self.waves, self.options.scales, "first" if self.aside is None else "aside.first"),
                stored(self.context_waves, self.options.context_scales, "context_first"),
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _layers(self, at: "_PathPoint") -> tuple[Tensor, Tensor, Tensor]:
        """The output (n, d) of the two hidden layers, and the derivatives (n, width) of both activations."""
        shift = self._first_shift(at)
        hidden, slope1 = SILU.value_and_derivative(torch.addmm(shift, at.inputs, self.first.weight.T))
        shift = self._second_shift(at)
        hidden, slope2 = SILU.value_and_derivative(torch.addmm(shift, hidden, self.second.weight.T))
        return self.last(hidden), slope1, slope2

    def _first_shift(self, at: "_PathPoint") -> Tensor:
        """The terms of time and context in the first hidden layer, (m, width)."""
        shift: Tensor = self.time_first(at.embedding)
        return shift if at.seen is None else shift + self.context_first(at.seen)

    def _second_shift(self, at: "_PathPoint") -> Tensor:
        """The terms of time and context in the second hidden layer, (m, width)."""
        shift: Tensor = self.time_second(at.embedding)
        return shift if at.seen is None else shift + self.context_second(at.seen)

    def _at(self, t: Tensor, x: Tensor, context: Tensor | None) -> "_PathPoint":
        time = time_column(t, x)
        scale = (time.square() + (1 - time).square()).sqrt()
        y = x / scale
        weights = torch.exp(-0.5 * (self.waves.scales * (1 - time) / scale).square())
        phi = self.waves(y, weights)
        seen = None if context is None else self.context_waves(context)
        return _PathPoint(time, scale, y, weights, phi, y if self.aside else phi, self._embed(time), seen)

    def _embed(self, time: Tensor) -> Tensor:
        """The time embedding e(t), (m, 2 + 4 octaves), of times (m, 1)."""
        log_time = torch.log(1 - time + TIME_FLOOR) / math.log(TIME_FLOOR)
        times = torch.cat([time, log_time], dim=-1)
        angles = (times[:, :, None] * self.frequencies).flatten(1)
        return torch.cat([times, angles.sin(), angles.cos()], dim=-1)


def resolved_scales(rows: int, givens: int) -> int:
    """How many octaves of detail so many `rows` resolve in one column given so many others; at least one.

    With cells of side 2^-k in m columns there are 2^(k m) cells. At k = log2(rows) / m each of them has about
    one row. Here m counts the givens and one column. Measured:
    benchmarks/DEFAULTS.md#scales-of-a-conditional-density.
    """
    return max(1, round(math.log2(rows) / (1 + givens)))


def _keep_inputs(layer: nn.Linear, inputs: int) -> None:
    """Leave out all but the first `inputs` of a new layer, with initial weights for so many."""
    if inputs >= layer.in_features:
        return
    kept = layer.weight.detach()[:, :inputs] * (layer.in_features / inputs) ** 0.5
    layer.weight = nn.Parameter(kept.contiguous(), requires_grad=layer.weight.requires_grad)
    layer.in_features = inputs


class _Aside(nn.Module):
    """W5 silu(W4 phi + T4 e(t)): a network with one hidden layer on the Fourier features."""

    def __init__(self, waves: Waves, embedded: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.time = seeded_linear(embedded, width, generator)
        self.first = seeded_linear(waves.features + waves.count, width, generator, bias=False)
        self.last = seeded_linear(width, waves.features, generator, bias=False)
        nn.init.zeros_(self.last.weight)
        self.context: nn.Linear | None = None

    def see(self, seen: int, generator: torch.Generator) -> None:
        """Take the Fourier features of a context, `seen` numbers a row, as a further input."""
        self.context = seeded_linear(seen, self.time.out_features, generator, bias=False)

    def forward(self, at: "_PathPoint") -> Tensor:
        """The output (n, d), a term of the whole network's."""
        hidden = SILU.value(torch.addmm(self._shift(at), at.phi, self.first.weight.T))
        value: Tensor = self.last(hidden)
        return value

    def value_and_slope(self, at: "_PathPoint") -> tuple[Tensor, Tensor]:
        """The output (n, d), and the derivatives (n, width) of the hidden layer's activation."""
        hidden, slope = SILU.value_and_derivative(torch.addmm(self._shift(at), at.phi, self.first.weight.T))
        return self.last(hidden), slope

    def _shift(self, at: "_PathPoint") -> Tensor:
        """The terms of time and context in the hidden layer, (m, width)."""
        shift: Tensor = self.time(at.embedding)
        return shift if self.context is None else shift + self.context(at.seen)

    def push(self, phi: Tensor, slope: Tensor) -> Tensor:
        """The derivative (k, n, d) of the output for derivatives `phi: (k, n, d + count)` of the features."""
        return functional.linear(functional.linear(phi, self.first.weight) * slope, self.last.weight)


class _PathPoint(NamedTuple):
    """Rows at times on the linear path between standard normals, with all that the layers take as input.

    `time` is (m, 1), with m = 1 or n. `scale` is the path's standard deviation s, and `y` = x / s. `weights`
    (m, scales) damp the Fourier features by the noise. `phi` holds y and its features, `inputs` the part of
    phi that enters the first hidden layer, and `embedding` e(t). `seen` is phi of the context, not damped;
    None without a context.
    """

    time: Tensor
    scale: Tensor
    y: Tensor
    weights: Tensor
    phi: Tensor
    inputs: Tensor
    embedding: Tensor
    seen: Tensor | None
