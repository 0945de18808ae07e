"""Noise around few train rows, so that a model learns their density and not the rows themselves."""

import torch
from torch import Tensor

from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows


class SmoothedBootstrap:
    """Draws around train `rows` that have the means and covariances of a Gaussian `mixture` of them.

    A component k is drawn for a row x from its posterior shares. With e standard normal the row becomes
    m_k + (x - m_k + h S_k^(1/2) e) / sqrt(1 + h^2) (Silverman and Young 1987). At width h = 0 that is the row
    itself, and as h grows a draw from the mixture.

    Such noise acts as a penalty on roughness (Rothfuss et al. 2019). It has the covariance of the component,
    so that columns that nearly determine one another stay so. Noise of one size for all would blur them.

    For a conditional density the mixture is that of the rows given their context, and so are m_k, S_k and
    the shares. The contexts stay as they are: noise on them would blur what depends on them. Measured:
    benchmarks/DEFAULTS.md#noise-around-few-rows.
    """

    def __init__(self, rows: Rows, mixture: Mixture) -> None:
        self.rows = rows
        x, context = rows.x.double(), None if rows.context is None else rows.context.double()
        self._shares = mixture.shares(x, context).to(rows.x)
        #: (k, d), or given a context (n, k, d).
        self._means = mixture.components(x, context).means.to(rows.x)
        # (k, d, d): `e @ spreads[k]` has the covariance S_k.
        self._spreads = (mixture.axes * mixture.variances.sqrt().unsqueeze(1)).mT.to(rows.x)

    def draw(self, chosen: Tensor, width: float, generator: torch.Generator) -> Rows:
        """One draw of `width` h around each of the m rows with the indices `chosen: (m,)`."""
        rows = self.rows[chosen]
        component = torch.multinomial(self._shares[chosen], 1, generator=generator)
        noise = torch.randn(rows.x.shape, generator=generator, dtype=rows.x.dtype, device=rows.x.device)
        own = component == torch.arange(len(self._spreads), device=rows.x.device)
        spread = (own.unsqueeze(-1) * noise.unsqueeze(1)).flatten(1) @ self._spreads.flatten(0, 1)
        component = component.squeeze(1)
        means = self._means[component] if rows.context is None else self._means[chosen, component]
        return rows.at(means + (rows.x - means + width * spread) / (1 + width**2) ** 0.5)
