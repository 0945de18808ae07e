"""Path costs against quadrature along the solution, autodiff and closed forms; random ends of the solve."""

import math

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import base_log_prob
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.objectives.regularised_likelihood import (
    RegularisedLikelihood,
    RegularisedLikelihoodOptions,
    regularised_rates,
)
from flowbench.ode.clock import EVEN
from flowbench.ode.integrator import Velocity

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.func.jvp's


def moved_flow(
    features: int = 3, divergence: str = "exact", gradient: str = "backprop", **values: object
) -> ContinuousFlow:
    """A float64 flow with every parameter moved, solved to 1e-9."""
    options = ContinuousOptions(
        field={"name": "time-mlp", "width": 12, "scales": 1},
        integrator={"name": "torchdiffeq", "atol": 1e-9, "rtol": 1e-9, "gradient": gradient},
        divergence={"name": divergence, **values},
    )
    generator = torch.Generator().manual_seed(0)
    flow = ContinuousFlow(features, options, generator).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return flow


def rows(n: int, features: int = 3) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson", "hutch++"])
def test_costs_are_quadratures_along_the_solution(divergence: str) -> None:
    """Simpson's rule over positions of `trajectory`, which carries no costs, from the base to the data."""
    flow, x = moved_flow(divergence=divergence), rows(5)
    with torch.no_grad():
        mapped, costs = flow.to_base_with_integrals(x, regularised_rates(flow), 2, generator())
        # Close together towards the data, where the field changes on the scale of 1e-3.
        steps = torch.linspace(0, 1, 101, dtype=torch.float64)
        times = 1 - (1 - steps) ** 4
        path = flow.trajectory(mapped.value, times)
        torch.testing.assert_close(path[-1], x, atol=1e-6, rtol=1e-6)
        plain = flow.to_base(x, generator())
    torch.testing.assert_close(mapped.value, plain.value, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mapped.log_det, plain.log_det, atol=1e-6, rtol=1e-6)
    probes = flow.divergence.draw(x, generator())
    kinetic, frobenius = [], []
    for t, position in zip(times, path, strict=True):
        jacobian = torch.stack(
            [
                torch.func.jacrev(lambda row, t=t: flow.field.velocity(t, row[None])[0])(row)
                for row in position
            ]
        ).detach()
        kinetic.append(flow.field.velocity(t, position).detach().square().sum(1))
        if probes is not None:
            jacobian = torch.einsum("nij,nkj->nik", jacobian, probes) / probes.shape[1] ** 0.5
        frobenius.append(jacobian.square().sum((1, 2)))
    weights = torch.tensor([1.0, *([4.0, 2.0] * 49), 4.0, 1.0], dtype=torch.float64) / 300
    weights *= 4 * (1 - steps) ** 3
    for cost, integrand in zip(costs, (kinetic, frobenius), strict=True):
        torch.testing.assert_close(cost, weights @ torch.stack(integrand), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("divergence, probes", [("hutchinson", 4000), ("hutch++", 6000)])
def test_estimated_frobenius_norm_is_unbiased(divergence: str, probes: int) -> None:
    flow, x = moved_flow(divergence=divergence, probes=probes), rows(2)
    time = torch.tensor(0.6)
    exact = regularised_rates(moved_flow())(flow.field, time, x, None, None)
    drawn = regularised_rates(flow)(flow.field, time, x, flow.divergence.draw(x, generator()), None)
    torch.testing.assert_close(drawn[2], exact[2])
    torch.testing.assert_close(drawn[3], exact[3], atol=0, rtol=0.06)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    flow, x = moved_flow(), rows(6)
    objective = RegularisedLikelihood(RegularisedLikelihoodOptions(kinetic_energy=0.3, jacobian_frobenius=2))
    loss = objective(flow, Rows(x), generator())
    terms = loss.terms
    expected = terms["nll"] + 0.3 * terms["kinetic_energy"] + 2 * terms["jacobian_frobenius"]
    torch.testing.assert_close(loss.total.detach(), expected)
    nll = Likelihood(LikelihoodOptions())(flow, Rows(x), generator()).total
    torch.testing.assert_close(terms["nll"], nll.detach(), atol=1e-6, rtol=1e-6)
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("gradient_by", ["backprop", "adjoint"])
def test_gradients_reach_the_field_through_the_costs(gradient_by: str) -> None:
    """The loss's gradient in one direction against a central difference of its value."""
    flow, x = moved_flow(gradient=gradient_by), rows(4)
    objective = RegularisedLikelihood(RegularisedLikelihoodOptions(kinetic_energy=1, jacobian_frobenius=1))
    weight = flow.field.get_parameter("second.weight")
    (gradient,) = torch.autograd.grad(objective(flow, Rows(x), generator()).total, weight)
    values = []
    with torch.no_grad():
        for step in (1e-4, -1e-4):
            weight += step * gradient.sign()
            values.append(objective(flow, Rows(x), generator()).total.item())
            weight -= step * gradient.sign()
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(gradient.abs().sum().item(), rel=1e-4)


class Growth(torch.nn.Module):
    """v = rate x, whatever the time."""

    clock = EVEN
    has_closed_form_divergence = True

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.rate * x

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.rate * x, torch.full_like(x[:, 0], self.rate * x.shape[1])


@pytest.mark.parametrize("end", [-0.25, 0.0, 0.5])
def test_solve_ends_where_it_is_told(end: float) -> None:
    """Under v = a x: z = x exp(-a (1 - end)), and int |v|^2 dt = a (|x|^2 - |z|^2) / 2."""
    flow, x = moved_flow(2), rows(5, 2)
    flow.field = Growth(0.7)

    def rates(
        field: Velocity, t: Tensor, rows: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, ...]:
        velocity, divergence = flow.rates(field, t, rows, probes, context)
        return velocity, divergence, velocity.square().sum(1)

    mapped, (kinetic,) = flow.to_base_with_integrals(x, rates, 1, end=end)
    torch.testing.assert_close(mapped.value, x * math.exp(-0.7 * (1 - end)), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(mapped.log_det, x.new_full((5,), -1.4 * (1 - end)), atol=1e-7, rtol=1e-7)
    expected = 0.35 * (x.square() - mapped.value.square()).sum(1)
    torch.testing.assert_close(kinetic, expected, atol=1e-7, rtol=1e-7)


def test_random_end_averages_the_likelihood_over_an_interval() -> None:
    """STEER's loss is E over T of -log N(x(T)) + int_T^1 div; under v = a x that is a closed form of T."""
    flow, x = moved_flow(2), rows(5, 2)
    flow.field = Growth(0.7)
    source, objective = generator(), Likelihood(LikelihoodOptions(random_end=0.5))
    losses = torch.stack([objective(flow, Rows(x), source).total for _ in range(200)])
    ends = torch.linspace(-0.5, 0.5, 1001, dtype=torch.float64)
    truth = torch.stack(
        [(1.4 * (1 - end) - base_log_prob(x * torch.exp(-0.7 * (1 - end)))).mean() for end in ends]
    )
    assert truth.min() - 1e-6 <= losses.min() and losses.max() <= truth.max() + 1e-6
    assert losses.std().item() == pytest.approx(truth.std().item(), rel=0.15)
    assert losses.mean().item() == pytest.approx(truth.mean().item(), abs=4 * truth.std().item() / 200**0.5)


def test_costs_need_a_continuous_flow() -> None:
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator())
    Likelihood(LikelihoodOptions()).check(flow)
    for objective in (
        Likelihood(LikelihoodOptions(random_end=0.1)),
        RegularisedLikelihood(RegularisedLikelihoodOptions()),
    ):
        with pytest.raises(ConfigurationError, match=f"`{objective.options.name}` needs a continuous flow"):
            objective.check(flow)


@pytest.mark.parametrize(
    "options, values",
    [
        (LikelihoodOptions, {"random_end": 1.0}),
        (LikelihoodOptions, {"random_end": -0.1}),
        (RegularisedLikelihoodOptions, {"kinetic_energy": -1.0}),
        (RegularisedLikelihoodOptions, {"jacobian_frobenius": math.inf}),
    ],
)
def test_impossible_options_are_refused(options: type, values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        options(**values)
