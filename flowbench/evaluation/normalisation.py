"""The integral of a density: by quadrature in one or two columns, by bridge sampling in more.

Where columns are periodic, it is the density on the line that is integrated. That on the circle is the sum
over copies (`flowbench.encoding.circle.Circle`), and has the same integral.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.models.classical.kernel import KernelDensity, KernelOptions
from flowbench.models.conditioned import Conditioned
from flowbench.models.density import base_log_prob
from flowbench.models.density_model import DensityModel
from flowbench.models.mixture import Mixture

#: A density of places in cells: a model, or a conditional one at one value of its givens.
Places = DensityModel | Conditioned

#: Points along each side of the grid, by the number of columns.
GRID = {1: 2000, 2: 150}
#: The box around rows and samples is extended on every side by this share of its width.
MARGIN = 0.25
#: Draws of the model that the box is put around, and default number of draws on each side of a bridge.
DRAWS = 2000
#: Shares of the proposal's parts. A Gaussian mixture suits many columns, kernels around draws suit thin
#: densities, and a standard normal reaches where no draw lies.
MIXTURE_SHARE, KERNEL_SHARE, NORMAL_SHARE = 0.45, 0.45, 0.1


@dataclass(frozen=True)
class Mass:
    """An integral of a density, its standard error, and the method in words."""

    value: float
    standard_error: float
    how: str


@torch.no_grad()
def quadrature_mass(model: Places, x: Tensor, generator: torch.Generator) -> Mass:
    """The integral by the midpoint rule over a box in model space, for one or two columns.

    The box holds the rows `x: (n, d)`, data units, and draws of the model. Every second point along each
    column makes a coarser grid. The standard error is the standard deviation of the coarser integrals, which
    is far larger than the error of the fine one.

    Raises `FloatingPointError` if a draw is not finite, and `IntegrationError` if a solve fails.
    """
    z = torch.cat([model.encoder.to_model(x)[0], _draws(model, DRAWS, generator)])
    low, high = z.amin(0), z.amax(0)
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    size = GRID[x.shape[1]]
    steps = (high - low) / size
    axes = [a + step * (torch.arange(size) + 0.5) for a, step in zip(low, steps, strict=True)]
    grid = torch.cartesian_prod(*axes).reshape(-1, x.shape[1])
    density = _log_prob_in_model_space(model, grid).exp().reshape([size] * x.shape[1])
    coarse = [density[::2], density[1::2]]
    if x.shape[1] == 2:
        coarse = [half[:, k::2] for half in coarse for k in (0, 1)]
    cell = steps.prod().item()
    means = torch.stack([part.sum() for part in coarse]) * cell * len(coarse)
    return Mass(density.sum().item() * cell, means.std().item(), f"a grid of {len(grid):,} points")


@torch.no_grad()
def bridge_mass(model: Places, generator: torch.Generator, *, draws: int = DRAWS) -> Mass:
    """The integral by the optimal bridge of Meng and Wong (1996), for any number of columns.

    The bridge lies between `draws` of the model and as many of a density that is fitted to further draws.
    Its weights are bounded wherever the two densities overlap; those of importance sampling are not. The
    standard error is that of Frühwirth-Schnatter (2004) for independent draws, stratified by the parts of the
    fitted density.

    Raises `FloatingPointError` if a draw is not finite, and `IntegrationError` if a solve fails.
    """
    z = _draws(model, draws, generator)
    proposal = _Proposal(_draws(model, draws, generator))
    proposed = proposal.sample(len(z), generator)
    # log p - log q at draws of the model and at draws of the proposal.
    ours, theirs = (
        _log_prob_in_model_space(model, points) - proposal.log_prob(points) for points in (z, proposed)
    )
    log_mass = 0.0
    for _ in range(1000):
        before = log_mass
        above = torch.nn.functional.logsigmoid(theirs - log_mass)
        below = torch.nn.functional.logsigmoid(log_mass - ours)
        log_mass = log_mass + _log_mean(above) - _log_mean(below)
        if abs(log_mass - before) < 1e-10:
            break
    variance = _relative_variance(torch.nn.functional.logsigmoid(theirs - log_mass), proposal.sizes(len(z)))
    variance += _relative_variance(torch.nn.functional.logsigmoid(log_mass - ours), [len(z)])
    mass = math.exp(log_mass)
    effective = math.exp(2 * theirs.logsumexp(0).item() - (2 * theirs).logsumexp(0).item())
    how = (
        f"a bridge between {len(z):,} draws and as many of a density fitted to others, whose importance "
        f"weights are worth {effective:,.0f}"
    )
    return Mass(mass, mass * variance**0.5, how)


class _Proposal:
    """A density that is fitted to rows `z: (n, d)` and can be drawn from."""

    def __init__(self, z: Tensor) -> None:
        features = z.shape[1]
        mixture = Mixture(features).double()
        try:
            mixture.fit(z)
        except ValueError as error:
            # scikit-learn's error for a component whose covariance has no Cholesky factor.
            raise FloatingPointError(f"no Gaussian mixture fits the model's draws: {error}") from error
        kernels = KernelDensity(features, KernelOptions(), torch.Generator()).double()
        kernels.initialise(z)
        self._mixture, self._kernels = mixture, kernels

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density `(n,)` of `z: (n, d)`."""
        parts = (
            (MIXTURE_SHARE, self._mixture.log_prob(z)),
            (KERNEL_SHARE, self._kernels.log_prob(z)),
            (NORMAL_SHARE, base_log_prob(z)),
        )
        return torch.stack([math.log(share) + log_prob for share, log_prob in parts]).logsumexp(0)

    def sizes(self, n: int) -> list[int]:
        """The number of draws of each part among `n` draws."""
        sizes = [round(MIXTURE_SHARE * n), round(KERNEL_SHARE * n)]
        return [*sizes, n - sum(sizes)]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` rows `(n, d)`, with exactly its share from each part."""
        sizes = self.sizes(n)
        rest = torch.randn(sizes[2], self._mixture.features, generator=generator, dtype=torch.float64)
        drawn = (self._mixture.sample(sizes[0], generator), self._kernels.sample(sizes[1], generator), rest)
        return torch.cat(drawn)


def _draws(model: Places, n: int, generator: torch.Generator) -> Tensor:
    """`n` draws `(n, d)` of the model, in model space; raises `FloatingPointError` if one is not finite."""
    z = model.encoder.to_model(model.sample_line(n, generator))[0]
    if lost := int((~torch.isfinite(z).all(1)).sum()):
        raise FloatingPointError(f"{lost:,} of {n:,} draws of the model are not finite")
    return z


def _log_prob_in_model_space(model: Places, z: Tensor) -> Tensor:
    x, log_det = model.encoder.to_data(z)
    return model.score_line(x, torch.Generator().manual_seed(0)).log_prob + log_det


def _log_mean(log_values: Tensor) -> float:
    return log_values.logsumexp(0).item() - math.log(len(log_values))


def _relative_variance(log_values: Tensor, sizes: list[int]) -> float:
    """The variance of the mean of exp(`log_values`: (n,)), divided by the squared mean.

    `sizes` are the numbers of consecutive values that come from each part of a stratified sample.
    """
    scaled = (log_values - log_values.max()).exp()
    total = sum(len(part) * part.var() for part in torch.split(scaled, sizes))
    return float(total / len(scaled) ** 2 / scaled.mean().square())
