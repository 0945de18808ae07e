"""The series that a model learns from and is judged by."""

import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.density import Scores
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.noise import BatchNoise
from flowbench.models.series.series_model import SeriesModel
from flowbench.training.criterion import Criterion

#: Draws of the bound that validations judge by, of a model whose likelihood is not known exactly.
VALIDATION_DRAWS = 16


class SeriesExamples:
    """Train series to learn from and `validation` series that choose among weights, in model space.

    There is no `reserve`: series are few. Raises `ConfigurationError` if a part is empty.
    """

    noun = "series"
    reserve: SeriesBatch | None = None

    def __init__(self, train: SeriesBatch, validation: SeriesBatch) -> None:
        for name, part in (("train", train), ("validation", validation)):
            if not len(part):
                raise ConfigurationError(f"there are no {name} series; a fit needs one at least")
        self.train = train
        self.validation = validation

    def draw(self, n: int, width: float, generator: torch.Generator) -> SeriesBatch:
        """`n` train series, drawn without replacement where there are as many; `width` has no effect."""
        total = len(self.train)
        if n >= total:
            return self.train
        chosen = torch.randperm(total, generator=generator, device=generator.device)[:n]
        return self.train[chosen.to(self.train.times.device)]


class SeriesCriterion(Criterion[SeriesModel, SeriesBatch]):
    """The NLL of held-out series, or its bound from `VALIDATION_DRAWS` draws, nats, data units.

    `log_det`, nats, is the mean over the validation series of log|dz/dx|, summed over their cells.
    """

    def __init__(self, log_det: float = 0.0) -> None:
        self._log_det = log_det

    def score(self, model: SeriesModel, examples: SeriesBatch, generator: torch.Generator) -> Scores:
        """The log-likelihood of each series, or its bound."""
        noise = BatchNoise(len(examples), generator, model.like)
        found = model.score(examples, noise, VALIDATION_DRAWS)
        return Scores(found.log_prob, found.nfe)

    def nll(self, examples: SeriesBatch, log_prob: Tensor) -> Tensor:
        """The negative of the log-likelihoods, in data units: `(n,)`."""
        return -log_prob.cpu() - self._log_det
