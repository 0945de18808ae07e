"""`sample_weight` of the estimators."""

import numpy as np
import pytest
from biased_table import biased
from scipy.stats import norm

from flowbench import FlowDensity, FlowRegressor


def truth(rows: np.ndarray) -> np.ndarray:
    """The log-density (n,) that the rows (n, 2) come from before they are seen."""
    a, b = rows.T
    return np.asarray(norm.logpdf(a) + norm.logpdf(b, a**2 / 2, 0.5))


def test_a_flow_corrects_a_biased_sample() -> None:
    """Trained on seen rows, with weights it is much closer to what they come from."""
    table = biased(8000, 1, least=0.05).iloc[3:]
    x, weights = table[["a", "b"]].to_numpy(), table["w"].to_numpy()
    rng = np.random.default_rng(2)
    a = rng.normal(size=4000)
    fresh = np.stack([a, a**2 / 2 + rng.normal(size=4000) / 2], 1)

    def kl(sample_weight: np.ndarray | None) -> float:
        density = FlowDensity("nsf", steps=150, random_state=0).fit(x, sample_weight=sample_weight)
        return float((truth(fresh) - density.score_samples(fresh)).mean())

    corrected, plain = kl(weights), kl(None)
    assert plain > 0.2
    assert corrected < min(0.12, plain / 2)


def test_estimators_take_weights() -> None:
    table = biased()
    x, weights = table[["a", "b"]].to_numpy(), table["w"].to_numpy()
    found = FlowDensity("gaussian", random_state=0).fit(x, sample_weight=weights)
    assert found.sample(20_000, random_state=0)[:, 0].mean() == pytest.approx(0, abs=0.1)
    log_prob = found.score_samples(x)
    assert found.score(x, sample_weight=weights) == pytest.approx(np.average(log_prob, weights=weights))
    assert found.score(x[:1], sample_weight=[2.0]) == pytest.approx(log_prob[0])
    # Weights of 0 leave rows out: the same rows are held out.
    without = FlowDensity("gaussian", random_state=0).fit(x[3:], sample_weight=weights[3:])
    assert np.array_equal(without.score_samples(x), log_prob)
    side = np.repeat([0.0, 1.0], 500)
    y = np.tile([0.0, 1.0], 500) + 0.05 * np.random.default_rng(0).normal(size=1000)
    heavy = np.where((y > 0.5) == (side > 0.5), 3.0, 1.0)
    regressor = FlowRegressor("gaussian", options={"transforms": ["standardise"]}, draws=400, random_state=0)
    regressor.fit(side[:, None], y, sample_weight=heavy)
    assert regressor.predict([[0.0], [1.0]]) == pytest.approx([0.25, 0.75], abs=0.05)
    assert regressor.score(side[:, None], y, sample_weight=heavy) > regressor.score(side[:, None], y)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -1.0, 1.0], "egative"), ([1.0, np.nan, 1.0], "NaN"), ([0.0, 0.0, 3.0], "at least 2 must count")],
)
def test_estimators_refuse_what_is_no_weight(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowDensity("gaussian").fit(np.random.default_rng(0).normal(size=(3, 2)), sample_weight=weights)
