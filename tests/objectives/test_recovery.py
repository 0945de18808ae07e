"""Each objective finds a correlated Gaussian; reverse Kullback-Leibler does so without data."""

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.objectives.objective import DensityObjective
from flowbench.objectives.reverse_kl import ReverseKL, ReverseKLOptions
from flowbench.registry import OBJECTIVES

TRUTH = torch.distributions.MultivariateNormal(
    torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.8]])
)
POTENTIAL = {"name": "potential", "width": 16}
NETWORK = {"name": "time-mlp", "width": 24, "scales": 0}
# Objective, its options, field and steps; a potential starts farther from the answer than a network.
VARIANTS: list[tuple[str, dict[str, object], dict[str, object], int]] = [
    ("likelihood", {}, NETWORK, 150),
    ("likelihood", {"random_end": 0.25}, NETWORK, 200),
    ("likelihood", {}, POTENTIAL, 300),
    ("regularised-likelihood", {"kinetic_energy": 1e-3, "jacobian_frobenius": 1e-3}, NETWORK, 150),
    ("ot-flow", {"transport": 1e-3, "hamilton_jacobi": 5e-3}, POTENTIAL, 400),
    ("flow-matching", {}, NETWORK, 600),
    ("flow-matching", {"coupling": "minibatch-ot", "coupling_size": 64}, NETWORK, 600),
    ("flow-matching", {"path": "variance-preserving"}, NETWORK, 600),
    ("flow-matching", {"antithetic": True}, NETWORK, 600),
]
VARIANTS += [
    (name, {}, NETWORK, 300)
    for name in sorted(set(OBJECTIVES.names()) - {"reverse-kl", *(name for name, *_ in VARIANTS)})
    if OBJECTIVES.get(name).trains is Density
]


def continuous(field: dict[str, object]) -> ContinuousFlow:
    options = ContinuousOptions(field=field, integrator={"name": "torchdiffeq", "method": "rk4", "steps": 6})
    return ContinuousFlow(2, options, torch.Generator().manual_seed(0))


def recovered(objective: DensityObjective, flow: ContinuousFlow, steps: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the flow after some steps of Adam, its rate falling to zero."""
    generator = torch.Generator().manual_seed(1)
    scale = TRUTH.scale_tril.T
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = TRUTH.mean + torch.randn(256, 2, generator=generator) @ scale
        optimizer.zero_grad()
        objective(flow, Rows(batch), generator).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    options = type(flow.integrator).Options(atol=1e-5, rtol=1e-5)  # type: ignore[call-arg]
    fine = flow.for_evaluation(options)
    x = fine.sample(20_000, generator)
    return x.mean(0).float(), x.T.cov().float()


@pytest.mark.parametrize(("name", "values", "field", "steps"), VARIANTS, ids=str)
def test_gaussian_is_recovered(
    name: str, values: dict[str, object], field: dict[str, object], steps: int
) -> None:
    objective_class = OBJECTIVES.get(name)
    objective = objective_class(objective_class.Options(**values))
    mean, covariance = recovered(objective, continuous(field), steps)
    torch.testing.assert_close(mean, TRUTH.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(covariance, TRUTH.covariance_matrix, atol=0.1, rtol=0)


def test_reverse_kl_recovers_a_gaussian_from_its_unnormalised_density() -> None:
    precision = TRUTH.precision_matrix

    def target(x: Tensor) -> Tensor:
        offset = x - TRUTH.mean
        return 7 - ((offset @ precision) * offset).sum(1) / 2

    mean, covariance = recovered(ReverseKL(ReverseKLOptions(), target=target), continuous(NETWORK), 150)
    torch.testing.assert_close(mean, TRUTH.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(covariance, TRUTH.covariance_matrix, atol=0.05, rtol=0)


def test_reverse_kl_of_the_untrained_flow_is_a_closed_form() -> None:
    """The untrained field is a standard normal: KL(N(0, I) | N(m, I)) = |m|^2 / 2, whatever the batch."""
    shift = torch.tensor([1.0, 2.0])
    target = torch.distributions.MultivariateNormal(shift, torch.eye(2))
    objective = ReverseKL(ReverseKLOptions(), target=target.log_prob)
    flow, seed = continuous(NETWORK), torch.Generator().manual_seed
    with torch.no_grad():
        loss = objective(flow, Rows(torch.zeros(20_000, 2)), seed(2)).total
        again = objective(flow, Rows(torch.full((20_000, 2), 9.0)), seed(2)).total
    # Of 20,000 draws: the divergence of one row has the standard deviation |m|.
    assert loss.item() == pytest.approx(2.5, abs=4 * (5 / 20_000) ** 0.5)
    assert torch.equal(loss, again)


def test_reverse_kl_refuses_what_it_cannot_train() -> None:
    with pytest.raises(ConfigurationError, match="learns from a density in the place of rows"):
        ReverseKL(ReverseKLOptions()).check(continuous(NETWORK))
    objective = ReverseKL(ReverseKLOptions(), target=lambda x: x)
    with pytest.raises(ConfigurationError, match="needs a continuous flow"):
        objective.check(GaussianFlow(2, GaussianOptions(), torch.Generator()))
    with pytest.raises(ConfigurationError, match=r"log-densities of shape \(5,\).*got \(5, 2\)"):
        objective(continuous(NETWORK), Rows(torch.zeros(5, 2)), torch.Generator())
