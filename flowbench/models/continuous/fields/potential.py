"""The velocity field of OT-Flow (Onken et al. 2021): the gradient of a potential."""

from typing import ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from flowbench import options
from flowbench.models.continuous.fields.velocity_field import VelocityField, time_column
from flowbench.models.seeded_layers import seeded_linear

# Initial gain of the factor A. With the paper's gain of 1 and weights of 1, the untrained flow widens the
# base to a standard deviation of about 7. Measured: benchmarks/DEFAULTS.md#initial-weights-of-the-potential.
FACTOR_GAIN = 0.3


class PotentialOptions(options.PartOptions):
    """`width` of the residual network, its number of `layers`, and the `rank` of the quadratic term.

    By default the `rank` is the largest possible, d + 1, but at most 10.
    """

    name: Literal["potential"] = "potential"
    width: int = Field(32, ge=1)
    layers: int = Field(2, ge=2)
    rank: int | None = Field(None, ge=1)


class Slopes(NamedTuple):
    """Derivatives of the potential: `gradient` (n, d) and `laplacian` (n,) in x, and `time` (n,) in tau."""

    gradient: Tensor
    time: Tensor
    laplacian: Tensor


class Potential(VelocityField):
    """v(t, x) = grad Phi(x, tau), tau = 1 - t: the field of OT-Flow (Onken, Wu Fung, Li and Ruthotto 2021).

    OT-Flow carries data at tau = 0 to the base at tau = 1 by dx/dtau = -grad Phi, hence the sign. With s =
    (x, tau), Phi(s) = w^T N(s) + s^T A^T A s / 2 + b^T s. N is a residual network: u_0 = a(K_0 s + c_0), u_i
    = u_{i-1} + h a(K_i u_{i-1} + c_i), i = 1..M, N = u_M, h = 1 / M. Its activation a(x) = log(e^x + e^-x) is
    an antiderivative of tanh. The paper adds a constant to Phi, which does not change the velocity and is
    left out here. Given a context c, K_0 s + C c takes the place of K_0 s, and b + B c that of b.

    Gradient and Laplacian are written out as in the paper, without autodiff. With z_{M+1} = w and z_i =
    z_{i+1} + h K_i^T [tanh(K_i u_{i-1} + c_i) o z_{i+1}], the gradient of w^T N is K_0^T [tanh(K_0 s + c_0) o
    z_1]. Its Laplacian is a sum over the layers of (1 - tanh^2) o z, weighted by the squares of the
    derivatives of the layer's pre-activations along the d directions of x. That takes d products of the size
    of each layer.
    """

    Options: ClassVar[type[options.PartOptions]] = PotentialOptions
    is_static: ClassVar[bool] = True
    has_closed_form_divergence = True
    options: PotentialOptions

    def __init__(
        self,
        features: int,
        options: PotentialOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, context_features)
        self.options = options
        inputs, width = features + 1, options.width
        rank = min(options.rank or 10, inputs)
        self.opening = seeded_linear(inputs, width, generator)
        self.residual = nn.ModuleList(
            seeded_linear(width, width, generator) for _ in range(options.layers - 1)
        )
        self.step = 1 / (options.layers - 1)
        self.weights = nn.Parameter(torch.full((width,), 1 / width))
        self.factor = nn.Parameter(torch.empty(rank, inputs))
        nn.init.xavier_uniform_(self.factor, gain=FACTOR_GAIN, generator=generator)
        self.linear = nn.Parameter(torch.zeros(inputs))
        if context_features:
            self.given = seeded_linear(context_features, width, generator, bias=False)
            self.given_linear = seeded_linear(context_features, inputs, generator, bias=False)

    def potential(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Phi (n,) at `t`, () or (n,), and `x` (n, d)."""
        s = _space_time(t, x)
        *_, last = self._forward(s, context)[1]
        quadratic = functional.linear(s, self.factor).square().sum(1) / 2
        return last @ self.weights + quadratic + (s * self._linear(context)).sum(1)

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        s = _space_time(t, x)
        slopes, _ = self._forward(s, context)
        return self._gradient(s, slopes, self._backward(slopes), context)[:, :-1]

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,), the Laplacian of the potential."""
        slopes = self.slopes(t, x, context)
        return slopes.gradient, slopes.laplacian

    def slopes(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Slopes:
        """Gradient, derivative in tau and Laplacian of the potential at `t`, () or (n,), and `x` (n, d)."""
        s = _space_time(t, x)
        slopes, _ = self._forward(s, context)
        backward = self._backward(slopes)
        gradient = self._gradient(s, slopes, backward, context)
        opening = self.opening.weight[:, :-1].T
        # The derivatives of a layer's output along the d directions of x, (d, n, width).
        pushed = slopes[0] * opening[:, None]
        curvature = (1 - slopes[0].square()) * backward[0]
        laplacian = functional.linear(curvature, opening.square()).sum(1)
        for layer, slope, adjoint in zip(self._layers(), slopes[1:], backward[1:], strict=True):
            inner = functional.linear(pushed, layer.weight)
            curvature = (1 - slope.square()) * adjoint
            laplacian = laplacian + self.step * (curvature * inner.square()).sum((0, 2))
            pushed = pushed + self.step * slope * inner
        laplacian = laplacian + self.factor[:, :-1].square().sum()
        return Slopes(gradient[:, :-1], gradient[:, -1], laplacian)

    def _layers(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.residual))

    def _linear(self, context: Tensor | None) -> Tensor:
        """The vector b, (d + 1,), or given a context b + B c, (n, d + 1)."""
        return self.linear if context is None else self.linear + self.given_linear(context)

    def _forward(self, s: Tensor, context: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """The derivative tanh(K u + c) of each layer's activation, and each layer's output u, (n, width)."""
        inner = self.opening(s) if context is None else self.opening(s) + self.given(context)
        slopes, outputs = [torch.tanh(inner)], [_log_cosh(inner)]
        for layer in self._layers():
            inner = layer(outputs[-1])
            slopes.append(torch.tanh(inner))
            outputs.append(outputs[-1] + self.step * _log_cosh(inner))
        return slopes, outputs

    def _backward(self, slopes: list[Tensor]) -> list[Tensor]:
        """The gradient z_{i+1} of w^T N with respect to the output of each layer i, (n, width)."""
        adjoints = [self.weights.expand_as(slopes[0])]
        for layer, slope in zip(reversed(self._layers()), reversed(slopes[1:]), strict=True):
            adjoints.append(adjoints[-1] + self.step * (slope * adjoints[-1]) @ layer.weight)
        return adjoints[::-1]

    def _gradient(
        self, s: Tensor, slopes: list[Tensor], backward: list[Tensor], context: Tensor | None
    ) -> Tensor:
        """The gradient of Phi in s, (n, d + 1)."""
        network = (slopes[0] * backward[0]) @ self.opening.weight
        return network + functional.linear(s, self.factor) @ self.factor + self._linear(context)


def _space_time(t: Tensor, x: Tensor) -> Tensor:
    return torch.cat([x, (1 - time_column(t, x)).expand(len(x), 1)], 1)


def _log_cosh(x: Tensor) -> Tensor:
    """log(e^x + e^-x), without overflow."""
    return torch.logaddexp(x, -x)
