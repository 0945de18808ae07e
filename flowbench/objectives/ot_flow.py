"""Maximum likelihood with optimal transport costs (OT-Flow; Onken et al. 2021)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.continuous.fields.potential import Potential
from flowbench.models.continuous.flow import Rates
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import solve
from flowbench.objectives.objective import DensityObjective, LossTerms
from flowbench.ode.integrator import State, Velocity


class OTFlowOptions(options.PartOptions):
    """Weights of the two costs relative to the likelihood in nats; `random_end` as for `likelihood`.

    The defaults are the proportions, 1 : 100 : 5, of the paper's released code on toy densities.
    """

    name: Literal["ot-flow"] = "ot-flow"
    transport: float = Field(default=0.01, ge=0)
    hamilton_jacobi: float = Field(default=0.05, ge=0)
    random_end: float = Field(default=0.0, ge=0, lt=1)


class OTFlow(DensityObjective):
    """nll + a E int |v|^2 / 2 dt + b E int |d Phi / d tau - |grad Phi|^2 / 2| dt along the data's paths.

    Onken, Wu Fung, Li and Ruthotto (2021). The first cost is the transport cost. The second is zero for the
    optimal transport, whose potential solves the Hamilton-Jacobi-Bellman equation. tau = 1 - t is the paper's
    time, and the sign is that of the field `potential`, which this objective needs. The divergence is exact,
    whatever the flow's estimator: it comes with the gradient. For `random_end` (STEER, Ghosh et al. 2020) see
    `Likelihood`.
    """

    Options: ClassVar[type[options.PartOptions]] = OTFlowOptions

    def __init__(self, options: OTFlowOptions) -> None:
        super().__init__(options)
        self.transport = options.transport
        self.hamilton_jacobi = options.hamilton_jacobi
        self.random_end = options.random_end

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` unless the flow is continuous with the field `potential`."""
        field = self.continuous(flow).field
        if not isinstance(field, Potential):
            raise ConfigurationError(
                f"objective `ot-flow` needs the field `potential`; got `{type(field).__name__}`; "
                "set `flow.field=potential`, or train with `regularised-likelihood`"
            )

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss on `batch`, n rows; terms `nll`, nats, `transport` and `hamilton_jacobi`."""
        continuous = self.continuous(model)
        nll, (transport, residual) = solve(
            continuous, batch, ot_flow_rates(continuous.field), 2, generator, self.random_end
        )
        total = nll + self.transport * transport + self.hamilton_jacobi * residual
        terms = {"nll": nll, "transport": transport, "hamilton_jacobi": residual}
        return LossTerms(total, {name: term.detach() for name, term in terms.items()})


def ot_flow_rates(field: Potential) -> Rates:
    """Velocity v, divergence, |v|^2 / 2 and |d Phi / d tau - |grad Phi|^2 / 2|, from one pass."""

    def rates(_: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None) -> State:
        slopes = field.slopes(t, x, context)
        energy = slopes.gradient.square().sum(1) / 2
        return slopes.gradient, slopes.laplacian, energy, (slopes.time - energy).abs()

    return rates
