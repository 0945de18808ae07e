"""The scikit-learn face, by scikit-learn's own checks, and the torch distribution."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowbench import FlowDensity
from flowbench.errors import ConfigurationError, DataError

TINY: dict[str, Any] = {"flow.field.width": 8, "flow.field.scales": 1}


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        FlowDensity("gaussian"),
        FlowDensity("planar", steps=10),
        FlowDensity("cnf", steps=10, options=TINY),
    ]
)
def test_sklearn_checks(estimator: FlowDensity, check: Callable[[FlowDensity], None]) -> None:
    check(estimator)


def cloud(n: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).multivariate_normal([5, -1], [[4, 1.5], [1.5, 1]], n)


def test_a_gaussian_is_found_in_the_units_of_the_rows() -> None:
    x = cloud()
    density = FlowDensity("gaussian", random_state=0).fit(x)
    truth = multivariate_normal([5, -1], [[4, 1.5], [1.5, 1]])
    fresh = truth.rvs(5000, random_state=1)
    assert (truth.logpdf(fresh) - density.score_samples(fresh)).mean() == pytest.approx(0, abs=0.01)
    assert density.score(fresh) == pytest.approx(density.score_samples(fresh).mean())
    assert density.sample(4000, random_state=0).mean(0) == pytest.approx([5, -1], abs=0.15)


@pytest.mark.parametrize("model", ["cnf", "planar"])
def test_log_likelihoods_come_with_errors(model: str) -> None:
    x = cloud(300)
    x[:, 0] = x[:, 0].round()
    options = TINY if model == "cnf" else {}
    for dequantise in (True, False):
        density = FlowDensity(model, steps=15, options=options, dequantise=dequantise, random_state=3).fit(x)
        log_prob, error = density.score_samples_with_errors(x[:20])
        assert np.array_equal(log_prob, density.score_samples(x[:20]))
        assert (error > 0).all()
        finer = {f"evaluation.integrator.{name}": 1e-10 for name in ("atol", "rtol")}
        if model == "cnf" and not dequantise:
            options = {**options, **finer}
            same = FlowDensity(model, steps=15, options=options, dequantise=False, random_state=3).fit(x)
            assert (np.abs(same.score_samples(x[:20]) - log_prob) <= error).mean() >= 0.95


def test_repeats_exactly_with_a_seed() -> None:
    x = cloud(300)
    one, two = (FlowDensity("cnf", steps=15, options=TINY, random_state=3).fit(x) for _ in range(2))
    assert np.array_equal(one.score_samples(x), two.score_samples(x))
    assert np.array_equal(one.sample(5, random_state=1), two.sample(5, random_state=1))


def test_in_a_pipeline_and_a_grid_search() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FlowDensity("planar", steps=5, random_state=0)),
        {"flowdensity__options": [{"flow.layers": 2}, {"flow.layers": 4}]},
        cv=2,
    ).fit(cloud(200))
    assert np.isfinite(search.best_score_)


def test_wrong_options_are_value_errors() -> None:
    with pytest.raises(ConfigurationError, match="unknown model `gausian`; did you mean `gaussian`"):
        FlowDensity("gausian").fit(cloud(50))
    with pytest.raises(ValueError, match=r"unknown option `flow\.field\.widht`"):
        FlowDensity("cnf", steps=1, options={"flow.field.widht": 3}).fit(cloud(50))


@pytest.mark.parametrize("fraction", [-1, 0, 1, 1.5, float("nan")])
def test_the_held_out_share_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match="`validation_fraction` must lie between 0 and 1"):
        FlowDensity("gaussian", validation_fraction=fraction).fit(cloud(50))


def test_options_that_mean_nothing_here_are_refused() -> None:
    for name in ("data.rows", "evaluation.test_rows"):
        with pytest.raises(ConfigurationError, match=f"got `{name}`"):
            FlowDensity("gaussian", options={name: 12}).fit(cloud(50))


def test_a_budget_among_the_options_counts() -> None:
    density = FlowDensity("planar", options={"plan.steps": 3}, random_state=0).fit(cloud(50))
    assert (density.config_.plan.steps, density.config_.plan.seconds) == (3, None)
    with pytest.raises(ConfigurationError, match=r"`plan\.seconds`: must be greater than 0; got 0"):
        FlowDensity("planar", time_budget=0).fit(cloud(50))


def test_a_fit_that_fails_leaves_an_earlier_one_as_it_was() -> None:
    x = cloud(300)
    density = FlowDensity("gaussian", random_state=0).fit(x)
    before = density.score_samples(x[:5])
    whole = x.round()
    whole[:, 0] = 3
    with pytest.raises(DataError, match="has one value"):
        density.fit(whole)
    assert np.array_equal(density.score_samples(x[:5]), before)


def test_as_a_torch_distribution() -> None:
    x = cloud(300)
    density = FlowDensity("planar", steps=20, random_state=0).fit(x)
    distribution = density.model_.as_distribution(torch.Generator().manual_seed(0))
    assert isinstance(distribution, torch.distributions.Distribution)
    assert distribution.event_shape == (2,)
    drawn = distribution.sample((3, 4))
    assert drawn.shape == (3, 4, 2)
    assert distribution.log_prob(drawn).shape == (3, 4)
    assert distribution.log_prob(torch.tensor(x[:7])).numpy() == pytest.approx(density.score_samples(x[:7]))
    assert distribution.sample().shape == (2,)
    assert distribution.sample((0, 3)).shape == (0, 3, 2)
    with pytest.raises(ValueError, match="`n_samples` must be a whole number of at least 1; got 0"):
        density.sample(0)


def test_whole_numbers_are_drawn_and_scored_as_cells() -> None:
    x = cloud(3000)
    x[:, 0] = x[:, 0].round()
    density = FlowDensity("gaussian", random_state=0).fit(x)
    drawn = density.sample(200, random_state=0)
    assert (drawn[:, 0] == drawn[:, 0].round()).all() and not (drawn[:, 1] == drawn[:, 1].round()).all()
    # A normal over cells of one: that of the numbers before they were rounded, and a little wider.
    truth = multivariate_normal([5, -1], [[4, 1.5], [1.5, 1]])
    before = cloud(3000)
    assert density.score(x) == pytest.approx(truth.logpdf(before).mean(), abs=0.1)
    points = FlowDensity("gaussian", dequantise=False, random_state=0).fit(x)
    assert not (points.sample(200, random_state=0)[:, 0] % 1 == 0).all()
    assert density.model_.encoder.dequantiser and not points.model_.encoder.dequantiser
