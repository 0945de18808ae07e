"""Waves of the columns at several scales, and what a divergence in closed form needs of them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: Standard deviations beyond which a wave hardly turns any more.
REACH = 8.0


class Waves(nn.Module):
    """phi(y): `y: (n, d)` itself, then a_k sin(2^k w_r) and a_k cos(2^k w_r) for each scale k, direction r.

    w_r = c tanh(r^T y / c) with c = `REACH`: a row far from all data meets waves that stand still, and a
    solver takes it in long steps. The caller gives the weights a_k, (n, scales) or (1, scales). Fourier
    features at octaves (Tancik et al. 2020), of the columns themselves in the first of the `frames`, of
    turned perpendicular directions in the others.
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
        """The number of waves: a sine and a cosine of each direction at each scale."""
        return 2 * len(self.scales) * self.directions.shape[1]

    def forward(self, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """phi at `y: (n, d)`: (n, d + count); weights of 1 where there are none."""
        if not len(self.scales):
            return y
        weights = y.new_ones(1, len(self.scales)) if weights is None else weights
        parts = [y]
        for weight, sine, cosine in self._octaves(_bend(self._along(y)), weights):
            parts += [weight * sine, weight * cosine]
        return torch.cat(parts, 1)

    def push(self, y: Tensor, weights: Tensor, tangents: Tensor) -> Tensor:
        """The derivative of phi at `y: (n, d)` along `tangents: (k, n, d)`: (k, n, d + count)."""
        if not len(self.scales):
            return tangents
        angles = self._along(y)
        parts, turned = [tangents], self._along(tangents) * _bend_slope(angles)
        for scale, (weight, sine, cosine) in enumerate(self._octaves(_bend(angles), weights)):
            steep = weight * 2.0**scale
            parts += [turned * (steep * cosine), turned * (-steep * sine)]
        return torch.cat(parts, 2)

    def trace_of_owed(self, y: Tensor, phi: Tensor, first: Tensor, owed: Tensor) -> Tensor:
        """sum_i (`first`^T owed_i)^T dphi/dy_i, (n,): the trace of a network from its gradients.

        `owed: (d, n, h)` holds what each column of the answer owes to the h units whose weights are
        `first: (h, d + count)`; `phi: (n, d + count)` is this at `y`.
        """
        n, d, size = len(y), self.features, self.directions.shape[1]
        trace = torch.einsum("dnh,hd->n", owed, first[:, :d])
        if not len(self.scales):
            return trace
        steep, slopes = self._steep(first), self._slopes(y, phi)
        if size == d:
            # Waves of the columns themselves: what a column owes meets that column's alone.
            return ((owed @ steep.permute(2, 0, 1)) * slopes.permute(2, 0, 1)).sum((0, 2)) + trace
        # A turned wave lies along every column: each meets all waves, in proportion to their directions.
        met = (owed @ steep.flatten(1)).view(d, n, -1, size) * self.directions[:, None, None]
        return (met.sum(0) * slopes).sum((1, 2)) + trace

    def trace_of_layer(self, y: Tensor, phi: Tensor, first: Tensor, slope: Tensor, last: Tensor) -> Tensor:
        """The trace (n,) of `last` diag(`slope`) `first` dphi/dy: one product, whatever the columns.

        `first: (h, d + count)` and `last: (d, h)` are the weights of a network with one hidden layer, whose
        activations have the slopes `slope: (n, h)`.
        """
        trace = slope @ (first[:, : self.features] * last.T).sum(1)
        if not len(self.scales):
            return trace
        met = self._steep(first) * (last.T @ self.directions)[:, None]
        return ((slope @ met.flatten(1)) * self._slopes(y, phi).flatten(1)).sum(1) + trace

    def _steep(self, first: Tensor) -> Tensor:
        """What a wave's slope is worth to each unit (h, 2 scales, directions), if its partner stands for it.

        The slope of a sine is its cosine, times the scale, and that of a cosine the sine, times minus the
        scale: so the weights change places rather than the waves.
        """
        waved = first[:, self.features :]
        sine, cosine = waved.reshape(len(waved), -1, 2, self.directions.shape[1]).unbind(2)
        grown = self.scales[:, None]
        return torch.stack([-grown * cosine, grown * sine], 2).flatten(1, 2)

    def _slopes(self, y: Tensor, phi: Tensor) -> Tensor:
        """The waves (n, 2 scales, directions), times the slopes of what they see."""
        waves = phi[:, self.features :].view(len(y), -1, self.directions.shape[1])
        return waves * _bend_slope(self._along(y))[:, None]

    def _along(self, vectors: Tensor) -> Tensor:
        """`vectors: (..., d)` along each direction, (..., directions); the first d are the columns."""
        return vectors if self.directions.shape[1] == self.features else vectors @ self.directions

    def _octaves(self, angles: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each scale's weight (m, 1) and the sine and cosine (n, directions) there."""
        sine, cosine = angles.sin(), angles.cos()
        for weight in torch.split(weights, 1, dim=1):
            yield weight, sine, cosine
            # The double angle, many times cheaper than its sine and cosine.
            sine, cosine = 2 * sine * cosine, 1 - 2 * sine.square()


def _bend(angles: Tensor) -> Tensor:
    return REACH * torch.tanh(angles / REACH)


def _bend_slope(angles: Tensor) -> Tensor:
    return 1 - torch.tanh(angles / REACH).square()


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
