"""A Gaussian mixture of rows in model space."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from flowbench.models.growing import GrowingBuffers
from flowbench.statistics.gaussian_mixtures import (
    Tell,
    most_components,
    refine_components,
    search_components,
    silent,
)

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

#: Components that are tried; the Bayesian information criterion chooses among them.
MAX_COMPONENTS = 8

#: Train rows that components are searched on, at most.
MAX_ROWS = 10_000
#: Train rows that those which are found are fitted to, at most, and in how many steps: a covariance of many
#: columns has as many numbers as would cost a tenth of a nat on the rows of the search.
MAX_FITTED = 50_000
REFINEMENTS = 10

#: Train rows up to which their mixture says more than they do: smoother, and a better start, than the rows.
FEW_ROWS = 5000
#: Of how many searches from new centres the best is taken where rows are few; of many rows it is only the
#: background, which hardly gains from more than one, while training gains from the time.
STARTS = 3

#: Of a budget that is a time, the share that a mixture may take to be fitted.
BUDGET_SHARE = 0.1

#: Along any axis: float32, in which draws are trained on, tells no less.
LEAST_VARIANCE = 1e-10


class Mixture(GrowingBuffers):
    """sum_k w_k N(m_k, S_k), kept by the `variances` along the principal `axes` (columns) of each S_k.

    Kept in float64, since axes that are rounded are no longer quite orthonormal; an evaluation in float32
    rounds them. It begins without components, and has none until it is fitted or loaded.
    """

    growing: ClassVar[tuple[str, ...]] = ("log_weights", "means", "variances", "axes")
    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        for name, shape in zip(self.growing, ((), (features,), (features,), 2 * (features,)), strict=True):
            self.register_buffer(name, torch.zeros(0, *shape, dtype=torch.float64))

    def fit(self, x: Tensor, seconds: float = math.inf, tell: Tell = silent) -> None:
        """Take the mixture of rows `x: (n, d)`, its components chosen by the information criterion.

        More of them are tried for about `seconds`; `tell` hears of each trial.
        """
        rows = x[:MAX_FITTED].double().cpu().numpy()
        searched, threads = rows[:MAX_ROWS], torch.get_num_threads()
        most = min(MAX_COMPONENTS, most_components(*searched.shape))
        starts = STARTS if len(x) <= FEW_ROWS else 1
        found = search_components(
            searched, range(1, most + 1), threads=threads, seconds=seconds, starts=starts, tell=tell
        )
        self.take(
            found
            if len(rows) == len(searched)
            else refine_components(found, rows, REFINEMENTS, threads=threads)
        )

    def fit_within(self, x: Tensor, seconds: float | None, tell: Tell = silent) -> None:
        """`fit`, in a small part of a budget of `seconds`, or with no limit."""
        self.fit(x, BUDGET_SHARE * (math.inf if seconds is None else seconds), tell)

    def take(self, mixture: "GaussianMixture") -> None:
        """Take over what scikit-learn has fitted, in full covariances."""
        variances, axes = torch.linalg.eigh(torch.from_numpy(mixture.covariances_))
        log_weights, means = torch.from_numpy(mixture.weights_).log(), torch.from_numpy(mixture.means_)
        self._set((log_weights, means, variances.clamp(min=LEAST_VARIANCE), axes))

    def become(self, other: "Mixture") -> None:
        """Be the same mixture as another one."""
        self._set(getattr(other, name) for name in self.growing)

    def _set(self, parts: Iterable[Tensor]) -> None:
        for name, part in zip(self.growing, parts, strict=True):
            # Contiguous, as it will be when it is loaded: the layout decides how products are rounded.
            self.register_buffer(name, part.contiguous().to(getattr(self, name), copy=True))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of `x: (n, d)`: `(n,)`, nats, in the type of `x`."""
        return torch.logsumexp(self._log_parts(x), 1)

    def shares(self, x: Tensor) -> Tensor:
        """The posterior share `(n, k)` of each component in rows `x: (n, d)`."""
        return torch.softmax(self._log_parts(x), 1)

    def _log_parts(self, x: Tensor) -> Tensor:
        """The log-density (n, k) that each component adds at `x: (n, d)`."""
        log_weights, means, variances, axes = self._like(x)
        offset = torch.einsum("nkd,kde->nke", x[:, None] - means, axes)
        exponent = (offset.square() / variances + variances.log() + math.log(2 * math.pi)).sum(-1)
        return log_weights - 0.5 * exponent

    def _like(self, x: Tensor) -> list[Tensor]:
        """Log-weights, means, variances and axes in the type of `x`."""
        return [part.to(x) for part in (self.log_weights, self.means, self.variances, self.axes)]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` rows `(n, d)`, in the type of the mixture."""
        if n == 0:
            return self.means.new_zeros(0, self.features)
        chosen = torch.multinomial(self.log_weights.exp().cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.features, generator=generator, dtype=self.means.dtype)
        along = self.variances[chosen].sqrt() * noise.to(self.variances)
        return self.means[chosen] + torch.einsum("ne,nde->nd", along, self.axes[chosen])
