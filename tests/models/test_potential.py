"""The potential of OT-Flow: slopes against autodiff of Phi, and the optimal transport between Gaussians."""

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.continuous.fields.potential import Potential, PotentialOptions, Slopes
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.rows import Rows
from flowbench.objectives.ot_flow import OTFlow, OTFlowOptions, ot_flow_rates

SCALE = 3.0


def moved(features: int, **values: object) -> Potential:
    generator = torch.Generator().manual_seed(0)
    field = Potential(features, PotentialOptions(**values), generator).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return field


@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize("features", [1, 2, 6])
def test_slopes_equal_autodiff(features: int, layers: int) -> None:
    field = moved(features, width=8, layers=layers)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(7, features, generator=generator, dtype=torch.float64)
    t = torch.linspace(-0.2, 1, 7, dtype=torch.float64)

    def phi(time: Tensor, row: Tensor) -> Tensor:
        return field.potential(time, row[None])[0]

    slopes = field.slopes(t, x)
    hessian = torch.func.vmap(torch.func.hessian(phi, argnums=1))(t, x)
    time, gradient = torch.func.vmap(torch.func.grad(phi, argnums=(0, 1)))(t, x)
    torch.testing.assert_close(slopes.gradient, gradient)
    torch.testing.assert_close(slopes.time, -time)  # the field's own time runs from data to base
    torch.testing.assert_close(slopes.laplacian, hessian.diagonal(dim1=1, dim2=2).sum(1))


def test_large_rows_do_not_overflow() -> None:
    field = moved(2).float()
    x = torch.tensor([[1e3, -1e3]])
    t = torch.tensor(0.5)
    assert all(torch.isfinite(part).all() for part in (field.potential(t, x), *field.slopes(t, x)))


class ScalingPotential(Potential):
    """Phi of the optimal transport from N(0, SCALE^2) to N(0, 1), known in closed form.

    The map is x -> x / SCALE and rows go straight: x(tau) = (1 + k tau) x(0), k = 1 / SCALE - 1, so
    dx/dtau = k / (1 + k tau) x = -grad Phi with Phi = -k / (1 + k tau) |x|^2 / 2.
    """

    def potential(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        k = 1 / SCALE - 1
        return -k / (1 + k * (1 - t)) * x.square().sum(1) / 2

    def slopes(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Slopes:
        def phi(time: Tensor, row: Tensor) -> Tensor:
            return self.potential(time, row[None])[0]

        times = t.to(x).expand(len(x))
        time, gradient = torch.func.vmap(torch.func.grad(phi, argnums=(0, 1)))(times, x)
        hessian = torch.func.vmap(torch.func.hessian(phi, argnums=1))(times, x)
        return Slopes(gradient, -time, hessian.diagonal(dim1=1, dim2=2).sum(1))


def ot_flow(features: int = 2) -> ContinuousFlow:
    options = ContinuousOptions(
        field={"name": "potential"}, integrator={"name": "torchdiffeq", "atol": 1e-9, "rtol": 1e-9}
    )
    return ContinuousFlow(features, options, torch.Generator().manual_seed(0)).double()


def test_costs_of_the_optimal_transport_between_gaussians() -> None:
    """The signs agree: no residual, the cost |x - T(x)|^2 / 2 and the density of N(0, SCALE^2)."""
    flow = ot_flow()
    flow.field = ScalingPotential(2, PotentialOptions(), torch.Generator().manual_seed(0)).double()
    x = SCALE * torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        mapped, (transport, residual) = flow.to_base_with_integrals(x, ot_flow_rates(flow.field), 2)
        nll = OTFlow(OTFlowOptions())(flow, Rows(x), torch.Generator()).terms["nll"]
    torch.testing.assert_close(mapped.value, x / SCALE)
    torch.testing.assert_close(transport, (x - x / SCALE).square().sum(1) / 2)
    torch.testing.assert_close(residual, torch.zeros(6).double(), atol=1e-9, rtol=0)
    truth = torch.distributions.Normal(0.0, SCALE).log_prob(x).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(nll, -truth.mean())


def test_residual_is_positive_for_any_other_potential() -> None:
    loss = OTFlow(OTFlowOptions(transport=0.5, hamilton_jacobi=2))(
        ot_flow(), Rows(torch.ones(3, 2, dtype=torch.float64)), torch.Generator()
    )
    terms = loss.terms
    assert terms["hamilton_jacobi"] > 0.01
    expected = terms["nll"] + 0.5 * terms["transport"] + 2 * terms["hamilton_jacobi"]
    torch.testing.assert_close(loss.total.detach(), expected)


def test_ot_flow_needs_a_potential() -> None:
    objective = OTFlow(OTFlowOptions())
    objective.check(ot_flow())
    other = ContinuousFlow(2, ContinuousOptions(), torch.Generator().manual_seed(0))
    with pytest.raises(ConfigurationError, match="needs the field `potential`; got `TimeMLP`"):
        objective.check(other)


@pytest.mark.parametrize(
    "options, values",
    [
        (PotentialOptions, {"layers": 1}),
        (PotentialOptions, {"width": 0}),
        (PotentialOptions, {"rank": 0}),
        (OTFlowOptions, {"transport": -1.0}),
        (OTFlowOptions, {"hamilton_jacobi": -1.0}),
    ],
)
def test_impossible_options_are_refused(options: type, values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        options(**values)
