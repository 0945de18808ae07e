"""A Gaussian mixture whose number of components is chosen by the Bayesian information criterion."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from flowbench import options
from flowbench.models.density import Density, Scores
from flowbench.models.mixture import LEAST_VARIANCE, Mixture, with_context
from flowbench.models.rows import Rows
from flowbench.statistics.gaussian_mixtures import (
    Tell,
    most_components,
    parameters_of_component,
    rows_that_count,
    search_components,
)

#: The longest search for components, in seconds, if the budget is in steps.
DEFAULT_SECONDS = 60.0


class MixtureOptions(options.PartOptions):
    """At most `max_components`, fitted on at most `max_rows` training rows.

    `min_variance` is added to the variances of every component, in model space. Its default falls with the
    number of rows.
    """

    name: Literal["mixture"] = "mixture"
    max_components: PositiveInt = 256
    max_rows: PositiveInt = 50_000
    min_variance: float | None = Field(None, ge=LEAST_VARIANCE)


class MixtureDensity(Density):
    """sum_k w_k N(m_k, S_k) with full covariances, fitted by scikit-learn's expectation maximisation.

    A conditional mixture is fitted to rows together with their context, and divided by its own density of the
    context.

    The numbers of components tried are 1, 2, 3, 4, 6, 8, 12 and so on. The Bayesian information criterion
    (Schwarz 1978) chooses among them. The search ends when the criterion has risen twice in a row, or when
    the next fit would end after the budget of time. Without a budget of time the limit is a minute.
    """

    Options: ClassVar[type[options.PartOptions]] = MixtureOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ()
    options: MixtureOptions

    def __init__(
        self,
        features: int,
        options: MixtureOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.mixture = Mixture(features, context_features)
        self.seed = int(torch.randint(2**31, (), generator=generator))

    @property
    def parameter_count(self) -> int:
        """The number of weights, means and covariances; the weights sum to one."""
        together = self.features + self.context_features
        return len(self.mixture.means) * parameters_of_component(together) - 1

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        few = rows[: self.options.max_rows].each(lambda part: part.double().cpu())
        together = with_context(few.x, few.context).numpy()
        weights = None if few.weights is None else few.weights.numpy()
        limit = DEFAULT_SECONDS if seconds is None else seconds
        n = rows_that_count(together, weights)
        most = min(self.options.max_components, most_components(n, together.shape[1]))
        added = self.options.min_variance
        found = search_components(
            together,
            _counts(most),
            threads=torch.get_num_threads(),
            seconds=limit,
            seed=self.seed,
            added=added,
            tell=tell,
            weights=weights,
        )
        self.mixture.take(found)

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        return Scores(self.mixture.log_prob(x, context))

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        x = self.mixture.sample(n, generator, context)
        return x, self._score(x, context, None)


def _counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to `most`."""
    counts, step = [1], 1
    while 2 * step <= most:
        counts += [2 * step, 3 * step]
        step *= 2
    return [count for count in counts if count <= most]
