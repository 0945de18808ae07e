"""The base classes of models of irregular time series."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.noise import Noise
from flowbench.models.series.prediction import Prediction
from flowbench.models.trainable import Trainable

#: The least standard deviation of observation noise, in units of a column's own: without a bound, a column
#: whose values repeat would have a likelihood without end.
LEAST_NOISE = 1e-2


@dataclass(frozen=True)
class SeriesScores:
    """The log-likelihood `log_prob: (n,)` of each series, nats, model space, given its times.

    For a model with latent variables it is a lower bound, estimated from draws with the `standard_error:
    (n,)`, nats; None for an exact likelihood. `looser` maps numbers of draws, fewer than were taken, to the
    bounds `(n,)` that as many give. `nfe` counts the evaluations of a solve; None without one.
    """

    log_prob: Tensor
    standard_error: Tensor | None = None
    looser: Mapping[int, Tensor] = field(default_factory=dict)
    nfe: int | None = None


class SeriesModel(Trainable):
    """A density of the values of a series given its times, in model space, which also predicts.

    Values may be missing at any time, cell by cell. Cells that are not observed have no part in a likelihood.
    Times of train series run from 0 to 1. Subclasses implement `_score`, `_predict` and `_sample`. Initial
    weights are drawn from `generator`, never from the global random state.
    """

    #: Whether `score` gives the log-likelihood itself, and not a bound.
    is_exact: ClassVar[bool] = True
    #: Whether predictions at a time use observations after it.
    looks_ahead: ClassVar[bool] = True

    def __init__(self, features: int, options: options.PartOptions, generator: torch.Generator) -> None:
        super().__init__(options)
        if features < 1:
            raise ConfigurationError(f"a model of series needs at least one column; got {features}")
        self.features = features

    def initialise(self, train: SeriesBatch) -> None:
        """Set initial parameters from train series; by default they stay as they are."""

    @abstractmethod
    def _score(self, batch: SeriesBatch, noise: Noise, draws: int) -> SeriesScores: ...

    @abstractmethod
    def _predict(self, seen: SeriesBatch, times: Tensor, noise: Noise, draws: int) -> Prediction: ...

    @abstractmethod
    def _sample(self, times: Tensor, noise: Noise) -> Tensor: ...

    def score(self, batch: SeriesBatch, noise: Noise, draws: int = 1) -> SeriesScores:
        """The log-likelihoods of n series, or bounds of these from `draws` draws each.

        Raises `ConfigurationError` for other columns, and `IntegrationError` if a solve fails.
        """
        self._check(batch)
        return self._score(batch, noise, draws)

    def predict(self, seen: SeriesBatch, times: Tensor, noise: Noise, draws: int = 100) -> Prediction:
        """What n series hold at increasing `times: (n, k)`, given what was `seen` of them.

        `draws` is the number of components where they are drawn. Raises as `score` does.
        """
        self._check(seen)
        if times.ndim != 2 or len(times) != len(seen):
            raise ConfigurationError(
                f"times must have a row for each of {len(seen)} series; got shape {tuple(times.shape)}"
            )
        return self._predict(seen, times, noise, draws)

    def sample(self, times: Tensor, noise: Noise) -> Tensor:
        """Draw one series for each row of increasing `times: (n, k)`, with noise: `(n, k, d)`."""
        return self._sample(times, noise)

    def for_evaluation(self, integrator: options.PartOptions, dtype: torch.dtype = torch.float64) -> Self:
        """A copy for likelihoods that are reported, in `dtype`; a solve uses the options of `integrator`."""
        return copy.deepcopy(self).to(dtype).eval().requires_grad_(False)

    def _check(self, batch: SeriesBatch) -> None:
        if batch.features != self.features:
            raise ConfigurationError(
                f"the model is of {self.features} columns, and the series have {batch.features}"
            )
