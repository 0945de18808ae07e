"""Gaussian mixtures of rows in model space, joint or conditional on a context."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.growing import GrowingBuffers
from flowbench.statistics.gaussian_mixtures import (
    Tell,
    most_components,
    refine_components,
    rows_that_count,
    search_components,
    silent,
)

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

#: The largest number of components tried; the Bayesian information criterion chooses the number.
MAX_COMPONENTS = 8

#: The number of components is chosen on at most this many training rows.
MAX_ROWS = 10_000
#: The chosen mixture is then fitted to at most `MAX_FITTED` training rows, in `REFINEMENTS` steps of
#: expectation maximisation. Measured: benchmarks/DEFAULTS.md#rows-of-a-mixture.
MAX_FITTED = 50_000
REFINEMENTS = 10

#: Up to this many training rows a mixture of them serves as a smoother estimate of their density: for noise
#: around the rows, and as the start of a flow.
FEW_ROWS = 5000
#: Number of initialisations of which the best is taken, where rows are few. Many rows get one. Their mixture
#: is only the background, which hardly gains from more; training gains more from the time.
STARTS = 3

#: The share of a time budget that fitting a mixture may take.
BUDGET_SHARE = 0.1

#: The least variance along any axis: training draws are float32, which resolves no less.
LEAST_VARIANCE = 1e-10


class Components(NamedTuple):
    """The Gaussian components of a mixture of rows, (n, d), given each row's context.

    `log_weights` are (k,) and `means` (k, d); given a context, (n, k) and (n, k, d). `variances` (k, d) lie
    along the principal `axes` (k, d, d), the columns, of each covariance.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor


class Mixture(GrowingBuffers):
    """sum_k w_k N(m_k, S_k), with each S_k as `variances` along its principal `axes` (columns).

    With `context_features` c it is the conditional density of rows x given a context, from a Gaussian mixture
    of both together. In component k the context is N(`context_means`, ...), and x given the context is
    N(`means` + `gains` (context - `context_means`), S_k). The weights given a context are the posterior
    probabilities of the components. The density of the context itself is not used otherwise.

    The buffers are float64, since rounded axes are not quite orthonormal; an evaluation in float32 rounds
    them. A new mixture has no components until it is fitted or loaded.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor
    gains: Tensor
    context_means: Tensor
    context_variances: Tensor
    context_axes: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.features = features
        self.context_features = context_features
        d, c = features, context_features
        shapes: dict[str, tuple[int, ...]] = {
            "log_weights": (),
            "means": (d,),
            "variances": (d,),
            "axes": (d, d),
        }
        if c:
            shapes |= {
                "gains": (d, c),
                "context_means": (c,),
                "context_variances": (c,),
                "context_axes": (c, c),
            }
        self.growing = tuple(shapes)
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(0, *shape, dtype=torch.float64))

    def fit(
        self,
        x: Tensor,
        seconds: float = math.inf,
        tell: Tell = silent,
        *,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Fit the mixture to rows `x: (n, d)`, with their `context: (n, c)` if there is one.

        A row of weight 2 in `weights: (n,)` counts as two rows.

        The Bayesian information criterion chooses the number of components. Numbers are tried for about
        `seconds`; `tell` gets a sentence about each trial.
        """
        together = with_context(x, context)
        rows = together[:MAX_FITTED].double().cpu().numpy()
        searched, threads = rows[:MAX_ROWS], torch.get_num_threads()
        counts = None if weights is None else weights[:MAX_FITTED].double().cpu().numpy()
        own = None if counts is None else counts[:MAX_ROWS]
        most = min(MAX_COMPONENTS, most_components(rows_that_count(searched, own), rows.shape[1]))
        starts = STARTS if len(x) <= FEW_ROWS else 1
        found = search_components(
            searched,
            range(1, most + 1),
            threads=threads,
            seconds=seconds,
            starts=starts,
            tell=tell,
            weights=own,
        )
        if len(rows) > len(searched):
            found = refine_components(found, rows, REFINEMENTS, threads=threads, weights=counts)
        self.take(found)

    def fit_within(
        self,
        x: Tensor,
        seconds: float | None,
        tell: Tell = silent,
        *,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """`fit`, in a small part of a budget of `seconds`; None is a budget without a time limit."""
        limit = BUDGET_SHARE * (math.inf if seconds is None else seconds)
        self.fit(x, limit, tell, context=context, weights=weights)

    def take(self, mixture: "GaussianMixture") -> None:
        """Take over scikit-learn's mixture, with full covariances, of rows followed by their context."""
        d = self.features
        log_weights = torch.from_numpy(mixture.weights_).log()
        means, covariances = torch.from_numpy(mixture.means_), torch.from_numpy(mixture.covariances_)
        if not self.context_features:
            self._set((log_weights, means, *_principal(covariances)))
            return
        # For each component: the Gaussian of x given the context, and the Gaussian of the context.
        of_context, across = covariances[:, d:, d:], covariances[:, :d, d:]
        gains = torch.linalg.solve(of_context, across.mT).mT
        left = covariances[:, :d, :d] - gains @ across.mT
        left = (left + left.mT) / 2
        self._set(
            (log_weights, means[:, :d], *_principal(left), gains, means[:, d:], *_principal(of_context))
        )

    def become(self, other: "Mixture") -> None:
        """Copy the components of another mixture."""
        self._set(getattr(other, name) for name in self.growing)

    def _set(self, parts: Iterable[Tensor]) -> None:
        for name, part in zip(self.growing, parts, strict=True):
            # Contiguous, as after loading: the memory layout decides how products are rounded.
            self.register_buffer(name, part.contiguous().to(getattr(self, name), copy=True))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of `x: (n, d)` given `context: (n, c)`: `(n,)`, nats, in the dtype of `x`."""
        return torch.logsumexp(self._log_parts(x, context), 1)

    def shares(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The posterior probabilities `(n, k)` of the components for rows `x: (n, d)`."""
        return torch.softmax(self._log_parts(x, context), 1)

    def _log_parts(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The logarithm (n, k) of each component's weighted density at `x: (n, d)`."""
        log_weights, means, variances, axes = self.components(x, context)
        return log_weights + _log_normal(x, means, variances, axes)

    def components(self, x: Tensor, context: Tensor | None) -> Components:
        """The components given `context: (n, c)`, if there is one, in the dtype of `x`."""
        self._check(context)
        own = Components(*(part.to(x) for part in (self.log_weights, self.means, self.variances, self.axes)))
        if context is None:
            return own
        context = context.to(x)
        gains, centres, variances, axes = (
            part.to(x) for part in (self.gains, self.context_means, self.context_variances, self.context_axes)
        )
        log_shares = own.log_weights + _log_normal(context, centres, variances, axes)
        means = own.means + torch.einsum("nkc,kdc->nkd", context[:, None] - centres, gains)
        return own._replace(log_weights=torch.log_softmax(log_shares, 1), means=means)

    def sample(self, n: int, generator: torch.Generator, context: Tensor | None = None) -> Tensor:
        """Draw `n` rows `(n, d)`, one for each row of `context: (n, c)`, in the dtype of the mixture."""
        self._check(context)
        if n == 0:
            return self.means.new_zeros(0, self.features)
        if context is None:
            weights = self.log_weights.exp().cpu()
            chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
            means = self.means[chosen]
        else:
            given = self.components(self.means, context.to(self.means))
            weights = given.log_weights.exp().cpu()
            chosen = torch.multinomial(weights, 1, generator=generator).squeeze(1).to(self.means.device)
            means = given.means[torch.arange(n, device=chosen.device), chosen]
        noise = torch.randn(n, self.features, generator=generator, dtype=self.means.dtype)
        along = self.variances[chosen].sqrt() * noise.to(self.variances)
        return means + torch.einsum("ne,nde->nd", along, self.axes[chosen])

    def _check(self, context: Tensor | None) -> None:
        if (context is None) != (self.context_features == 0):
            raise ConfigurationError(
                "a conditional mixture needs the context of each row, and another takes none"
            )


def with_context(x: Tensor, context: Tensor | None) -> Tensor:
    """Rows `(n, d + c)`: `x: (n, d)` followed by its `context: (n, c)`, if there is one."""
    return x if context is None else torch.cat([x, context], 1)


def _principal(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (k, d) along the principal axes (k, d, d), columns, of `covariances: (k, d, d)`."""
    variances, axes = torch.linalg.eigh(covariances)
    return variances.clamp(min=LEAST_VARIANCE), axes


def _log_normal(x: Tensor, means: Tensor, variances: Tensor, axes: Tensor) -> Tensor:
    """The log-density (n, k) of `x: (n, d)` under each Gaussian; `means` are (k, d) or (n, k, d)."""
    offset = torch.einsum("nkd,kde->nke", x[:, None] - means, axes)
    exponent = (offset.square() / variances + variances.log() + math.log(2 * math.pi)).sum(-1)
    return -0.5 * exponent
