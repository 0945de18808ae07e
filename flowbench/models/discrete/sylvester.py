"""Sylvester flows (van den Berg et al. 2018), run from data to base so that the likelihood is one pass."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Flow, Mapped, likelihood_phases
from flowbench.models.discrete.planar import solve_monotone

#: How far the product of two diagonal entries stays above -1, where a layer would fold.
MARGIN = 1e-5


class SylvesterOptions(options.PartOptions):
    """`layers` maps in a row; `initial_scale` is how far each moves a row at the start."""

    name: Literal["sylvester"] = "sylvester"
    layers: PositiveInt = 16
    initial_scale: PositiveFloat = 0.01


class SylvesterFlow(Flow):
    """Layers x -> x + Q R tanh(S Q'x + b) from data to base (van den Berg et al. 2018, eq. 13).

    Q is a product of d Householder reflections (their section 4.2), R and S are upper triangular, and the
    entries of their diagonals lie in (-1, 1), so that 1 + r s tanh' > 0 (theorem 2) and log|det| is the sum
    of its logarithms. In the coordinates Q'x a layer is inverted from the last to the first, each by the
    scalar equation of a planar layer.
    """

    Options: ClassVar[type[options.PartOptions]] = SylvesterOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(1e-2)
    is_static: ClassVar[bool] = True

    def __init__(self, features: int, options: SylvesterOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        shape = (options.layers, features, features)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.reflections = nn.Parameter(normal(*shape))
        self.outer = nn.Parameter(options.initial_scale * normal(*shape))
        self.inner = nn.Parameter(normal(*shape) / features**0.5)
        self.bias = nn.Parameter(normal(options.layers, features))

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of every layer the orthogonal Q, the triangular R and S, all (d, d), and b (d,)."""
        parts = (self._orthogonal(), _bounded(self.outer), _bounded(self.inner), self.bias)
        return list(zip(*parts, strict=True))

    def _orthogonal(self) -> Tensor:
        """The products (layers, d, d) of each layer's reflections 1 - 2 v v' / |v|^2."""
        like = self.reflections
        q = torch.eye(self.features, dtype=like.dtype, device=like.device).expand_as(like)
        for v in self.reflections.unbind(1):
            scaled = v * (2 / v.square().sum(1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny))
            q = q - (q @ v.unsqueeze(2)) @ scaled.unsqueeze(1)
        return q

    def _to_base(self, x: Tensor, generator: torch.Generator | None) -> Mapped:
        log_det = x.new_zeros(len(x))
        for q, outer, inner, bias in self._layers():
            h = torch.tanh(torch.addmm(bias, x @ q, inner.T))
            x = x + h @ (q @ outer).T
            log_det = log_det + _log_det(h, outer, inner)
        return Mapped(x, log_det)

    def _to_data(self, z: Tensor, generator: torch.Generator | None) -> Mapped:
        log_det = z.new_zeros(len(z))
        for q, outer, inner, bias in reversed(self._layers()):
            turned = z @ q
            before, h = torch.zeros_like(turned), torch.zeros_like(turned)
            for i in reversed(range(self.features)):
                # What the coordinates behind this one, already known, add outside and inside of its tanh.
                rest = turned[:, i] - h[:, i + 1 :] @ outer[i, i + 1 :]
                shift = bias[i] + before[:, i + 1 :] @ inner[i, i + 1 :]
                root = solve_monotone(inner[i, i] * rest, outer[i, i] * inner[i, i], shift)
                h[:, i] = torch.tanh(root + shift)
                before[:, i] = rest - outer[i, i] * h[:, i]
            z = before @ q.T
            log_det = log_det - _log_det(h, outer, inner)
        return Mapped(z, log_det)


def _bounded(raw: Tensor) -> Tensor:
    """Upper triangles (layers, d, d) whose diagonals lie in (-1, 1)."""
    return raw.triu(1) + (raw.diagonal(dim1=1, dim2=2).tanh() * (1 - MARGIN)).diag_embed()


def _log_det(h: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    """log|det| `(n,)` of a layer whose tanh is `h: (n, d)`."""
    return torch.log1p((1 - h.square()) * (outer.diagonal() * inner.diagonal())).sum(1)
