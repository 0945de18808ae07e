"""Radial flows (Rezende and Mohamed 2015), run from data to base so that the likelihood takes one pass."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.discrete.parameter_network import ParameterNetwork
from flowbench.models.training_defaults import likelihood_phases

#: beta stays at least this far above -alpha, below which a layer is not invertible.
MARGIN = 1e-5
#: softplus of this value is 1, so a layer that starts here is the identity.
ONE = 0.541324854612918


class RadialOptions(options.PartOptions):
    """`layers` is the number of radial maps."""

    name: Literal["radial"] = "radial"
    layers: PositiveInt = 32


class RadialFlow(Flow):
    """Layers x -> x + beta (x - c) / (alpha + |x - c|) from data to base (Rezende and Mohamed 2015, eq. 14).

    alpha = softplus(`raw_alpha`) > 0 and beta = -alpha + softplus(`raw_beta`) > -alpha (their appendix A.2),
    so every layer is invertible. Its inverse is the root of a quadratic. Given a context, a small network
    adds to c, `raw_alpha` and `raw_beta` of every layer.
    """

    Options: ClassVar[type[options.PartOptions]] = RadialOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(2e-2)
    is_static: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        options: RadialOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.centre = nn.Parameter(torch.randn(options.layers, features, generator=generator))
        self.raw_alpha = nn.Parameter(torch.full((options.layers,), ONE))
        self.raw_beta = nn.Parameter(torch.full((options.layers,), ONE))
        if context_features:
            shapes = ((features,), (), ())
            self.given = ParameterNetwork(context_features, options.layers, shapes, generator)

    def _layers(self, context: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each layer the centre (d,), alpha > 0 and alpha + beta > 0.

        Given a context their shapes are (n, d) and (n,).
        """
        centre, raw_alpha, raw_beta = self.centre, self.raw_alpha, self.raw_beta
        if context is not None:
            own, changes = (centre, raw_alpha, raw_beta), self.given(context)
            centre, raw_alpha, raw_beta = (a.unsqueeze(1) + b for a, b in zip(own, changes, strict=True))
        alpha = softplus(raw_alpha) + MARGIN
        total = softplus(raw_beta) + MARGIN
        return list(zip(centre, alpha, total, strict=True))

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        log_det = x.new_zeros(len(x))
        for centre, alpha, total in self._layers(context):
            offset = x - centre
            # The norm has no gradient at the centre, hence the clamp.
            radius = offset.square().sum(1).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
            x = torch.addcmul(x, offset, ((total - alpha) / (alpha + radius)).unsqueeze(1))
            log_det = log_det + self._log_det(radius, alpha, total)
        return Mapped(x, log_det)

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        log_det = z.new_zeros(len(z))
        for centre, alpha, total in reversed(self._layers(context)):
            offset = z - centre
            reached = torch.linalg.vector_norm(offset, dim=1)
            # The root of r (alpha + beta + r) = |y - c| (alpha + r), by the formula without cancellation.
            half = (total - reached) / 2
            root = (half.square() + alpha * reached).sqrt()
            radius = torch.where(half > 0, alpha * reached / (half + root), root - half)
            z = centre + offset * ((alpha + radius) / (total + radius)).unsqueeze(1)
            log_det = log_det - self._log_det(radius, alpha, total)
        return Mapped(z, log_det)

    def _log_det(self, radius: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
        """log|det| `(n,)` of one layer at `radius: (n,)`.

        The layer scales d - 1 directions perpendicular to the radius and one along it.
        """
        reach = alpha + radius
        across = torch.log((total + radius) / reach)
        along = torch.log1p(alpha * (total - alpha) / reach.square())
        return (self.features - 1) * across + along
