"""Maximum likelihood with penalties on the paths (RNODE; Finlay et al. 2020)."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.models.continuous.flow import ContinuousFlow, Rates
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import solve
from flowbench.objectives.objective import DensityObjective, LossTerms
from flowbench.ode.divergence import ExactDivergence, Hutchinson, as_tangents
from flowbench.ode.integrator import State, Velocity


class RegularisedLikelihoodOptions(options.PartOptions):
    """Weights of the two path costs relative to the likelihood in nats; `random_end` as for `likelihood`."""

    name: Literal["regularised-likelihood"] = "regularised-likelihood"
    kinetic_energy: float = Field(default=0.01, ge=0)
    jacobian_frobenius: float = Field(default=0.01, ge=0)
    random_end: float = Field(default=0.0, ge=0, lt=1)


class RegularisedLikelihood(DensityObjective):
    """nll + a E int |v|^2 dt + b E int |dv/dx|_F^2 dt along the paths of the data (RNODE).

    Finlay, Jacobsen, Nurbekyan and Oberman (2020). Of all flows with the same likelihood this objective
    prefers one whose paths are short and straight, and so cheap to solve. The Frobenius norm is exact if the
    flow's divergence is, and otherwise estimated with the probes of the solve. For `random_end` (STEER, Ghosh
    et al. 2020) see `Likelihood`.
    """

    Options: ClassVar[type[options.PartOptions]] = RegularisedLikelihoodOptions

    def __init__(self, options: RegularisedLikelihoodOptions) -> None:
        super().__init__(options)
        self.kinetic_energy = options.kinetic_energy
        self.jacobian_frobenius = options.jacobian_frobenius
        self.random_end = options.random_end

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` unless the flow is continuous: only then it has paths."""
        self.continuous(flow)

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss on `batch`, n rows; terms `nll`, nats, `kinetic_energy` and `jacobian_frobenius`."""
        continuous = self.continuous(model)
        nll, (kinetic, frobenius) = solve(
            continuous, batch, regularised_rates(continuous), 2, generator, self.random_end
        )
        total = nll + self.kinetic_energy * kinetic + self.jacobian_frobenius * frobenius
        terms = {"nll": nll, "kinetic_energy": kinetic, "jacobian_frobenius": frobenius}
        return LossTerms(total, {name: term.detach() for name, term in terms.items()})


def regularised_rates(flow: ContinuousFlow) -> Rates:
    """Velocity v and its divergence by the flow's estimator, then |v|^2 and |dv/dx|_F^2, (n,) each."""

    def rates(field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None) -> State:
        tangents = _spanning(x) if probes is None else as_tangents(probes)
        velocity, pushed = field.jvp(t, x, tangents, context)
        # E |J e|^2 = |J|_F^2 for probes e with unit covariance, and all estimators draw such probes.
        frobenius = pushed.square().sum(-1).mean(0)
        if isinstance(flow.divergence, ExactDivergence | Hutchinson):
            divergence = (tangents * pushed).sum(-1).mean(0)
        else:
            velocity, divergence = flow.divergence.velocity_and_divergence(field, t, x, probes, context)
        return velocity, divergence, velocity.square().sum(1), frobenius

    return rates


def _spanning(x: Tensor) -> Tensor:
    """The d basis vectors times sqrt(d), as tangents (d, n, d).

    Over these tangents e the means of e^T J e and |J e|^2 are exactly tr J and |J|_F^2.
    """
    rows, features = x.shape
    basis = torch.eye(features, dtype=x.dtype, device=x.device) * math.sqrt(features)
    return basis[:, None].expand(features, rows, features)
