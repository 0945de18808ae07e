"""A density of irregular time series as an estimator in scikit-learn's manner."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from flowbench.data.files import TableFile
from flowbench.data.series_dataset import SeriesDataset
from flowbench.data.series_reading import SeriesColumns, read_series
from flowbench.errors import ConfigurationError, DataError
from flowbench.evaluation.series_evaluation import sample_series
from flowbench.evaluation.series_likelihoods import SeriesLikelihoods, score_series
from flowbench.evaluation.series_predictions import SeriesForecast, predict_series
from flowbench.frames import to_arrow, write_frame
from flowbench.workflows.preparation import Watch
from flowbench.workflows.series_config import SeriesConfig, resolve_series
from flowbench.workflows.series_fit import build_model, make_trainer
from flowbench.workflows.series_times import seconds_of
from flowbench.workflows.series_use import check_times

Floats = NDArray[np.float64]
RandomState = int | np.random.RandomState | None
#: Parts of a run that `options` may set.
PARTS = ("model", "plan", "transforms", "evaluation")


class SeriesDensity(DensityMixin, BaseEstimator):
    """A density of irregular time series, which also predicts and fills gaps.

    Data are a long frame (pandas, polars or pyarrow) with a row for each observation: a column that tells the
    series apart, one with the times, and columns of values, whose cells may be missing. Series may have any
    lengths and any times. They are in the order of their first rows.

    Parameters
    ----------
    model : str
        A model of series: "latent-ode", "rnn", "rnn-dt", "gru-decay", "ode-rnn" or "gp".
    series, time : str
        The names of the columns of series and of times.
    time_budget : float or None
        Seconds of training; 60 if `steps` is None. Of both, whichever ends first.
    steps : int or None
        Optimiser steps; results repeat exactly only with a budget in steps.
    validation_fraction : float
        Share of the series held out to choose the weights.
    options : mapping or None
        Further options by dotted name, such as {"model.latent": 4} or {"evaluation.draws": 1000}.
    random_state : int, RandomState or None
        Seed of the held-out series, the weights and the batches.

    Attributes
    ----------
    model_ : flowbench.models.series.encoded.EncodedSeriesModel
        The fitted model with its encoder.
    config_ : flowbench.workflows.series_config.SeriesConfig
        The resolved configuration.
    columns_ : tuple of str
        The names of the columns of values.
    notes_ : tuple of str
        What reading the data guessed, merged or left out.
    time_type_ : flowbench.data.column_type.ColumnType
        The type of the times. Dates are days or seconds since 1970-01-01 in what `predict` returns.
    """

    def __init__(
        self,
        model: str = "latent-ode",
        *,
        series: str = "id",
        time: str = "t",
        time_budget: float | None = None,
        steps: int | None = None,
        validation_fraction: float = 0.1,
        options: Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.model = model
        self.series = series
        self.time = time
        self.time_budget = time_budget
        self.steps = steps
        self.validation_fraction = validation_fraction
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> Self:
        """Learn the density of the series in the long frame `X`; `y` is ignored.

        Raises `ValueError` for data or options that cannot work, and `RunFailedError` if training diverges.
        """
        if not 0 < self.validation_fraction < 1:
            raise ConfigurationError(
                f"`validation_fraction` must lie between 0 and 1; got {self.validation_fraction}"
            )
        random = check_random_state(self.random_state)
        config = self._configure(int(random.randint(2**31 - 1)))
        dataset = self._read(X, None)
        if len(dataset) < 2:
            raise DataError("one series is too few: some are learnt from, and some choose the weights")
        order = random.permutation(len(dataset))
        held_out = min(max(1, round(self.validation_fraction * len(dataset))), len(dataset) - 1)
        train, validation = (
            [dataset.series(i) for i in part] for part in (order[held_out:], order[:held_out])
        )
        model = build_model(config, dataset.column_names)
        model.encoder.fit(
            torch.from_numpy(np.concatenate([each.times for each in train])),
            torch.from_numpy(np.concatenate([each.values for each in train])),
        )
        make_trainer(config, model, train, validation, Watch()).run()
        # Together and at the end: a fit that fails must leave an earlier one as it was.
        self.config_ = config
        self.model_ = model.cpu()
        self.columns_ = dataset.column_names
        self.notes_ = dataset.notes
        self.time_type_ = dataset.time_type
        return self

    def score_series(self, X: Any) -> SeriesLikelihoods:
        """The log-likelihood of each series given its times, nats, in the units of `X`, with its errors.

        If it is not known exactly, it is a lower bound with a standard error.
        """
        dataset = self._known(X)
        return score_series(
            self.model_,
            [dataset.series(i) for i in range(len(dataset))],
            self.config_.evaluation,
            seed=self.config_.seed,
            errors=len(dataset),
        )

    def score_samples(self, X: Any) -> Floats:
        """The log-likelihood of each series, or a lower bound of it: `(n,)`, nats."""
        return self.score_series(X).log_prob

    def score(self, X: Any, y: None = None) -> float:
        """The mean log-likelihood of the series, nats a series; higher is better."""
        return float(self.score_samples(X).mean())

    def predict(
        self, X: Any, times: ArrayLike | Sequence[ArrayLike], *, random_state: RandomState = 0
    ) -> list[SeriesForecast]:
        """For each series of `X` its mean, bands and draws at increasing `times`, in the units of `X`.

        `times` are the same `(k,)` for all series, or a sequence with those of each.
        """
        dataset = self._known(X)
        seen = [dataset.series(i) for i in range(len(dataset))]
        own: Any = times if isinstance(times, list | tuple) else np.asarray(times)
        is_shared = np.ndim(own) == 0 or len(own) == 0 or np.ndim(own[0]) == 0
        asked = [self._times(each) for each in ([own] * len(seen) if is_shared else own)]
        if len(asked) != len(seen):
            raise ConfigurationError(
                f"`times` must be those of all series, or one array for each of {len(seen)}; got {len(asked)}"
            )
        return predict_series(self.model_, seen, asked, self.config_.evaluation, seed=_seed(random_state))

    def sample(self, n_samples: int, times: ArrayLike, random_state: RandomState = None) -> Floats:
        """Draw `(n_samples, k, d)` values at increasing `times: (k,)`, with noise, in the units of `fit`."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ConfigurationError(f"`n_samples` must be at least 1; got {n_samples}")
        at = self._times(times)
        return sample_series(self.model_, n_samples, at, self.config_.evaluation, seed=_seed(random_state))

    def _configure(self, seed: int) -> SeriesConfig:
        for name in self.options or {}:
            if name.partition(".")[0] not in PARTS:
                raise ConfigurationError(f"`options` takes those of {', '.join(PARTS)}; got `{name}`")
        own = {"plan.seconds": self.time_budget, "plan.steps": self.steps, "seed": seed}
        told = {name: value for name, value in own.items() if value is not None}
        places = {"data.series": self.series, "data.time": self.time}
        overrides = {**(self.options or {}), **places, **told}
        return resolve_series("frame", self.model, overrides=overrides)

    def _known(self, X: Any) -> SeriesDataset:
        check_is_fitted(self)
        dataset = self._read(X, self.columns_)
        check_times(dataset, self.time_type_)
        ids = [str(each) for each in dict.fromkeys(to_arrow(X)[self.series].to_pylist())]
        if len(ids) > len(dataset):
            raise DataError(
                f"{len(ids) - len(dataset)} of {len(ids)} series have no value at all, so they have no place "
                "in the answer; leave their rows out"
            )
        return dataset

    def _times(self, times: Any) -> Floats:
        """Increasing times `(k,)` as numbers in the unit of the fit; dates are converted."""
        values = np.asarray(times)
        if values.dtype.kind in "OM":
            unit = self.time_type_.unit
            if unit is None:
                raise ConfigurationError("`times` are dates, and those of the fit were numbers")
            moments = values.astype("datetime64[us]")
            values = np.array([seconds_of(each, unit) for each in moments.reshape(-1)])
        try:
            found: Floats = values.astype(np.float64)
        except (TypeError, ValueError):
            raise ConfigurationError("`times` must be numbers, or dates where the fit had dates") from None
        if found.ndim != 1 or not len(found) or not np.isfinite(found).all() or np.any(np.diff(found) <= 0):
            raise ConfigurationError("`times` must be finite and increase, one of them at least")
        return found

    def _read(self, X: Any, columns: Sequence[str] | None) -> SeriesDataset:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.parquet"
            write_frame(to_arrow(X), path)
            try:
                return read_series(
                    TableFile(path), SeriesColumns(self.series, self.time), columns, for_fit=columns is None
                )
            except DataError as error:
                raise DataError(str(error).replace(str(path), "the frame")) from None


def _seed(random_state: RandomState) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))
