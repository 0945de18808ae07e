"""The closed-form velocity of a Gaussian mixture, against scikit-learn's density and autodiff."""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

from flowbench.models.continuous.fields.mixture_drift import MixtureDrift
from flowbench.models.density import base_log_prob
from flowbench.models.mixture import Mixture
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions

TIMES = [0.0, 0.3, 0.9, 1.0]


def iris() -> torch.Tensor:
    x = load_iris().data
    return torch.tensor((x - x.mean(0)) / x.std(0))


def fitted() -> MixtureDrift:
    drift = MixtureDrift(4)
    drift.fit(iris())
    return drift


def test_its_flow_has_the_density_of_the_mixture(as_sklearn: Callable[[Mixture], GaussianMixture]) -> None:
    drift, x = fitted(), iris()
    assert len(drift.means) > 1

    def derivative(t: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        velocity, divergence = drift.velocity_and_divergence(t.reshape(-1, 1), state[0])
        return velocity, divergence.squeeze(1)

    solver = PerRowIntegrator(PerRowOptions(atol=1e-12, rtol=1e-12))
    z, log_det = solver.integrate(derivative, (x, x.new_zeros(len(x))), 1.0, 0.0).state
    expected = torch.from_numpy(as_sklearn(drift).score_samples(x.numpy()))
    assert (base_log_prob(z) + log_det - expected).abs().max() < 1e-9


@pytest.mark.parametrize("components", ["none", "fitted"])
@pytest.mark.parametrize("time", TIMES)
def test_jacobian_and_divergence_against_autodiff(components: str, time: float) -> None:
    drift = fitted() if components == "fitted" else MixtureDrift(4).double()
    x = iris()[:20]
    t = torch.full((20, 1), time, dtype=torch.float64)
    jacobian = torch.stack(
        [torch.func.jacrev(lambda row: drift.velocity(t[:1], row[None])[0])(row) for row in x]
    )
    tangents = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 20, 4)
    velocity, pushed = drift.jvp(t, x, tangents)
    same, divergence = drift.velocity_and_divergence(t, x)
    assert torch.allclose(pushed.permute(1, 2, 0), jacobian, atol=1e-8)
    assert torch.allclose(divergence[:, 0], jacobian.diagonal(dim1=1, dim2=2).sum(1), atol=1e-8)
    assert torch.equal(velocity, same)
    assert torch.allclose(velocity, drift.velocity(t, x), atol=1e-12)


def test_saved_and_loaded_with_its_components() -> None:
    drift, other = fitted(), MixtureDrift(4).double()
    other.load_state_dict(drift.state_dict())
    t, x = torch.tensor([[0.7]]), iris()
    assert torch.equal(drift.velocity(t, x), other.velocity(t, x))
