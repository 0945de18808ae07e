"""A Gaussian with full covariance: the baseline that any flow has to beat."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.rows import Rows
from flowbench.statistics.gaussian_mixtures import Tell


class GaussianOptions(options.PartOptions):
    """`min_variance` is a lower bound of the covariance's eigenvalues, in model space."""

    name: Literal["gaussian"] = "gaussian"
    min_variance: PositiveFloat = 1e-6


class GaussianFlow(Flow):
    """x = mean + L z with L lower triangular: a multivariate normal, fitted in closed form.

    The diagonal of L is exp(`log_diagonal`), and so positive. The fit is the maximum likelihood one: the mean
    and the covariance of the training rows, by their weights if they have any. Eigenvalues below
    `min_variance` are raised to it; they occur where columns determine one another.

    Given a context, x = mean + `slopes` context + L z. This is linear regression with normal residuals, whose
    covariance does not depend on the context. It is the conditional of the joint normal.
    """

    Options: ClassVar[type[options.PartOptions]] = GaussianOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ()
    is_static: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        options: GaussianOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.min_variance = options.min_variance
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.below_diagonal = nn.Parameter(torch.zeros(features * (features - 1) // 2))
        if context_features:
            self.slopes = nn.Parameter(torch.zeros(features, context_features))

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        wide = rows.each(Tensor.double)
        equal = torch.full((len(wide),), 1 / len(wide), dtype=wide.x.dtype, device=wide.x.device)
        shares = equal if wide.weights is None else wide.weights / wide.weights.sum()
        mean = shares @ wide.x
        residuals = wide.x - mean
        if wide.context is not None:
            given = wide.context
            centre = shares @ given
            roots = shares.sqrt()[:, None]
            # Weighted least squares. The pseudo-inverse allows context columns that determine one another.
            slopes = (torch.linalg.pinv(roots * (given - centre)) @ (roots * residuals)).T
            residuals = residuals - (given - centre) @ slopes.T
            mean = mean - slopes @ centre
            with torch.no_grad():
                self.slopes.copy_(slopes)
        covariance = (shares[:, None] * residuals).T @ residuals
        values, vectors = torch.linalg.eigh(covariance)
        covariance = (vectors * values.clamp_min(self.min_variance)) @ vectors.T
        factor = torch.linalg.cholesky(covariance)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.log_diagonal.copy_(factor.diagonal().log())
            self.below_diagonal.copy_(factor[self._below()])

    def _factor(self) -> Tensor:
        return self.log_diagonal.exp().diag().index_put(self._below(), self.below_diagonal)

    def _below(self) -> tuple[Tensor, Tensor]:
        row, column = torch.tril_indices(self.features, self.features, -1, device=self.mean.device)
        return row, column

    def _mean(self, context: Tensor | None) -> Tensor:
        """The mean (d,), or given a context (n, d)."""
        return self.mean if context is None else torch.addmm(self.mean, context, self.slopes.T)

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        z = torch.linalg.solve_triangular(self._factor(), (x - self._mean(context)).T, upper=False).T
        return Mapped(z, -self.log_diagonal.sum().expand(len(x)))

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return Mapped(self._mean(context) + z @ self._factor().T, self.log_diagonal.sum().expand(len(z)))
