"""A Gaussian mixture of rows in model space."""

import math
from typing import Any

import torch
from torch import Tensor, nn

#: Components that are tried; the Bayesian information criterion chooses among them.
MAX_COMPONENTS = 8

#: Train rows that the mixture is fitted on, at most: more would take longer and change little.
MAX_ROWS = 10_000


class Mixture(nn.Module):
    """sum_k w_k N(m_k, S_k), kept by the `variances` along the principal `axes` (columns) of each S_k.

    It begins without components, and has none until it is fitted or loaded.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        for name, shape in self._shapes(0).items():
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, x: Tensor) -> None:
        """Take the mixture of rows `x: (n, d)`, its components chosen by the information criterion."""
        from sklearn.mixture import GaussianMixture

        rows = x[:MAX_ROWS].double().cpu().numpy()
        # Two rows for each parameter of a component, at least.
        own = 1 + self.features + self.features * (self.features + 1) // 2
        most = max(1, min(MAX_COMPONENTS, len(rows) // (2 * own)))
        fits = [
            GaussianMixture(count, reg_covar=1e-4, n_init=3, random_state=0).fit(rows)
            for count in range(1, most + 1)
        ]
        mixture = min(fits, key=lambda fit: fit.bic(rows))
        variances, axes = torch.linalg.eigh(torch.from_numpy(mixture.covariances_))
        found = {
            "log_weights": torch.from_numpy(mixture.weights_).log(),
            "means": torch.from_numpy(mixture.means_),
            "variances": variances.clamp(min=1e-6),
            "axes": axes,
        }
        for name, value in found.items():
            # Contiguous, as it will be when it is loaded: the layout decides how products are rounded.
            self.register_buffer(name, value.contiguous().to(getattr(self, name)))

    def add_standard_normal(self, share: float) -> None:
        """Give `share` of the mixture to one more component, the standard normal."""
        more = {
            "log_weights": torch.tensor([math.log(share)]),
            "means": torch.zeros(1, self.features),
            "variances": torch.ones(1, self.features),
            "axes": torch.eye(self.features)[None],
        }
        self.log_weights += math.log1p(-share)
        for name, value in more.items():
            own = getattr(self, name)
            self.register_buffer(name, torch.cat([own, value.to(own)]))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of `x: (n, d)`: `(n,)`, nats, in the type of `x`."""
        parts = [part.to(x) for part in (self.log_weights, self.means, self.variances, self.axes)]
        log_weights, means, variances, axes = parts
        offset = torch.einsum("nkd,kde->nke", x[:, None] - means, axes)
        exponent = (offset.square() / variances + variances.log() + math.log(2 * math.pi)).sum(-1)
        return torch.logsumexp(log_weights - 0.5 * exponent, 1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` rows `(n, d)`, in the type of the mixture."""
        if n == 0:
            return self.means.new_zeros(0, self.features)
        chosen = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.features, generator=generator, dtype=self.means.dtype)
        along = self.variances[chosen].sqrt() * noise
        return self.means[chosen] + torch.einsum("ne,nde->nd", along, self.axes[chosen])

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        d = self.features
        return {
            "log_weights": (count,),
            "means": (count, d),
            "variances": (count, d),
            "axes": (count, d, d),
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # How many components there are is known only once they are fitted, or loaded.
        weights = state_dict.get(prefix + "log_weights")
        if isinstance(weights, Tensor) and len(weights) != len(self.log_weights):
            for name, shape in self._shapes(len(weights)).items():
                self.register_buffer(name, getattr(self, name).new_zeros(shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
