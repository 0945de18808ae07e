"""Fourier features of the columns at several scales, and the traces of networks on top of them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: Standard deviations from zero beyond which the features hardly change any more.
REACH = 8.0


class Waves(nn.Module):
    """Fourier features phi(y) of rows `y: (n, d)`, at several scales and along several directions.

    Tancik et al. (2020). phi(y) holds y itself, then the waves a_k sin(2^k w_r) and a_k cos(2^k w_r) for each
    scale k and direction r. The phase is w_r = c tanh(r^T y / c) with c = `REACH`. Far from all data the
    phase, and so each wave, is nearly constant. A solver can therefore take long steps there.

    The caller gives the weights a_k, (n, scales) or (1, scales). Directions come in sets, the `frames`, of d
    perpendicular unit vectors each. The first frame is the columns themselves; the others are rotations of
    it.
    """

    scales: Tensor
    directions: Tensor

    def __init__(self, features: int, scales: int, frames: int, generator: torch.Generator) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("directions", _directions(features, frames, generator))
        self.register_buffer("scales", 2.0 ** torch.arange(scales), persistent=False)

    @property
    def count(self) -> int:
        """The number of waves: a sine and a cosine for each direction at each scale."""
        return 2 * len(self.scales) * self.directions.shape[1]

    def scales_of(self, inputs: int) -> int:
        """The number of scales with which phi holds so many numbers a row."""
        return (inputs - self.features) // (2 * self.directions.shape[1])

    def forward(self, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """phi at `y: (n, d)`: (n, d + count); all `weights` are 1 if none are given."""
        if not len(self.scales):
            return y
        weights = y.new_ones(1, len(self.scales)) if weights is None else weights
        parts = [y]
        for weight, sine, cosine in self._octaves(_bend(self._along(y)), weights):
            parts += [weight * sine, weight * cosine]
        return torch.cat(parts, 1)

    def push(self, y: Tensor, weights: Tensor, tangents: Tensor) -> Tensor:
        """The derivative of phi at `y: (n, d)` along each of the `tangents: (k, n, d)`: (k, n, d + count)."""
        if not len(self.scales):
            return tangents
        angles = self._along(y)
        parts, turned = [tangents], self._along(tangents) * _bend_slope(angles)
        for scale, (weight, sine, cosine) in enumerate(self._octaves(_bend(angles), weights)):
            steep = weight * 2.0**scale
            parts += [turned * (steep * cosine), turned * (-steep * sine)]
        return torch.cat(parts, 2)

    def trace_from_gradients(self, y: Tensor, phi: Tensor, first: Tensor, gradients: Tensor) -> Tensor:
        """The trace (n,) of the Jacobian dg/dy of a network g(y) whose first layer computes `first` phi(y).

        `first: (h, d + count)` are the weights of that layer, and `phi: (n, d + count)` is phi at `y`.
        `gradients: (d, n, h)` holds the gradient of each output g_i with respect to the h pre-activations of
        that layer. The trace is sum_i gradients_i^T `first` dphi/dy_i.
        """
        n, d, size = len(y), self.features, self.directions.shape[1]
        trace = torch.einsum("dnh,hd->n", gradients, first[:, :d])
        if not len(self.scales):
            return trace
        steep, slopes = self._derivative_weights(first), self._slopes(y, phi)
        if size == d:
            # The waves of column i depend on y_i alone, so they enter only with the gradient of output i.
            return ((gradients @ steep.permute(2, 0, 1)) * slopes.permute(2, 0, 1)).sum((0, 2)) + trace
        # A wave along a rotated direction depends on every column, in proportion to the direction's
        # components.
        met = (gradients @ steep.flatten(1)).view(d, n, -1, size) * self.directions[:, None, None]
        return (met.sum(0) * slopes).sum((1, 2)) + trace

    def trace_of_layer(self, y: Tensor, phi: Tensor, first: Tensor, slope: Tensor, last: Tensor) -> Tensor:
        """The trace (n,) of the Jacobian with respect to y of `last` a(`first` phi(y)).

        This is a network with one hidden layer on the features phi(y), whose weights are `first:
        (h, d + count)` and `last: (d, h)`. `slope: (n, h)` holds the derivatives of its activation a. The
        trace takes a single matrix product, for any d.
        """
        trace = slope @ (first[:, : self.features] * last.T).sum(1)
        if not len(self.scales):
            return trace
        met = self._derivative_weights(first) * (last.T @ self.directions)[:, None]
        return ((slope @ met.flatten(1)) * self._slopes(y, phi).flatten(1)).sum(1) + trace

    def _derivative_weights(self, first: Tensor) -> Tensor:
        """Weights (h, 2 scales, directions) for the derivative of `first` phi with respect to the phases w_r.

        They multiply the waves themselves. The derivative of sin(2^k w) is 2^k cos(2^k w), and that of
        cos(2^k w) is -2^k sin(2^k w). So the weights of sine and cosine are exchanged and scaled, and the
        waves are used as they are.
        """
        waved = first[:, self.features :]
        sine, cosine = waved.reshape(len(waved), -1, 2, self.directions.shape[1]).unbind(2)
        grown = self.scales[:, None]
        return torch.stack([-grown * cosine, grown * sine], 2).flatten(1, 2)

    def _slopes(self, y: Tensor, phi: Tensor) -> Tensor:
        """The waves (n, 2 scales, directions), each times dw_r / d(r^T y), the derivative of its phase."""
        waves = phi[:, self.features :].view(len(y), -1, self.directions.shape[1])
        return waves * _bend_slope(self._along(y))[:, None]

    def _along(self, vectors: Tensor) -> Tensor:
        """The products of `vectors: (..., d)` with each direction, (..., directions).

        Where the columns are the only directions, these are the vectors themselves.
        """
        return vectors if self.directions.shape[1] == self.features else vectors @ self.directions

    def _octaves(self, angles: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each scale k: the weight (m, 1), then sin(2^k w) and cos(2^k w), (n, directions) each."""
        sine, cosine = angles.sin(), angles.cos()
        for weight in torch.split(weights, 1, dim=1):
            yield weight, sine, cosine
            # The double-angle formulas are many times cheaper than another sine and cosine.
            sine, cosine = 2 * sine * cosine, 1 - 2 * sine.square()


def _bend(angles: Tensor) -> Tensor:
    return REACH * torch.tanh(angles / REACH)


def _bend_slope(angles: Tensor) -> Tensor:
    return 1 - torch.tanh(angles / REACH).square()


def _directions(features: int, frames: int, generator: torch.Generator) -> Tensor:
    """The directions, unit vectors as columns (d, d frames): the axes first, then rotated frames.

    In the plane the frames are rotated by equal angles; in more dimensions their rotations are random.
    """
    turned = [torch.eye(features)]
    for frame in range(1, frames if features > 1 else 1):
        if features == 2:
            angle = torch.tensor(math.pi / 2 * frame / frames)
            turned.append(torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2))
        else:
            normal = torch.randn(features, features, generator=generator)
            turned.append(torch.linalg.qr(normal).Q)
    return torch.cat(turned, 1)
