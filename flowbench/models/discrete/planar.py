"""Planar flows (Rezende and Mohamed 2015), run from data to base so that the likelihood takes one pass."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.discrete.parameter_network import ParameterNetwork, dot
from flowbench.models.training_defaults import likelihood_phases

#: w.u stays at least this far above -1, below which a layer is not invertible.
MARGIN = 1e-5


class PlanarOptions(options.PartOptions):
    """`layers` is the number of planar maps; `initial_scale` is how far each moves a row at the start."""

    name: Literal["planar"] = "planar"
    layers: PositiveInt = 32
    initial_scale: PositiveFloat = 0.01


class PlanarFlow(Flow):
    """Layers x -> x + u tanh(w.x + b) from data to base (Rezende and Mohamed 2015, eq. 10).

    Each layer stays invertible in training: u is replaced by u + (m(w.u) - w.u) w / |w|^2 with m(a) =
    softplus(a) - 1 (their appendix A.1). m is raised by `MARGIN`, so that w.u > -1 in floating point too.
    Sampling inverts a layer by solving a + (w.u) tanh(a + b) = w.y for a = w.x, a scalar equation whose left
    side is increasing in a. Given a context, a small network adds to w, u and b of every layer.
    """

    Options: ClassVar[type[options.PartOptions]] = PlanarOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(2e-2)
    is_static: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        options: PlanarOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.w = nn.Parameter(normal(options.layers, features) / features**0.5)
        self.u = nn.Parameter(options.initial_scale * normal(options.layers, features))
        self.b = nn.Parameter(normal(options.layers))
        if context_features:
            shapes = ((features,), (features,), ())
            self.given = ParameterNetwork(context_features, options.layers, shapes, generator)

    def _layers(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w and the constrained u, both (layers, d), b and w.u > -1, both (layers,).

        Given a context each has an axis for the rows after the first: (layers, n, ...).
        """
        w, u, b = self.w, self.u, self.b
        if context is not None:
            changes = self.given(context)
            w, u, b = (own.unsqueeze(1) + change for own, change in zip((w, u, b), changes, strict=True))
        raw = (w * u).sum(-1)
        squared = w.square().sum(-1).clamp_min(torch.finfo(w.dtype).tiny)
        product = softplus(raw) - (1 - MARGIN)
        return w, u + ((product - raw) / squared).unsqueeze(-1) * w, b, product

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        *parameters, products = self._layers(context)
        activations = []
        for w, u, b in zip(*parameters, strict=True):
            h = torch.tanh(torch.addmv(b, x, w) if w.ndim == 1 else dot(x, w) + b)
            x = torch.addcmul(x, h.unsqueeze(1), u)
            activations.append(h)
        return Mapped(x, _log_det(torch.stack(activations), products))

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        layers = self._layers(context)
        activations = []
        for w, u, b, product in zip(*(part.flip(0) for part in layers), strict=True):
            h = torch.tanh(solve_monotone(dot(z, w), product, b) + b)
            z = torch.addcmul(z, h.unsqueeze(1), u, value=-1)
            activations.append(h)
        return Mapped(z, -_log_det(torch.stack(activations), layers[-1].flip(0)))


def _log_det(activations: Tensor, products: Tensor) -> Tensor:
    """log|det| `(n,)` of all layers, from their tanh `(layers, n)` and w.u, `(layers,)` or `(layers, n)`."""
    return torch.log1p((1 - activations.square()) * products.view(len(products), -1)).sum(0)


def solve_monotone(y: Tensor, c: Tensor, b: Tensor, tolerance: float = 1e-10) -> Tensor:
    """The root a of a + c tanh(a + b) = y for every `y: (n,)`; c > -1 and b are () or (n,).

    The method is Newton's within a bracket. It bisects where a Newton step would leave the bracket or is not
    below half of the last step. It ends one step after a step is below `tolerance`, or below the precision of
    y's dtype if that is coarser. Each root does not depend on the others. The result carries no gradient.
    """
    eps = torch.finfo(y.dtype).eps
    with torch.no_grad():
        low, high = y - c.abs(), y + c.abs()
        root = y - c * torch.tanh(y + b)
        step = high - low
        done = finished = torch.zeros_like(y, dtype=torch.bool)
        # Bisection alone would end within as many steps as the mantissa has bits; the bound only guards
        # against NaN.
        for _ in range(100):
            h = torch.tanh(root + b)
            residual = root + c * h - y
            low = torch.where(residual < 0, root, low)
            high = torch.where(residual < 0, high, root)
            slope = 1 + c * (1 - h.square())
            newton = residual / slope
            inside = (root - newton >= low) & (root - newton <= high)
            usable = inside & (2 * newton.abs() < step.abs())
            step = torch.where(usable, newton, root - (low + high) / 2)
            # The last step of a root is a Newton step: it leaves a smaller error than a bisection of equal
            # size.
            step = torch.where(done, newton.where(inside, torch.zeros_like(newton)), step)
            root = torch.where(finished, root, root - step)
            finished = done
            done = done | (step.abs() <= (4 * eps * root.abs()).clamp_min(max(tolerance, 4 * eps)))
            if finished.all():
                break
    return root
