"""The velocity field of the first continuous flows (Chen et al. 2018): planar units, gated by time."""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.continuous.fields.velocity_field import VelocityField, time_column
from flowbench.models.seeded_layers import seeded_linear


class HypernetworkOptions(options.PartOptions):
    """`width` is the number of planar units, and `hidden` that of the two layers that make their weights."""

    name: Literal["hypernetwork"] = "hypernetwork"
    width: PositiveInt = 64
    hidden: PositiveInt = 32


class Hypernetwork(VelocityField):
    """v(t, x) = mean over units n of sigmoid(g_n) u_n tanh(w_n.x + b_n), where w, b, u and g depend on t.

    This is the continuous planar flow of Chen et al. (2018, section 4.1), with their gates. A network of t
    with two tanh layers gives the weights of all units, as in the example that comes with torchdiffeq (which
    has a gate for each component of u_n). Given a context c, it is a network of (t, c). The divergence is the
    mean of sigmoid(g_n) (u_n.w_n) (1 - tanh^2).
    """

    Options: ClassVar[type[options.PartOptions]] = HypernetworkOptions
    is_static: ClassVar[bool] = True
    has_closed_form_divergence = True
    options: HypernetworkOptions

    def __init__(
        self,
        features: int,
        options: HypernetworkOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, context_features)
        self.options = options
        outputs = options.width * (2 * features + 2)
        self.network = nn.Sequential(
            seeded_linear(1 + context_features, options.hidden, generator),
            nn.Tanh(),
            seeded_linear(options.hidden, options.hidden, generator),
            nn.Tanh(),
            seeded_linear(options.hidden, outputs, generator),
        )

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        w, u, b = self._units(t, x, context)
        return self._velocity(torch.tanh(self._activate(w, x, b)), u)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form."""
        w, u, b = self._units(t, x, context)
        h = torch.tanh(self._activate(w, x, b))
        return self._velocity(h, u), ((1 - h.square()) * (w * u).sum(-1)).mean(1)

    def _units(self, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """w and the gated u, (r, width, d), and b, (r, width), where r is 1 or n."""
        asked = time_column(t, x)
        if context is not None:
            asked = torch.cat([asked.expand(len(x), 1), context], 1)
        parts: Tensor = self.network(asked).view(len(asked), self.options.width, -1)
        d = self.features
        w, u, b, gate = parts[..., :d], parts[..., d : 2 * d], parts[..., -2], parts[..., -1:]
        return w, u * torch.sigmoid(gate), b

    @staticmethod
    def _activate(w: Tensor, x: Tensor, b: Tensor) -> Tensor:
        """w.x + b of every row and unit, (n, width)."""
        if len(w) == 1:
            return torch.addmm(b, x, w[0].T)
        return torch.einsum("nmd,nd->nm", w, x) + b

    def _velocity(self, h: Tensor, u: Tensor) -> Tensor:
        if len(u) == 1:
            return h @ u[0] / self.options.width
        return torch.einsum("nm,nmd->nd", h, u) / self.options.width
