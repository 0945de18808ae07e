"""A kernel density estimate, its width chosen by likelihood."""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.models.density import Density, Scores
from flowbench.models.growing import GrowingBuffers
from flowbench.statistics.gaussian_mixtures import Tell, silent

#: Rows that the width is chosen by.
JUDGES = 500
#: Pairs of rows that are held in memory at a time.
PAIRS = 2**20


class KernelOptions(options.PartOptions):
    """At most `max_rows` train rows are kept, each with a kernel of its own."""

    name: Literal["kde"] = "kde"
    max_rows: int = Field(default=20_000, ge=2)


class KernelDensity(GrowingBuffers, Density):
    """The mean of Gaussians around the train rows, all with the covariance L L'.

    L is a width times either the unit matrix or the Cholesky factor of the rows' covariance, whichever
    gives rows the higher likelihood under the kernels of all others (Duin 1976: leave-one-out).
    """

    Options: ClassVar[type[options.PartOptions]] = KernelOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ()
    growing: ClassVar[tuple[str, ...]] = ("rows",)
    options: KernelOptions
    #: The train rows in units of the kernel, L^-1 x, (n, d).
    rows: Tensor
    #: L, (d, d).
    factor: Tensor

    def __init__(self, features: int, options: KernelOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        self.register_buffer("rows", torch.zeros(0, features))
        self.register_buffer("factor", torch.eye(features))

    @property
    def parameter_count(self) -> int:
        """The rows that are kept, and the width."""
        return self.rows.numel() + 1

    def initialise(self, x: Tensor, seconds: float | None = None, tell: Tell = silent) -> None:
        """Keep train rows `x: (n, d)` and choose shape and width of the kernel."""
        x = x[: self.options.max_rows].double()
        unit = torch.eye(self.features, dtype=x.dtype, device=x.device)
        covariance = x.T.cov().reshape(unit.shape)
        # Columns that determine one another have no factor of their own.
        shapes = [unit, torch.linalg.cholesky(covariance + 1e-6 * covariance.diagonal().mean() * unit)]
        found = [_choose_width(x, shape) for shape in shapes]
        (width, _), shape = max(zip(found, shapes, strict=True), key=lambda pair: pair[0][1])
        factor = width * shape
        self.register_buffer("factor", factor.to(self.factor))
        self.register_buffer("rows", _in_units(x, factor).to(self.rows))

    def _score(self, x: Tensor, generator: torch.Generator | None) -> Scores:
        offset = self.factor.diagonal().log().sum() + math.log(len(self.rows))
        offset = offset + self.features / 2 * math.log(2 * math.pi)
        parts = torch.split(_in_units(x, self.factor), max(1, PAIRS // len(self.rows)))
        found = torch.cat([_exponents(part, self.rows).logsumexp(1) for part in parts])
        return Scores(found.to(x) - offset)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        """Draw `n` rows `(n, d)` in model space, with their scores."""
        chosen = torch.randint(len(self.rows), (n,), generator=generator)
        noise = torch.randn(n, self.features, generator=generator, dtype=self.rows.dtype)
        x = (self.rows[chosen] + noise.to(self.rows)) @ self.factor.T
        return x, self._score(x, None)


def _in_units(x: Tensor, factor: Tensor) -> Tensor:
    units: Tensor = torch.linalg.solve_triangular(factor, x.T, upper=False)
    return units.T.contiguous()


def _exponents(x: Tensor, rows: Tensor) -> Tensor:
    """-|x - row|^2 / 2 for all pairs, (m, n), float64."""
    # Around the middle and in float64, since the squares of far rows cancel here.
    middle = rows.double().mean(0)
    x, rows = x.double() - middle, rows.double() - middle
    halves = -0.5 * rows.square().sum(1)
    return torch.addmm(halves, x, rows.T) - 0.5 * x.square().sum(1, keepdim=True)


def _choose_width(x: Tensor, shape: Tensor) -> tuple[float, float]:
    """The width of kernels of this `shape` with the highest leave-one-out likelihood, and that likelihood."""
    from scipy.optimize import minimize_scalar

    rows = _in_units(x, shape)
    judges = torch.arange(min(JUDGES, len(x)))
    pairs = _exponents(rows[judges], rows)
    pairs[judges, judges] = -torch.inf
    volume = shape.diagonal().log().sum().item() + x.shape[1] / 2 * math.log(2 * math.pi)

    def loss(log_width: float) -> float:
        exponents = pairs * math.exp(-2 * log_width)
        found = exponents.logsumexp(1).mean().item() - math.log(len(x) - 1)
        return volume + x.shape[1] * log_width - found

    result = minimize_scalar(loss, bounds=(math.log(3e-3), math.log(3.0)), method="bounded")
    return math.exp(result.x), -float(result.fun)
