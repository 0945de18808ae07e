"""Maximum likelihood, and the solve that all objectives by likelihood share."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.models.continuous.flow import ContinuousFlow, Rates
from flowbench.models.density import Density, base_log_prob
from flowbench.models.rows import Rows
from flowbench.objectives.objective import DensityObjective, LossTerms
from flowbench.ode.integrator import State


class LikelihoodOptions(options.PartOptions):
    """`random_end` b > 0 ends each solve of a continuous flow at a time drawn from [-b, b], not at 0.

    Solver and divergence estimator are the flow's.
    """

    name: Literal["likelihood"] = "likelihood"
    random_end: float = Field(default=0.0, ge=0, lt=1)


class Likelihood(DensityObjective):
    """The mean negative log-likelihood of the batch, nats, in model space.

    A random end is STEER (Ghosh et al. 2020). For each batch, the time at which the solve meets the base is
    drawn uniformly from an interval around t = 0. This makes the dynamics less stiff. Data stay at t = 1.
    """

    Options: ClassVar[type[options.PartOptions]] = LikelihoodOptions

    def __init__(self, options: LikelihoodOptions) -> None:
        super().__init__(options)
        self.random_end = options.random_end

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` for a flow without parameters.

        A random end also needs a continuous flow.
        """
        super().check(flow)
        if self.random_end:
            self.continuous(flow)

    def is_static_for(self, flow: Density) -> bool:
        """True if the flow is static.

        A continuous flow is not: the errors of its solve decide the steps.
        """
        return flow.is_static

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The mean of -log p over `batch`, n rows."""
        if not self.random_end:
            return LossTerms(-model.log_prob(batch.x, generator, context=batch.context).mean())
        continuous = self.continuous(model)
        nll, _ = solve(continuous, batch, continuous.rates, 0, generator, self.random_end)
        return LossTerms(nll)


def solve(
    flow: ContinuousFlow,
    batch: Rows,
    rates: Rates,
    integrals: int,
    generator: torch.Generator,
    random_end: float,
) -> tuple[Tensor, State]:
    """The mean negative log-likelihood () of the rows of `batch`, and the mean () of each path integral.

    `rates` and `integrals` are those of `ContinuousFlow.to_base_with_integrals`. `random_end` is that of
    `Likelihood`.
    """
    end = 0.0
    if random_end:
        draw = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
        end = random_end * (2 * draw.item() - 1)
    mapped, costs = flow.to_base_with_integrals(
        batch.x, rates, integrals, generator, end=end, context=batch.context
    )
    nll = -(base_log_prob(mapped.value) + mapped.log_det).mean()
    return nll, tuple(cost.mean() for cost in costs)
