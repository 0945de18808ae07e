"""The velocity field of the first continuous flows (Chen et al. 2018): planar units, gated by time."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.continuous.fields.velocity_field import VelocityField, time_column
from flowbench.models.seeded_layers import seeded_linear
from flowbench.ode.integrator import Velocity


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

    def at(self, times: Tensor) -> Sequence[Velocity]:
        """See `VelocityField`: the weights of the units at all `times: (k,)` take one pass of the network."""
        if self.context_features:
            return super().at(times)
        weights = self._weights(times.reshape(-1, 1))
        return [_Units(*each) for each in zip(*(part.unbind() for part in weights), strict=True)]

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d)."""
        return self._units(t, x, context).velocity(t, x)

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `VelocityField`."""
        return self._units(t, x, context).jvp(t, x, tangents)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) in closed form."""
        return self._units(t, x, context).velocity_and_divergence(t, x)

    def _units(self, t: Tensor, x: Tensor, context: Tensor | None) -> "_Units":
        asked = time_column(t, x)
        if context is not None:
            asked = torch.cat([asked.expand(len(x), 1), context], 1)
        weights = self._weights(asked)
        return _Units(*(part[0] for part in weights) if len(asked) == 1 else weights)

    def _weights(self, asked: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `_Units` takes, for each row of `asked: (r, 1 + c)`: times, with the contexts of rows."""
        d = self.features
        parts = self.network(asked).view(len(asked), self.options.width, -1)
        w, u, b, gate = torch.split(parts, [d, d, 1, 1], -1)
        u = u * (torch.sigmoid(gate) / self.options.width)
        slopes = (w * u).sum(-1)
        return w, u, b.squeeze(-1), slopes, slopes.sum(-1)


class _Units:
    """The field where its weights are known: w and u, (width, d), and b, (width,), the same for all rows.

    Or each row has weights of its own, with an axis for the rows in front. The gate and the mean over the
    units are in u. `t` and `context` change nothing.
    """

    has_closed_form_divergence = True

    def __init__(self, w: Tensor, u: Tensor, b: Tensor, slopes: Tensor, total: Tensor) -> None:
        self.features = w.shape[-1]
        self.w, self.u, self.b = w, u, b
        #: The divergence of each unit where its tanh has the slope 1, (width,), and their sum, ().
        self.slopes, self.total = slopes, total

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._velocity(self._hidden(x))

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h = self._hidden(x)
        shared = self.w.ndim == 2
        pushed = tangents @ self.w.T if shared else torch.einsum("nmd,knd->knm", self.w, tangents)
        return self._velocity(h), self._velocity((1 - h.square()) * pushed)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h = self._hidden(x)
        if self.w.ndim == 2:
            return self._velocity(h), torch.addmv(self.total, h.square(), self.slopes, alpha=-1)
        return self._velocity(h), ((1 - h.square()) * self.slopes).sum(1)

    def _hidden(self, x: Tensor) -> Tensor:
        """tanh(w.x + b) of every row and unit, (n, width)."""
        if self.w.ndim == 2:
            return torch.tanh(torch.addmm(self.b, x, self.w.T))
        return torch.tanh(torch.einsum("nmd,nd->nm", self.w, x) + self.b)

    def _velocity(self, h: Tensor) -> Tensor:
        """The sum of u over the units, each times its number in `h: (..., n, width)`."""
        return h @ self.u if self.w.ndim == 2 else torch.einsum("...nm,nmd->...nd", h, self.u)
