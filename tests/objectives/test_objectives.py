"""Objectives: the contract over the registry, and flow matching against its closed form on a Gaussian."""

from typing import Any

import pytest
import torch
from scipy.integrate import quad

from flowbench.errors import ConfigurationError
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.latent_ode import LatentOde
from flowbench.models.trainable import Trainable
from flowbench.objectives.flow_matching import FlowMatching, FlowMatchingOptions
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.registry import OBJECTIVES, SERIES_MODELS

#: The field for an objective that does not take any.
FIELDS = {"ot-flow": {"name": "potential"}}
#: What an objective takes beside its options.
BESIDE = {"reverse-kl": {"target": lambda x: -(x - 1).square().sum(1)}}


def continuous(features: int = 2, objective: str = "") -> ContinuousFlow:
    options = ContinuousOptions(field=FIELDS.get(objective, {"name": "time-mlp", "width": 16, "scales": 1}))
    return ContinuousFlow(features, options, torch.Generator().manual_seed(0))


def normal_rows(n: int, features: int = 2) -> torch.Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(1))


def learner(trains: type[Trainable], objective: str) -> tuple[Trainable, Any]:
    """A model that an objective of this kind trains, and a batch of what it learns from."""
    if trains is Density:
        return continuous(objective=objective), Rows(normal_rows(32))
    name = "latent-ode" if trains is LatentOde else "rnn-dt"
    model_class = SERIES_MODELS.get(name)
    generator = torch.Generator().manual_seed(1)
    series = [(torch.rand(m, generator=generator).sort()[0], normal_rows(m)) for m in (1, 4, 7)]
    return model_class(2, model_class.Options(), generator), SeriesBatch.of(series)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, {}) for name in OBJECTIVES.names()),
        ("flow-matching", {"coupling": "minibatch-ot", "coupling_size": 10}),
        ("flow-matching", {"path": "variance-preserving"}),
        ("flow-matching", {"antithetic": True}),
        ("likelihood", {"random_end": 0.5}),
        ("regularised-likelihood", {"random_end": 0.5}),
        ("ot-flow", {"random_end": 0.5}),
        ("evidence-bound", {"draws": 3, "importance": True}),
    ],
    ids=str,
)
def test_contract(name: str, values: dict[str, object]) -> None:
    """A scalar with gradients, drawn from the given generator alone: the same for the same seed."""
    objective_class = OBJECTIVES.get(name)
    objective = objective_class(objective_class.Options(**values), **BESIDE.get(name, {}))
    model, batch = learner(objective_class.trains, name)
    objective.check(model)
    before = torch.get_rng_state()
    first = objective(model, batch, torch.Generator().manual_seed(2)).total
    second = objective(model, batch, torch.Generator().manual_seed(2)).total
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == ()
    assert torch.equal(first, second)
    first.backward()
    assert any(
        parameter.grad.abs().max() > 0 for parameter in model.parameters() if parameter.grad is not None
    )


def test_likelihood_is_the_mean_negative_log_density() -> None:
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator())
    batch = normal_rows(100)
    flow.initialise(batch)
    loss = Likelihood(LikelihoodOptions())(flow, Rows(batch), torch.Generator()).total
    mean, covariance = batch.double().mean(0), batch.double().T.cov(correction=0)
    truth = torch.distributions.MultivariateNormal(mean, covariance)
    expected = -truth.log_prob(batch.double()).mean()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_flow_matching_loss_of_the_exact_velocity_of_a_gaussian() -> None:
    """The untrained field is the marginal velocity between two standard normals.

    Its loss is the variance of x_1 - x_0 given x_t: 2 - (2t - 1)^2 / (t^2 + (1 - t)^2), averaged over t.
    """
    expected, _ = quad(lambda t: 2 - (2 * t - 1) ** 2 / (t**2 + (1 - t) ** 2), 0, 1)
    objective = FlowMatching(FlowMatchingOptions(late_share=0.0))
    with torch.no_grad():
        loss = objective(
            continuous(), Rows(normal_rows(400_000)), torch.Generator().manual_seed(3)
        ).total.item()
    assert loss == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("antithetic", [False, True])
def test_late_times_are_log_uniform_towards_the_data(antithetic: bool) -> None:
    objective = FlowMatching(FlowMatchingOptions(late_share=1.0, latest=1e-3, antithetic=antithetic))
    t, weight = objective._times(normal_rows(100_000), torch.Generator().manual_seed(4))
    late = -(1 - t).log10()
    assert late.min() >= 0 and late.max() <= 3 + 1e-3
    assert weight.mean().item() == pytest.approx(1, abs=0.02)
    assert (weight * late).mean().item() == pytest.approx(1.5, abs=0.02)
    assert (weight * (late - 1.5).square()).mean().item() == pytest.approx(9 / 12, abs=0.02)


def test_flow_matching_refuses_a_discrete_flow() -> None:
    with pytest.raises(ConfigurationError, match="needs a continuous flow"):
        FlowMatching(FlowMatchingOptions()).check(GaussianFlow(2, GaussianOptions(), torch.Generator()))
