"""Planar flows (Rezende and Mohamed 2015), run from data to base so that the likelihood is one pass."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from flowbench import options
from flowbench.models.density import Flow, Mapped, likelihood_phases

#: How far w.u stays above -1, where a layer would fold.
MARGIN = 1e-5


class PlanarOptions(options.PartOptions):
    """`layers` planar maps in a row; `initial_scale` is how far each moves a row at the start."""

    name: Literal["planar"] = "planar"
    layers: PositiveInt = 32
    initial_scale: PositiveFloat = 0.01


class PlanarFlow(Flow):
    """Layers x -> x + u tanh(w.x + b) from data to base (Rezende and Mohamed 2015, eq. 10).

    Each layer is invertible at every step of training: u is replaced by u + (m(w.u) - w.u) w / |w|^2 with
    m(a) = softplus(a) - 1 (their appendix A.1) raised by `MARGIN`, so that w.u > -1 in arithmetic too.
    Sampling inverts a layer through the scalar equation a + (w.u) tanh(a + b) = w.y, which is monotone in
    a = w.x.
    """

    Options: ClassVar[type[options.PartOptions]] = PlanarOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(2e-2)
    is_static: ClassVar[bool] = True

    def __init__(self, features: int, options: PlanarOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.w = nn.Parameter(normal(options.layers, features) / features**0.5)
        self.u = nn.Parameter(options.initial_scale * normal(options.layers, features))
        self.b = nn.Parameter(normal(options.layers))

    def _layers(self) -> tuple[Tensor, Tensor]:
        """The constrained `u: (layers, d)` and `w.u: (layers,)`, which is above -1."""
        raw = (self.w * self.u).sum(1)
        squared = self.w.square().sum(1).clamp_min(torch.finfo(self.w.dtype).tiny)
        product = softplus(raw) - (1 - MARGIN)
        return self.u + ((product - raw) / squared).unsqueeze(1) * self.w, product

    def _to_base(self, x: Tensor, generator: torch.Generator | None) -> Mapped:
        us, products = self._layers()
        activations = []
        for w, u, b in zip(self.w, us, self.b, strict=True):
            h = torch.tanh(torch.addmv(b, x, w))
            x = torch.addcmul(x, h.unsqueeze(1), u)
            activations.append(h)
        return Mapped(x, _log_det(torch.stack(activations), products))

    def _to_data(self, z: Tensor, generator: torch.Generator | None) -> Mapped:
        us, products = self._layers()
        activations = []
        for w, u, b, product in zip(*(p.flip(0) for p in (self.w, us, self.b, products)), strict=True):
            h = torch.tanh(solve_monotone(z @ w, product, b) + b)
            z = torch.addcmul(z, h.unsqueeze(1), u, value=-1)
            activations.append(h)
        return Mapped(z, -_log_det(torch.stack(activations), products.flip(0)))


def _log_det(activations: Tensor, products: Tensor) -> Tensor:
    """log|det| `(n,)` of all layers, from their tanh `(layers, n)` and w.u `(layers,)`."""
    return torch.log1p((1 - activations.square()) * products.unsqueeze(1)).sum(0)


def solve_monotone(y: Tensor, c: Tensor, b: Tensor, tolerance: float = 1e-10) -> Tensor:
    """The root a of a + c tanh(a + b) = y for every `y: (n,)`; a scalar c > -1 and b, () or (n,).

    Newton steps kept inside a bracket, with bisection where they leave it or slow down, until one is below
    `tolerance`, or the precision of y's dtype where that is coarser, and one step more. Every root is found
    on its own, whatever is solved beside it. It carries no gradient.
    """
    eps = torch.finfo(y.dtype).eps
    with torch.no_grad():
        low, high = y - c.abs(), y + c.abs()
        root = y - c * torch.tanh(y + b)
        step = high - low
        done = finished = torch.zeros_like(y, dtype=torch.bool)
        # Bisection alone would end within the mantissa's bits; the bound only guards against NaN.
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
            # The last step of a root is Newton's: it leaves less than a bisection as small.
            step = torch.where(done, newton.where(inside, torch.zeros_like(newton)), step)
            root = torch.where(finished, root, root - step)
            finished = done
            done = done | (step.abs() <= (4 * eps * root.abs()).clamp_min(max(tolerance, 4 * eps)))
            if finished.all():
                break
    return root
