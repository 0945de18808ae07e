"""The regressor that predicts whole densities, by scikit-learn's checks and by a density that is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import kstest, norm
from sklearn.datasets import make_regression
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowbench import FlowRegressor
from flowbench.errors import ConfigurationError, DataError

TINY = {"flow.field.width": 8, "flow.field.scales": 1}

#: scikit-learn calls `score_samples` without y. For a conditional density there is nothing to score then.
TAKES_Y = dict.fromkeys(
    ("check_methods_sample_order_invariance", "check_methods_subset_invariance"), "`score_samples` takes y"
)
#: Which rows are held out to choose the weights depends on how many there are.
SPLITS = {"check_sample_weight_equivalence_on_dense_data": "repeated rows are split otherwise"}


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        FlowRegressor("gaussian", draws=400),
        FlowRegressor("cnf", steps=10, options=TINY, draws=20),
    ],
    expected_failed_checks=lambda estimator: TAKES_Y | SPLITS,
)
def test_sklearn_checks(estimator: FlowRegressor, check: Callable[[FlowRegressor], None]) -> None:
    check(estimator)


def line(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """y = 1 + 3 a + 0.5 noise; the second column of X says nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, 1 + 3 * x[:, 0] + 0.5 * rng.normal(size=n)


@pytest.fixture(scope="module")
def fitted() -> FlowRegressor:
    return FlowRegressor("gaussian", random_state=0, draws=200).fit(*line(4000))


def test_a_line_with_normal_noise_is_found_in_every_way(fitted: FlowRegressor) -> None:
    x, y = line(300, 1)
    truth = norm(1 + 3 * x[:, 0], 0.5)
    assert (truth.logpdf(y) - fitted.score_samples(x, y)).mean() == pytest.approx(0, abs=0.01)
    mean, std = fitted.predict(x, return_std=True)
    assert mean == pytest.approx(truth.mean(), abs=0.06)
    assert std == pytest.approx(np.full(300, 0.5), abs=0.03)
    levels = [0.1, 0.5, 0.9]
    assert fitted.predict_quantiles(x, levels) == pytest.approx(
        truth.ppf(np.array(levels)[:, None]).T, abs=0.1
    )
    draws = fitted.sample_y(x, 50, random_state=3)
    assert draws.shape == (300, 50)
    assert kstest(truth.cdf(draws.T).ravel(), "uniform").pvalue > 1e-3
    # The draws are stratified: independent ones would be off by 0.035.
    assert mean == pytest.approx(LinearRegression().fit(*line(4000)).predict(x), abs=0.02)
    assert fitted.score(x, y) == pytest.approx(LinearRegression().fit(x, y).score(x, y), abs=0.005)


def test_log_densities_come_with_errors() -> None:
    x, y = line(300)
    regressor = FlowRegressor("cnf", steps=15, options=TINY, random_state=3).fit(x, y)
    log_prob, error = regressor.score_samples_with_errors(x[:20], y[:20])
    assert np.array_equal(log_prob, regressor.score_samples(x[:20], y[:20]))
    assert (error > 0).all()


def test_predictions_repeat_and_do_not_depend_on_other_rows() -> None:
    x, y = line(300)
    regressor = FlowRegressor("cnf", steps=15, options=TINY, random_state=3, draws=20).fit(x, y)
    together = regressor.predict_quantiles(x[:30])
    assert np.array_equal(together, regressor.predict_quantiles(x[:30]))
    alone = np.concatenate([regressor.predict_quantiles(x[[i]]) for i in range(30)])
    assert np.abs(together - alone).max() < 1e-9
    first, second = (regressor.sample_y(x[:5], random_state=seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_several_targets_keep_their_shape() -> None:
    x, y = make_regression(300, 3, n_targets=2, noise=1.0, random_state=0)
    regressor = FlowRegressor("gaussian", random_state=0, draws=50).fit(x, y)
    mean = regressor.predict(x[:7])
    assert isinstance(mean, np.ndarray) and mean.shape == (7, 2)
    assert regressor.predict_quantiles(x[:7], [0.2, 0.5, 0.8]).shape == (7, 3, 2)
    assert regressor.sample_y(x[:7], 4).shape == (7, 2, 4)
    assert regressor.score_samples(x[:7], y[:7]).shape == (7,)
    with pytest.raises(ConfigurationError, match=r"`y` must have shape \(7, 2\)"):
        regressor.score_samples(x[:7], y[:7, 0])


def test_whole_numbers_are_drawn_as_whole_numbers() -> None:
    x, y = line(2000)
    regressor = FlowRegressor("gaussian", random_state=0).fit(x, y.round())
    draws = regressor.sample_y(x[:20], 5)
    assert np.array_equal(draws, draws.round())


def test_columns_without_spread_are_left_out_and_said() -> None:
    x, y = line(300)
    constant = np.column_stack([np.ones(300), x])
    with pytest.warns(UserWarning, match="left out of `X`, since they have one value: columns 0"):
        regressor = FlowRegressor("gaussian", random_state=0, draws=50).fit(constant, y)
    assert regressor.used_.tolist() == [False, True, True]
    assert regressor.predict(constant[:5]) == pytest.approx(
        regressor.predict(np.column_stack([9 + x[:5, 0], x[:5]]))
    )
    with pytest.raises(ConfigurationError, match="every column of `X` has one value"):
        FlowRegressor("gaussian").fit(np.ones((300, 2)), y)
    with pytest.raises(DataError, match="has one value"):
        FlowRegressor("gaussian").fit(x, np.ones(300))


def test_wrong_arguments_are_value_errors(fitted: FlowRegressor) -> None:
    x, _ = line(10)
    for quantiles in ([0.0], [1.5], [[0.5]], [float("nan")]):
        with pytest.raises(ConfigurationError, match="`quantiles` must lie between 0 and 1"):
            fitted.predict_quantiles(x, quantiles)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="`n_samples` must be a whole number of at least 1; got 0"):
        fitted.sample_y(x, 0)
    with pytest.raises(ConfigurationError, match="`draws` must be a whole number of at least 1; got 0"):
        FlowRegressor("gaussian", draws=0).fit(*line(50)).predict(x)


def test_in_cross_validation() -> None:
    scores = cross_val_score(FlowRegressor("gaussian", random_state=0, draws=100), *line(300), cv=3)
    assert (scores > 0.9).all()


def test_trees_that_run_out_of_time_say_so() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 3)), rng.standard_normal(300)
    with pytest.warns(UserWarning, match="column 1 has 0 stages only, since the time ran out"):
        FlowRegressor("ngboost", time_budget=1e-9).fit(X, y)
