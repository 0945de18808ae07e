"""The estimator of time series: frames of every kind, likelihoods, predictions and draws."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import multivariate_normal

from flowbench import SeriesDensity
from flowbench.errors import ConfigurationError


def frame(n: int = 30) -> pd.DataFrame:
    """Series of the sum of a level and a slope, out of order, with a gap in the second column."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        level, slope = rng.normal(size=2)
        for t in rng.uniform(0, 4, 6):
            x = level + slope * t + 0.1 * rng.normal()
            rows.append({"who": f"s{number}", "when": t, "x": x, "y": np.nan if rng.random() < 0.2 else -x})
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def fitted(model: str = "gp", **options: Any) -> SeriesDensity:
    estimator = SeriesDensity(model, series="who", time="when", steps=20, random_state=0, **options)
    return estimator.fit(frame())


def test_likelihoods_predictions_and_draws() -> None:
    density, table = fitted(), frame()
    scores = density.score_samples(table)
    assert scores.shape == (30,) and density.score(table) == pytest.approx(scores.mean())
    assert density.score_series(table).standard_error is None
    # In the order of first rows, whatever the other series are.
    first = table["who"].iloc[0]
    own = table[table["who"] == first]
    assert density.score_samples(own)[0] == pytest.approx(scores[0], abs=1e-9)
    found = density.predict(own, [1.0, 2.0])
    assert found[0].mean.shape == (2, 2) and found[0].draws.shape == (100, 2, 2)
    each = density.predict(table, [[float(i), i + 0.5] for i in range(30)])
    assert [forecast.times[0] for forecast in each] == list(range(30))
    assert density.sample(3, [0, 1, 2, 3], random_state=0).shape == (3, 4, 2)
    assert density.columns_ == ("x", "y") and any("missing" in note for note in density.notes_)


def test_the_likelihood_of_a_gaussian_process_is_that_of_its_draws() -> None:
    """The mean log-likelihood of many draws is minus the entropy of the normal that they come from."""
    density = fitted(options={"transforms": ["standardise"]})
    times = np.array([0.5, 1.0, 3.0])
    drawn = density.sample(3000, times, random_state=1)
    rows = [
        {"who": f"d{i}", "when": t, "x": drawn[i, k, 0], "y": drawn[i, k, 1]}
        for i in range(len(drawn))
        for k, t in enumerate(times)
    ]
    scores = density.score_samples(pd.DataFrame(rows))
    flat = drawn.reshape(len(drawn), -1)
    normal = multivariate_normal(flat.mean(0), np.cov(flat.T))
    assert scores.mean() == pytest.approx(-float(normal.entropy()), abs=0.1)


def test_frames_of_other_kinds_and_a_repeated_fit() -> None:
    density, table = fitted("latent-ode", options={"model.latent": 2, "evaluation.draws": 8}), frame()
    scores = density.score_samples(table)
    assert np.array_equal(scores, density.score_samples(pl.from_pandas(table)))
    again = fitted("latent-ode", options={"model.latent": 2, "evaluation.draws": 8})
    assert np.array_equal(scores, again.score_samples(table))
    assert (np.asarray(density.score_series(table).standard_error) > 0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "cnf"}, "`cnf` models rows, not series"),
        ({"validation_fraction": 1.0}, "must lie between 0 and 1"),
        ({"options": {"data.seed": 1}}, "`options` takes those of model, plan"),
        ({"series": "whom"}, "unknown column `whom`"),
    ],
)
def test_what_cannot_be_fitted(change: dict[str, object], said: str) -> None:
    estimator = SeriesDensity("gp", series="who", time="when", steps=3).set_params(**change)
    with pytest.raises(ValueError, match=said):
        estimator.fit(frame())


def test_what_cannot_be_predicted() -> None:
    density, table = fitted(), frame()
    for times in ([2.0, 1.0], [], [[1.0], [2.0]]):
        with pytest.raises(ConfigurationError, match="`times`"):
            density.predict(table, times)
    with pytest.raises(ValueError, match="unknown column `y`"):
        density.score_samples(table.drop(columns="y"))
