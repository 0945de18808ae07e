"""Sylvester flows (van den Berg et al. 2018), run from data to base so that the likelihood takes one pass."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.discrete.parameter_network import ParameterNetwork, dot, times
from flowbench.models.discrete.planar import solve_monotone
from flowbench.models.training_defaults import likelihood_phases

#: The product of two diagonal entries stays at least this far above -1, below which a layer is not
#: invertible.
MARGIN = 1e-5


class SylvesterOptions(options.PartOptions):
    """`layers` is the number of maps; `initial_scale` is how far each moves a row at the start."""

    name: Literal["sylvester"] = "sylvester"
    layers: PositiveInt = 16
    initial_scale: PositiveFloat = 0.01


class SylvesterFlow(Flow):
    """Layers x -> x + Q R tanh(S Q'x + b) from data to base (van den Berg et al. 2018, eq. 13).

    Q is a product of d Householder reflections (their section 4.2). R and S are upper triangular, and the
    entries r and s of their diagonals lie in (-1, 1). So 1 + r s tanh' > 0 (theorem 2), and log|det| is the
    sum of the logarithms of these terms. The inverse of a layer solves for the coordinates of Q'x one by one,
    from the last to the first, each by the scalar equation of a planar layer. Given a context, a small
    network adds to the parameters of every layer.
    """

    Options: ClassVar[type[options.PartOptions]] = SylvesterOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(1e-2)
    is_static: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        options: SylvesterOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        shape = (options.layers, features, features)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.reflections = nn.Parameter(normal(*shape))
        self.outer = nn.Parameter(options.initial_scale * normal(*shape))
        self.inner = nn.Parameter(normal(*shape) / features**0.5)
        self.bias = nn.Parameter(normal(options.layers, features))
        if context_features:
            square = (features, features)
            shapes = (square, square, square, (features,))
            self.given = ParameterNetwork(context_features, options.layers, shapes, generator)

    def _layers(self, context: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each layer the orthogonal Q, the triangular R and S, all (d, d), and b (d,).

        Given a context each has an axis for the rows in front.
        """
        own = self.reflections, self.outer, self.inner, self.bias
        if context is not None:
            changes = self.given(context)
            own = tuple(part.unsqueeze(1) + change for part, change in zip(own, changes, strict=True))
        reflections, outer, inner, bias = own
        parts = (_orthogonal(reflections), _bounded(outer), _bounded(inner), bias)
        return list(zip(*parts, strict=True))

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        log_det = x.new_zeros(len(x))
        for q, outer, inner, bias in self._layers(context):
            turned = times(x, q)
            h = torch.tanh(
                torch.addmm(bias, turned, inner.T) if context is None else times(turned, inner.mT) + bias
            )
            x = x + times(h, (q @ outer).mT)
            log_det = log_det + _log_det(h, outer, inner)
        return Mapped(x, log_det)

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        log_det = z.new_zeros(len(z))
        for q, outer, inner, bias in reversed(self._layers(context)):
            turned = times(z, q)
            before, h = torch.zeros_like(turned), torch.zeros_like(turned)
            for i in reversed(range(self.features)):
                # The terms of the later coordinates, already known, outside and inside the tanh of this one.
                rest = turned[:, i] - dot(h[:, i + 1 :], outer[..., i, i + 1 :])
                shift = bias[..., i] + dot(before[:, i + 1 :], inner[..., i, i + 1 :])
                out, into = outer[..., i, i], inner[..., i, i]
                root = solve_monotone(into * rest, out * into, shift)
                h[:, i] = torch.tanh(root + shift)
                before[:, i] = rest - out * h[:, i]
            z = times(before, q.mT)
            log_det = log_det - _log_det(h, outer, inner)
        return Mapped(z, log_det)


def _orthogonal(reflections: Tensor) -> Tensor:
    """The products (..., d, d) of reflections I - 2 v v' / |v|^2 in the rows v of `reflections`."""
    features = reflections.shape[-1]
    q = torch.eye(features, dtype=reflections.dtype, device=reflections.device).expand_as(reflections)
    for v in reflections.unbind(-2):
        scaled = v * (2 / v.square().sum(-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny))
        q = q - (q @ v.unsqueeze(-1)) @ scaled.unsqueeze(-2)
    return q


def _bounded(raw: Tensor) -> Tensor:
    """The upper triangles (..., d, d) of `raw`, with diagonals mapped into (-1, 1)."""
    return raw.triu(1) + (raw.diagonal(dim1=-2, dim2=-1).tanh() * (1 - MARGIN)).diag_embed()


def _log_det(h: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    """log|det| `(n,)` of a layer whose tanh is `h: (n, d)`."""
    slopes = outer.diagonal(dim1=-2, dim2=-1) * inner.diagonal(dim1=-2, dim2=-1)
    return torch.log1p((1 - h.square()) * slopes).sum(1)
