"""Models of p(y | x) that learn from one split of a table, and are asked about its test rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.conditional import ConditionalModel, fit_conditional
from benchmarks.known import known_conditional
from benchmarks.predictions import (
    LEVELS,
    Normals,
    Prediction,
    QuantileDensities,
    is_central,
    log_mean_exp,
    score,
    squared_errors,
)
from benchmarks.uci import Rows, Split, read_split
from benchmarks.worker import Answer, Contender
from flowbench.statistics.ensembles import crps

Floats = NDArray[np.float64]

#: Of each test row, from which everything but the likelihood is computed. With a hundred ranks for a row
#: among its draws, ninety of them are an interval of exactly 90%.
DRAWS = 99
#: Places in a cell over which a density is averaged where the cell's mass has no closed form.
PLACES = 8
#: Of NGBoost, as in its paper: the most stages, and the rate; stages without progress that end the search.
STAGES, RATE, PATIENCE = 2000, 0.01, 100
#: The smallest distances of quantiles that are tried, in standard deviations of the target.
LEAST_GAPS = np.geomspace(1e-4, 0.1, 13)

#: From inputs `(n, c)` to a density of the target for each row.
Predict = Callable[[Floats], Prediction]


@dataclass(frozen=True)
class GivenRows:
    """The densities that a model of flowbench has for the rows `x: (n, c)`."""

    model: ConditionalModel
    x: Floats

    def log_prob(self, y: Floats) -> Floats:
        """Log-densities `(n,)`, nats, of `y: (n,)`."""
        return self.model.log_prob(y[:, None], self.x)

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithms `(n,)` of the mass between `low: (n,)` and `high: (n,)`, by the midpoint rule."""
        places = (low + (high - low) * (i + 0.5) / PLACES for i in range(PLACES))
        return np.asarray(log_mean_exp([self.log_prob(y) for y in places]) + np.log(high - low))

    def sample(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` draws of each, `(n, m)`; they come from the model's own generator."""
        return self.model.sample(self.x, m)[:, :, 0]


def flowbench(
    table: str, split: int, model: str, seconds: float, settings: list[str] | None = None
) -> Contender:
    """A model of flowbench, trained for CPU seconds on one split of a table."""
    rows = read_split(table, split)

    def once() -> Answer:
        parts = (values for part in (rows.train, rows.validation) for values in (part.y[:, None], part.x))
        fitted = fit_conditional(model, *parts, seconds=seconds, seed=split, settings=settings or [])
        return _judge(GivenRows(fitted, rows.test.x), rows.test, split, fitted.seconds)

    return once


def peer(table: str, split: int, name: str) -> Contender:
    """The model called `name` of `PEERS`, fitted to one split of a table."""
    return partial(answer_of_peer, read_split(table, split), split, name)


def answer_of_peer(rows: Split, seed: int, name: str) -> Answer:
    """Fit the model called `name` of `PEERS`, and ask it about the test rows."""
    began = time.process_time()
    predict = PEERS[name](rows, seed)
    seconds = time.process_time() - began
    return _judge(predict(rows.test.x), rows.test, seed, seconds)


def known(density: str, model: str, seconds: float, train_rows: int, test_rows: int) -> Contender:
    """A model of flowbench, trained on rows of a known conditional density."""
    truth = known_conditional(density)
    rng = np.random.default_rng(7)
    x = truth.sample_context(train_rows + test_rows, rng)
    y = truth.sample(x, rng)
    train, validation = slice(0, round(0.9 * train_rows)), slice(round(0.9 * train_rows), train_rows)
    test = slice(train_rows, None)

    def once() -> Answer:
        parts = (values[rows] for rows in (train, validation) for values in (y, x))
        fitted = fit_conditional(model, *parts, seconds=seconds, seed=0)
        return Answer(
            {"log_prob": fitted.log_prob(y[test], x[test]), "truth": truth.log_prob(y[test], x[test])},
            {"seconds": fitted.seconds, "steps": fitted.steps},
        )

    return once


def _judge(prediction: Prediction, test: Rows, seed: int, seconds: float) -> Answer:
    """How well the `prediction` suits the `test` rows; a rounded target is ranked at a place in its cell."""
    rng = np.random.default_rng((seed, 1))
    draws = prediction.sample(DRAWS, rng)
    return Answer(
        {
            "log_prob": score(prediction, test.y, test.low, test.high),
            "squared_error": squared_errors(draws, test.y),
            "crps": crps(draws, test.y),
            "covered": is_central(draws, test.place(rng).y),
        },
        {"seconds": seconds},
    )


def _all(rows: Split) -> tuple[Floats, Floats]:
    """Inputs and target of the train and the validation rows together."""
    parts = rows.train, rows.validation
    return np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])


def _fit_linear(rows: Split, seed: int) -> Predict:
    """Least squares, with the variance of a new row's target under the linear model."""
    x, y = _all(rows)
    centre, spread = x.mean(0), x.std(0)

    def design(x: Floats) -> Floats:
        return np.concatenate([np.ones((len(x), 1)), (x - centre) / spread], axis=1)

    inverse = np.linalg.pinv(design(x))
    weights = inverse @ y
    freedom = len(y) - np.linalg.matrix_rank(design(x))
    variance = ((y - design(x) @ weights) ** 2).sum() / freedom

    def predict(x: Floats) -> Normals:
        leverage = ((design(x) @ inverse) ** 2).sum(1)
        return Normals(design(x) @ weights, np.sqrt(variance * (1 + leverage)))

    return predict


def _fit_ngboost(rows: Split, seed: int) -> Predict:
    """NGBoost with normals (Duan et al. 2020), as in the paper.

    The validation rows choose the number of stages, and all rows are fitted with it again.
    """
    from ngboost import NGBRegressor
    from sklearn.tree import DecisionTreeRegressor

    def make(stages: int) -> NGBRegressor:
        # ngboost's own learner by the name that scikit-learn has for its criterion today.
        learner = DecisionTreeRegressor(max_depth=3, random_state=seed)
        return NGBRegressor(
            Base=learner, n_estimators=stages, learning_rate=RATE, random_state=seed, verbose=False
        )

    search = make(STAGES).fit(
        rows.train.x,
        rows.train.y,
        X_val=rows.validation.x,
        Y_val=rows.validation.y,
        early_stopping_rounds=PATIENCE,
    )
    model = make(1 + search.best_val_loss_itr).fit(*_all(rows))

    def predict(x: Floats) -> Normals:
        found = model.pred_dist(x).params
        return Normals(found["loc"], found["scale"])

    return predict


def _fit_boosted_mean(rows: Split, seed: int) -> Predict:
    """Boosted trees for the mean, with one variance: that of the residuals of the validation rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    make = partial(HistGradientBoostingRegressor, random_state=seed)
    held_out = make().fit(rows.train.x, rows.train.y).predict(rows.validation.x) - rows.validation.y
    deviation = np.sqrt((held_out**2).mean())
    model = make().fit(*_all(rows))
    return lambda x: Normals(model.predict(x), np.full(len(x), deviation))


def _fit_boosted_quantiles(rows: Split, seed: int) -> Predict:
    """Boosted trees for each of nineteen quantiles, made a density; validation rows choose the least gap."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fit(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        make = partial(HistGradientBoostingRegressor, loss="quantile", random_state=seed)
        models = [make(quantile=level).fit(x, y) for level in LEVELS]
        return lambda x: np.stack([model.predict(x) for model in models], axis=1)

    predicted, judges = fit(rows.train.x, rows.train.y)(rows.validation.x), rows.validation

    def likelihood(least: float) -> float:
        prediction = QuantileDensities.of_predictions(predicted, LEVELS, least)
        return float(score(prediction, judges.y, judges.low, judges.high).mean())

    least = max(rows.train.y.std() * LEAST_GAPS, key=likelihood)
    quantiles = fit(*_all(rows))
    return lambda x: QuantileDensities.of_predictions(quantiles(x), LEVELS, least)


PEERS: dict[str, Callable[[Split, int], Predict]] = {
    "ngboost": _fit_ngboost,
    "boosted mean": _fit_boosted_mean,
    "boosted quantiles": _fit_boosted_quantiles,
    "linear": _fit_linear,
}
