"""Noise around few train rows, so that a model learns their density and not the rows themselves."""

import torch
from torch import Tensor

from flowbench.models.mixture import Mixture


class SmoothedBootstrap:
    """Draws around train rows `(n, d)` that have the means and covariances of a Gaussian `mixture` of them.

    A component k is drawn for a row x from its posterior shares. With e standard normal the row becomes
    m_k + (x - m_k + h S_k^(1/2) e) / sqrt(1 + h^2) (Silverman and Young 1987). At width h = 0 that is the row
    itself, and as h grows a draw from the mixture.

    Such noise acts as a penalty on roughness (Rothfuss et al. 2019). It has the covariance of the component,
    so that columns that nearly determine one another stay so. Noise of one size for all would blur them.

    For a conditional density the rows hold their context behind, and the mixture is that of both together.
    """

    def __init__(self, rows: Tensor, mixture: Mixture) -> None:
        self.rows = rows
        self._shares = mixture.shares(rows.double()).to(rows)
        self._means = mixture.means.to(rows)
        # (k, d, d): `e @ spreads[k]` has the covariance S_k.
        self._spreads = (mixture.axes * mixture.variances.sqrt().unsqueeze(1)).mT.to(rows)

    def draw(self, chosen: Tensor, width: float, generator: torch.Generator) -> Tensor:
        """One draw of `width` h around each of the rows with the indices `chosen: (m,)`: `(m, d)`."""
        rows = self.rows[chosen]
        component = torch.multinomial(self._shares[chosen], 1, generator=generator)
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        own = component == torch.arange(len(self._means), device=rows.device)
        spread = (own.unsqueeze(-1) * noise.unsqueeze(1)).flatten(1) @ self._spreads.flatten(0, 1)
        means = self._means[component.squeeze(1)]
        drawn: Tensor = means + (rows - means + width * spread) / (1 + width**2) ** 0.5
        return drawn
