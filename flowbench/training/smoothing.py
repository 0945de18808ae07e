"""Few train rows, spread out so that a model learns their density and not the rows."""

import torch
from torch import Tensor

from flowbench.models.mixture import Mixture


class SmoothedBootstrap:
    """Draws around train rows `(n, d)` that have the means and covariances of a Gaussian `mixture` of them.

    A row x of component k, which it belongs to with its posterior share, becomes
    m_k + (x - m_k + h S_k^(1/2) e) / sqrt(1 + h^2), e standard normal (Silverman and Young 1987): the row
    itself at width h = 0, and a draw from the mixture as h grows. Noise in what a model learns from acts as a
    penalty on roughness (Rothfuss et al. 2019); shaped by the components, it follows columns that nearly
    determine one another, which an even one would blur.
    """

    def __init__(self, rows: Tensor, mixture: Mixture) -> None:
        self.rows = rows
        self._shares = mixture.shares(rows.double()).to(rows)
        self._means = mixture.means.to(rows)
        # (k, d, d): `e @ spreads[k]` has the covariance S_k.
        self._spreads = (mixture.axes * mixture.variances.sqrt().unsqueeze(1)).mT.to(rows)

    def draw(self, chosen: Tensor, width: float, generator: torch.Generator) -> Tensor:
        """One draw of `width` h around each of the rows `chosen: (m,)`, by their numbers: `(m, d)`."""
        rows = self.rows[chosen]
        component = torch.multinomial(self._shares[chosen], 1, generator=generator)
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        own = component == torch.arange(len(self._means), device=rows.device)
        spread = (own.unsqueeze(-1) * noise.unsqueeze(1)).flatten(1) @ self._spreads.flatten(0, 1)
        means = self._means[component.squeeze(1)]
        drawn: Tensor = means + (rows - means + width * spread) / (1 + width**2) ** 0.5
        return drawn
