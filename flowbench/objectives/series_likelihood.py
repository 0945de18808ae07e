"""Maximum likelihood of series, for models that know it exactly."""

from typing import ClassVar, Literal

import torch

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.noise import BatchNoise
from flowbench.models.series.series_model import SeriesModel
from flowbench.models.trainable import Trainable
from flowbench.objectives.objective import LossTerms, Objective


class SeriesLikelihoodOptions(options.PartOptions):
    """No options."""

    name: Literal["series-likelihood"] = "series-likelihood"


class SeriesLikelihood(Objective[SeriesModel, SeriesBatch]):
    """The negative log-likelihood of the series of a batch, nats for each observed cell, in model space."""

    Options: ClassVar[type[options.PartOptions]] = SeriesLikelihoodOptions
    trains: ClassVar[type[Trainable]] = SeriesModel

    def check(self, model: SeriesModel) -> None:
        """Raise `ConfigurationError` for a model whose likelihood is known by bounds only."""
        super().check(model)
        if not model.is_exact:
            raise ConfigurationError(
                f"objective `series-likelihood` needs an exact likelihood; train `{model.options.name}` with "
                "`evidence-bound`"
            )

    def __call__(
        self, model: SeriesModel, batch: SeriesBatch, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss on n series; no draws are made."""
        scores = model.score(batch, BatchNoise(len(batch), generator, model.like))
        return LossTerms(-scores.log_prob.sum() / batch.cells.sum())
