"""The Gaussian mixture and the kernel density estimate, against scikit-learn."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.neighbors import KernelDensity as SklearnKernelDensity
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.classical.gaussian_mixture import MixtureDensity, MixtureOptions, _counts
from flowbench.models.classical.kernel import KernelDensity, KernelOptions, _choose_widths
from flowbench.models.mixture import Mixture
from flowbench.registry import OBJECTIVES
from flowbench.workflows.config import resolve


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three_clouds(n: int = 900) -> Tensor:
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]], dtype=torch.float64)
    return centres.repeat(n // 3, 1) + normal(n, 2)


def mixture(x: Tensor, seconds: float | None = None, **options: int) -> MixtureDensity:
    density = MixtureDensity(x.shape[1], MixtureOptions(**options), torch.Generator()).double()
    density.initialise(x, seconds)
    return density


def kernel(x: Tensor, **options: int) -> KernelDensity:
    density = KernelDensity(x.shape[1], KernelOptions(**options), torch.Generator()).double()
    density.initialise(x)
    return density


def test_as_many_components_as_there_are(as_sklearn: Callable[[Mixture], GaussianMixture]) -> None:
    x = three_clouds()
    density = mixture(x)
    assert len(density.mixture.means) == 3
    assert density.parameter_count == 3 * (1 + 2 + 3) - 1
    expected = as_sklearn(density.mixture).score_samples(x.numpy())
    assert np.abs(density.log_prob(x).numpy() - expected).max() < 1e-9


def test_a_mixture_ends_its_search_in_time() -> None:
    assert len(mixture(three_clouds(), seconds=0.0).mixture.means) == 1


def test_a_search_tells_where_it_stands() -> None:
    heard: list[str] = []
    density = MixtureDensity(2, MixtureOptions(), torch.Generator())
    density.initialise(three_clouds(), 1e6, heard.append)
    pattern = r"Gaussian mixture, components (\d+), BIC (\S+) \(best \S+\), \d+ s left"
    trials = [found.groups() for text in heard if (found := re.fullmatch(pattern, text))]
    assert len(trials) == len(heard)
    assert [int(count) for count, _ in trials[:3]] == [1, 2, 3]
    count, _ = min(trials, key=lambda trial: float(trial[1]))
    assert int(count) == len(density.mixture.means) == 3


def test_component_counts_grow_by_a_third_or_a_half() -> None:
    assert _counts(1) == [1]
    assert _counts(3) == [1, 2, 3]
    assert _counts(20) == [1, 2, 3, 4, 6, 8, 12, 16]


def test_kernels_are_those_of_scikit_learn() -> None:
    x, rows = normal(300, 3), normal(50, 3, seed=1)
    density = kernel(x)
    width = density.factor[0, 0].item()
    density.factor = width * torch.eye(3, dtype=torch.float64)
    density.rows = x / width
    oracle = SklearnKernelDensity(bandwidth=width, rtol=0, atol=0).fit(x.numpy())
    assert np.abs(density.log_prob(rows).numpy() - oracle.score_samples(rows.numpy())).max() < 1e-9


def test_the_width_is_that_of_leave_one_out() -> None:
    x = three_clouds(150)
    width, _, likelihood = _choose_widths(x, torch.eye(2, dtype=torch.float64), None)
    widths = {"bandwidth": np.geomspace(0.2, 1.5, 60)}
    search = GridSearchCV(SklearnKernelDensity(), widths, cv=LeaveOneOut()).fit(x.numpy())
    assert width == pytest.approx(search.best_params_["bandwidth"], rel=0.04)
    assert likelihood == pytest.approx(search.best_score_, abs=1e-3)


def test_columns_that_hang_together_get_slanted_kernels() -> None:
    a = normal(500, 1)
    density = kernel(torch.cat([a, a + 0.05 * normal(500, 1, seed=1)], 1))
    correlation = density.factor @ density.factor.T
    assert correlation[0, 1] / (correlation[0, 0] * correlation[1, 1]).sqrt() > 0.99


def test_columns_that_determine_one_another_and_repeated_rows_can_be_had() -> None:
    a = normal(100, 1)
    density = kernel(torch.cat([a, 2 * a], 1).repeat(2, 1))
    assert torch.isfinite(density.log_prob(normal(20, 2))).all()


def test_kernels_are_kept_for_some_rows_only() -> None:
    assert len(kernel(normal(300, 2), max_rows=100).rows) == 100


def test_samples_of_kernels_have_their_moments() -> None:
    x = three_clouds(300)
    density = kernel(x)
    drawn, _ = density.sample_and_log_prob(40_000, torch.Generator().manual_seed(0))
    expected = x.T.cov(correction=0) + density.factor @ density.factor.T
    assert torch.allclose(drawn.mean(0), x.mean(0), atol=0.1)
    assert torch.allclose(drawn.T.cov(), expected, atol=0.3)


@pytest.mark.parametrize("name", ["mixture", "kde"])
def test_nothing_is_trained_that_is_fitted_in_closed_form(name: str) -> None:
    config = resolve("moons", name)
    assert config.plan.phases == ()
    density = (mixture if name == "mixture" else kernel)(three_clouds(60))
    objective = OBJECTIVES.get("likelihood")
    with pytest.raises(ConfigurationError, match=f"model `{name}` is fitted without steps"):
        objective(objective.Options()).check(density)


def test_a_width_is_finite_for_two_rows() -> None:
    density = kernel(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert math.isfinite(density.factor.item())
