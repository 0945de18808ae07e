"""The scikit-learn faces: a density estimator, and a regressor that predicts whole densities."""

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from flowbench.data.row_weights import counts
from flowbench.encoding.dequantiser import choose_dequantiser
from flowbench.errors import ConfigurationError
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.reported import mean_log_prob, score_rows
from flowbench.models.rows import Rows
from flowbench.statistics.weighting import mean_of
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.preparation import (
    DEQUANTISATION,
    Watch,
    build_encoder,
    build_givens,
    make_trainer,
    prepare,
)

Floats = NDArray[np.float64]
RandomState = int | np.random.RandomState | None

#: Parts of a run that `options` may set.
PARTS = ("flow", "plan", "transforms", "background")
#: Tolerance of the draws that predictions are made of: their scatter is far larger than such a solve is off.
LOOSE = 1e-4


class _FlowEstimator(BaseEstimator):
    """What the estimators share: the parameters of a fit, and the fit itself."""

    def __init__(
        self,
        model: str = "cnf",
        *,
        preset: str = "default",
        time_budget: float | None = None,
        steps: int | None = None,
        dequantise: bool = True,
        validation_fraction: float = 0.1,
        options: Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.model = model
        self.preset = preset
        self.time_budget = time_budget
        self.steps = steps
        self.dequantise = dequantise
        self.validation_fraction = validation_fraction
        self.options = options
        self.random_state = random_state

    def _check_fraction(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ConfigurationError(
                f"`validation_fraction` must lie between 0 and 1; got {self.validation_fraction}"
            )

    def _learn(
        self, rows: Floats, context: Floats | None = None, weights: Floats | None = None
    ) -> NDArray[np.bool_]:
        """Fit a model to `rows: (n, d)` with `weights: (n,)`, given the `context: (n, c)`, if there are any.

        Returns which columns of the context are used, `(c,)`.
        """
        if weights is not None:
            kept = counts(weights)
            rows, weights = rows[kept], weights[kept]
            context = None if context is None else context[kept]
        random = check_random_state(self.random_state)
        config = self._configure(int(random.randint(2**31 - 1)))
        order = random.permutation(len(rows))
        held_out = min(max(1, round(self.validation_fraction * len(rows))), len(rows) - 1)
        train, validation = order[held_out:], order[:held_out]
        targets, givens = ("x", "") if context is None else ("y", "x")
        columns = tuple(f"{targets}{i}" for i in range(rows.shape[1]))
        by_name = dict(zip(columns, rows[train].T, strict=True))
        dequantiser = choose_dequantiser(by_name) if self.dequantise else None
        encoder = build_encoder(config, columns, dequantiser)
        used = _varying(context, train)
        names = [f"{givens}{i}" for i in np.flatnonzero(used)]
        whole = Rows.of_arrays(rows, None if context is None else context[:, used], weights)
        random_places = np.random.default_rng((config.seed, DEQUANTISATION))

        def place(part: NDArray[np.intp]) -> Rows:
            known = whole[torch.from_numpy(part)]
            return known.at(encoder.jitter(known.x, random_places))

        prepared = prepare(
            config, encoder, place(train), place(validation), givens=build_givens(config, names)
        )
        for text in prepared.model.flow.remarks:
            warnings.warn(text, stacklevel=3)
        make_trainer(prepared, Watch()).run()
        # Together and at the end: a fit that fails must leave an earlier one as it was.
        self.config_ = config
        self.chosen_ = prepared.chosen
        self.model_ = prepared.model.cpu().for_evaluation(config.evaluation.integrator)
        return used

    def _configure(self, seed: int) -> RunConfig:
        for name in self.options or {}:
            part = name.partition(".")[0]
            if part not in PARTS and not f"{name}.".startswith("evaluation.integrator."):
                raise ConfigurationError(
                    f"`options` takes those of {', '.join(PARTS)} and evaluation.integrator; got `{name}`"
                )
        own = {"plan.seconds": self.time_budget, "plan.steps": self.steps, "seed": seed}
        told = {name: value for name, value in own.items() if value is not None}
        return resolve("array", self.model, preset=self.preset, overrides={**(self.options or {}), **told})

    def _log_prob(self, rows: Rows) -> Floats:
        log_prob: Floats = mean_log_prob(self._budget(), rows).numpy()
        return log_prob

    def _log_prob_with_errors(self, rows: Rows) -> tuple[Floats, Floats]:
        found = score_rows(self._budget(), rows)
        return found.log_prob.numpy(), found.error.numpy()

    def _budget(self) -> ErrorBudget:
        return ErrorBudget(self.model_, self.config_.evaluation)


class FlowDensity(DensityMixin, _FlowEstimator):
    """A normalizing flow as a scikit-learn density estimator.

    Parameters
    ----------
    model : str
        A model of the registry, such as "cnf", "planar", "nsf" or "mixture".
    preset : str
        "default", or a published recipe of the model, such as "ffjord" for "cnf".
    time_budget : float or None
        Seconds of training; 60 if neither `steps` nor the preset sets steps. Of both, whichever ends first.
    steps : int or None
        Optimiser steps; results repeat exactly only with a budget in steps.
    dequantise : bool
        Whether columns of evenly spaced values, most of which repeat, are spread over the cells that these
        stand for; a log-likelihood is then the mean over a row's cell (`flowbench.encoding.dequantiser`).
    validation_fraction : float
        Share of the rows held out to choose the weights and to stop early.
    options : mapping or None
        Further options by dotted name, such as {"flow.field.width": 128}; of the evaluation those of its
        integrator, which scores and draws.
    random_state : int, RandomState or None
        Seed of the held-out rows, the weights and the batches.

    Attributes
    ----------
    model_ : flowbench.models.density_model.DensityModel
        The fitted model, float64, with exact divergence; `model_.as_distribution(generator)` is a
        `torch.distributions.Distribution`. Its `encoder` has the dequantiser.
    config_ : flowbench.workflows.config.RunConfig
        The resolved configuration.
    chosen_ : str
        What short trials chose of the model before training; empty where nothing was tried.
    n_features_in_ : int
        Columns seen in `fit`.
    """

    def fit(self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the density of the rows of `X: (n, d)`; `y` is ignored.

        A row of weight 2 in `sample_weight: (n,)` counts as two rows, in the choice of weights too; rows of
        weight 0 are left out. Raises `ValueError` for options that cannot work, for weights that are negative
        or not finite and for columns without spread, and `RunFailedError` if training diverges.
        """
        self._check_fraction()
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._learn(rows, weights=_weights(sample_weight, rows))
        return self

    def score_samples(self, X: ArrayLike) -> Floats:
        """Log-likelihood of each row of `X: (n, d)`: `(n,)`, nats, in the units of `X`."""
        return self._log_prob(self._rows(X))

    def score_samples_with_errors(self, X: ArrayLike) -> tuple[Floats, Floats]:
        """As `score_samples`, and how far each log-likelihood may be off, `(n,)`, nats, by further solves.

        About 99 in 100 rows are off by less (`flowbench.evaluation.reported.score_rows`).
        """
        return self._log_prob_with_errors(self._rows(X))

    def score(self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None) -> float:
        """The mean log-likelihood of the rows of `X: (n, d)`, by weights, nats a row; higher is better."""
        log_prob = self.score_samples(X)
        return mean_of(log_prob, _weights(sample_weight, log_prob, least=1))

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Draw rows `(n_samples, d)` in the units of the fitted rows; raises `ValueError` for none."""
        check_is_fitted(self)
        generator = _generator(n_samples, "n_samples", random_state)
        with torch.no_grad():
            drawn: Floats = self.model_.sample(n_samples, generator).numpy()
        return drawn

    def _rows(self, X: ArrayLike) -> Rows:
        check_is_fitted(self)
        return Rows(torch.tensor(validate_data(self, X, dtype=np.float64, reset=False)))


class FlowRegressor(MultiOutputMixin, RegressorMixin, _FlowEstimator):
    """A conditional density p(y | X) as a scikit-learn regressor.

    `predict` gives the mean of y, `predict_quantiles` its quantiles, `sample_y` draws of it, and
    `score_samples` the log-density of values that came. `score` is R^2 of the mean, as of any regressor.

    Means and quantiles are those of `draws` draws for each row. They are stratified for a flow, whose means
    are off by far less than 1 / sqrt(`draws`) standard deviations of y given X; by about that much for
    "mixture" and "kde". Every row gets the same random numbers, from the seed of the fit. So a prediction
    repeats exactly, and does not depend on the other rows, unless `options` choose a solver that shares its
    steps among rows. The errors of all rows then have much the same direction: a mean over many predictions
    is off by as much as one of them.

    Columns of `X` that have one value in the rows that are learnt from say nothing. They are left out with
    a warning.

    Parameters
    ----------
    model, preset, time_budget, steps, validation_fraction, options, random_state
        As of `FlowDensity`.
    dequantise : bool
        Whether columns of `y` with evenly spaced values, most of which repeat, are spread over the cells that
        these stand for. Draws then have those values again, and a log-density is the mean over the cell
        (`flowbench.encoding.dequantiser`). `X` is taken as it is.
    draws : int
        Draws for each row in `predict` and `predict_quantiles`.

    Attributes
    ----------
    model_ : flowbench.models.density_model.DensityModel
        The fitted conditional model, float64; `model_.as_distribution(generator, context=X)`, with X a
        tensor of the columns used, is a batch of `torch.distributions.Distribution`.
    used_ : ndarray of bool, (n_features_in_,)
        The columns of `X` that the density is given.
    config_ : flowbench.workflows.config.RunConfig
        The resolved configuration.
    chosen_ : str
        What short trials chose of the model before training; empty where nothing was tried.
    n_features_in_ : int
        Columns of `X` seen in `fit`.
    """

    def __init__(
        self,
        model: str = "cnf",
        *,
        preset: str = "default",
        time_budget: float | None = None,
        steps: int | None = None,
        dequantise: bool = True,
        validation_fraction: float = 0.1,
        options: Mapping[str, Any] | None = None,
        random_state: RandomState = None,
        draws: int = 200,
    ) -> None:
        super().__init__(
            model,
            preset=preset,
            time_budget=time_budget,
            steps=steps,
            dequantise=dequantise,
            validation_fraction=validation_fraction,
            options=options,
            random_state=random_state,
        )
        self.draws = draws

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the density of `y: (n,)` or `(n, k)` given the rows of `X: (n, d)`.

        `sample_weight: (n,)` is as in `FlowDensity.fit`; `score` takes one too. Raises `ValueError` for
        options that cannot work, for a column of `y` without spread and for an `X` of which no column varies,
        and `RunFailedError` if training diverges.
        """
        self._check_fraction()
        x, targets = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        targets = np.asarray(targets, np.float64)
        self.used_ = self._learn(targets.reshape(len(x), -1), x, _weights(sample_weight, x))
        self.target_shape_ = targets.shape[1:]
        return self

    def predict(self, X: ArrayLike, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """The mean of y for each row of `X: (n, d)`: `(n,)` or `(n, k)`, as y was in `fit`.

        With `return_std`, the standard deviation of y as well, in the same shape.
        """
        if return_std and self.draws < 2:
            raise ConfigurationError(f"a standard deviation takes `draws` of at least 2; got {self.draws}")
        draws = self._draws(X)
        mean = self._shaped(draws.mean(1))
        return (mean, self._shaped(draws.std(1, ddof=1))) if return_std else mean

    def predict_quantiles(self, X: ArrayLike, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> Floats:
        """The `quantiles` of each column of y for each row of `X: (n, d)`: `(n, q)` or `(n, q, k)`.

        Raises `ValueError` for a quantile that does not lie between 0 and 1.
        """
        levels = np.asarray(quantiles, np.float64)
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise ConfigurationError(f"`quantiles` must lie between 0 and 1; got {quantiles}")
        found = np.moveaxis(np.quantile(self._draws(X), levels, axis=1), 0, 1)
        return found if self.target_shape_ else found[..., 0]

    def sample_y(self, X: ArrayLike, n_samples: int = 1, random_state: RandomState = 0) -> Floats:
        """Draw y `n_samples` times for each row of `X: (n, d)`: `(n, n_samples)` or `(n, k, n_samples)`.

        All draws are independent of each other. Raises `ValueError` for none.
        """
        context = self._context(X)
        generator = _generator(n_samples, "n_samples", random_state)
        each = context.repeat_interleave(n_samples, 0)
        with torch.no_grad():
            drawn = self.model_.sample(len(each), generator, context=each)
        shaped: Floats = drawn.view(len(context), n_samples, -1).transpose(1, 2).numpy()
        return shaped if self.target_shape_ else shaped[:, 0]

    def score_samples(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """The log-density of each row of `y` given that of `X: (n, d)`: `(n,)`, nats, in the units of y."""
        return self._log_prob(self._rows(X, y))

    def score_samples_with_errors(self, X: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """As `score_samples`, and how far each log-density may be off: see `FlowDensity`."""
        return self._log_prob_with_errors(self._rows(X, y))

    def _context(self, X: ArrayLike) -> torch.Tensor:
        check_is_fitted(self)
        return torch.tensor(validate_data(self, X, dtype=np.float64, reset=False)[:, self.used_])

    def _rows(self, X: ArrayLike, y: ArrayLike) -> Rows:
        check_is_fitted(self)
        x, targets = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, reset=False
        )
        if np.shape(targets)[1:] != self.target_shape_:
            raise ConfigurationError(
                f"`y` must have shape {(len(x), *self.target_shape_)}, as in `fit`; got {np.shape(targets)}"
            )
        values = torch.tensor(np.asarray(targets, np.float64)).view(len(x), -1)
        return Rows(values, torch.tensor(x[:, self.used_]))

    def _draws(self, X: ArrayLike) -> Floats:
        """Draws of y for each row of `X`, `(n, draws, k)`, by common random numbers."""
        context = self._context(X)
        generator = _generator(self.draws, "draws", self.config_.seed)
        loose = self.model_.for_evaluation(self.config_.evaluation.integrator.coarsened(LOOSE))
        with torch.no_grad():
            drawn: Floats = loose.sample_for_each(self.draws, generator, context=context).numpy()
        return drawn

    def _shaped(self, values: Floats) -> Floats:
        return values if self.target_shape_ else values[:, 0]


def _varying(context: Floats | None, train: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which columns of a `context: (n, c)` differ within the rows `train`; the others are warned of."""
    if context is None:
        return np.zeros(0, np.bool_)
    varies = np.asarray(np.ptp(context[train], axis=0) > 0)
    if not varies.any():
        raise ConfigurationError(
            "every column of `X` has one value in the train rows, so `y` has nothing to depend on"
        )
    if not varies.all():
        constant = ", ".join(map(str, np.flatnonzero(~varies)))
        warnings.warn(f"left out of `X`, since they have one value: columns {constant}", stacklevel=4)
    return varies


def _weights(sample_weight: ArrayLike | None, rows: Floats, least: int = 2) -> Floats | None:
    """The weights `(n,)` of n `rows`; None if all count alike. Raises `ValueError` for what are none."""
    if sample_weight is None:
        return None
    weights: Floats = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    if (counted := counts(weights).sum()) < least:
        raise ConfigurationError(
            f"`sample_weight` is above 0 for {counted} rows; at least {least} must count"
        )
    return weights


def _generator(count: object, name: str, random_state: RandomState) -> torch.Generator:
    """The generator of `count` draws, as the parameter called `name` says; raises `ConfigurationError`."""
    if not isinstance(count, Integral) or count < 1:
        raise ConfigurationError(f"`{name}` must be a whole number of at least 1; got {count!r}")
    return torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31 - 1)))
