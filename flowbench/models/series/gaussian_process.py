"""Gaussian processes: every column by itself, with an exact likelihood."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.errors import ConfigurationError, RunFailedError
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.noise import Noise
from flowbench.models.series.prediction import Prediction
from flowbench.models.series.series_model import LEAST_NOISE, SeriesModel, SeriesScores

#: Added to the diagonal of a covariance that is drawn from, relative to its variance.
JITTER = 1e-6
#: The most times of a series that are predicted or drawn together.
MOST_TIMES = 4000


class GaussianProcessOptions(options.PartOptions):
    """The `kernel` of the part that changes with time: Matern 1/2, 3/2 or 5/2, or squared exponential."""

    name: Literal["gp"] = "gp"
    kernel: Literal["matern12", "matern32", "matern52", "rbf"] = "matern32"


class GaussianProcess(SeriesModel):
    """x(t) = a + b t + c + f(t) + noise, for each column (Rasmussen and Williams 2006).

    The trend a + b t is that of all series. c is a normal offset of each series, and f a Gaussian process.
    All series share the hyperparameters, which maximise the likelihood of the train series. Columns are
    independent. The cost grows with the cube of the number of observations of a series. Covariances are
    factored in float64, whatever the dtype of the model: smooth series of a few hundred observations have
    none that is positive definite in float32.
    """

    Options: ClassVar[type[options.PartOptions]] = GaussianProcessOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = (
        {"objective": "series-likelihood", "batch_size": 128, "learning_rate": 5e-2, "decline": 0.5},
    )

    def __init__(self, features: int, options: GaussianProcessOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        self.kernel = options.kernel
        self.log_length = nn.Parameter(torch.full((features,), math.log(0.3)))
        self.log_scale = nn.Parameter(torch.full((features,), math.log(0.7)))
        self.log_offset = nn.Parameter(torch.full((features,), math.log(0.5)))
        self.log_noise = nn.Parameter(torch.full((features,), math.log(0.3)))
        self.trend = nn.Parameter(torch.zeros(features, 2))

    def _mean(self, times: Tensor) -> Tensor:
        """The trend `(n, d, k)` at `times: (n, k)`."""
        trend = self.trend.double()
        return trend[:, 0, None] + trend[:, 1, None] * times[:, None]

    def _covariance(self, s: Tensor, t: Tensor) -> Tensor:
        """The covariance `(n, d, k, l)` of the values without noise at `s: (n, k)` and `t: (n, l)`."""
        length, scale, offset = (
            each.double().exp()[:, None, None] for each in (self.log_length, self.log_scale, self.log_offset)
        )
        distance = (s.double()[:, :, None] - t.double()[:, None, :]).abs()[:, None] / length
        if self.kernel == "rbf":
            shape = torch.exp(-0.5 * distance.square())
        elif self.kernel == "matern12":
            shape = torch.exp(-distance)
        elif self.kernel == "matern32":
            scaled = math.sqrt(3) * distance
            shape = (1 + scaled) * torch.exp(-scaled)
        else:
            scaled = math.sqrt(5) * distance
            shape = (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)
        return scale.square() * shape + offset.square()

    @property
    def _noise_variance(self) -> Tensor:
        return self.log_noise.double().exp().square() + LEAST_NOISE**2

    def _factor(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """The Cholesky factor `(n, d, L, L)` of what was observed, and what is left of it, `(n, d, L)`.

        A cell that was not observed has variance 1, is correlated with no other, and has the value 0.
        """
        observed = batch.observed.transpose(1, 2)
        both = observed[..., :, None] & observed[..., None, :]
        covariance = torch.where(both, self._covariance(batch.times, batch.times), 0.0)
        own = torch.where(observed, self._noise_variance[:, None], 1.0)
        factor, failed = torch.linalg.cholesky_ex(covariance + torch.diag_embed(own))
        if bool(failed.any()):
            raise RunFailedError(
                "the covariance of a series is not positive definite in float64; lower the learning rate"
            )
        residual = torch.where(observed, batch.values.transpose(1, 2) - self._mean(batch.times), 0.0)
        return factor, residual

    def _score(self, batch: SeriesBatch, noise: Noise, draws: int) -> SeriesScores:
        factor, residual = self._factor(batch)
        white = torch.linalg.solve_triangular(factor, residual[..., None], upper=False).squeeze(3)
        log_det = factor.diagonal(dim1=2, dim2=3).log().sum((1, 2))
        constant = 0.5 * math.log(2 * math.pi) * batch.cells.to(white)
        return SeriesScores(-0.5 * white.square().sum((1, 2)) - log_det - constant)

    def _predict(self, seen: SeriesBatch, times: Tensor, noise: Noise, draws: int) -> Prediction:
        _check_number(times)
        factor, residual = self._factor(seen)
        observed = seen.observed.transpose(1, 2)[..., None]
        cross = torch.where(observed, self._covariance(seen.times, times), 0.0)
        white = torch.linalg.solve_triangular(factor, torch.cat([residual[..., None], cross], 3), upper=False)
        mean = self._mean(times) + (white[..., :1] * white[..., 1:]).sum(2)
        prior = (2 * self.log_scale.double()).exp() + (2 * self.log_offset.double()).exp()
        variance = (prior[:, None] - white[..., 1:].square().sum(2)).clamp(min=0)
        variance = variance + self._noise_variance[:, None]
        epsilon = noise.normal(draws, self.features, times.shape[1]).double()
        joint = []
        # One series at a time: the covariances of all of them would fill the memory.
        for own, known, centre, drawn in zip(times, white[..., 1:], mean, epsilon, strict=True):
            left = self._covariance(own[None], own[None])[0] - known.transpose(1, 2) @ known
            joint.append(centre + (self._root(left) @ drawn[..., None]).squeeze(3))
        parts = (mean.transpose(1, 2)[None], variance.sqrt().transpose(1, 2)[None])
        together = torch.stack(joint, 1).transpose(2, 3)
        return Prediction(*parts, mean.new_zeros(1, len(times)), together)

    def _sample(self, times: Tensor, noise: Noise) -> Tensor:
        _check_number(times)
        drawn = noise.normal(self.features, times.shape[1]).double()
        # Series at the same times share a factor.
        are_alike = bool((times == times[0]).all())
        roots = [
            self._root(self._covariance(own, own)[0]) for own in (times[:1] if are_alike else times)[:, None]
        ]
        together = [
            (root @ each[..., None]).squeeze(2)
            for root, each in zip(roots * (len(times) if are_alike else 1), drawn, strict=True)
        ]
        values: Tensor = self._mean(times) + torch.stack(together)
        found: Tensor = values.transpose(1, 2).to(times)
        return found

    def _root(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor of a covariance `(d, k, k)` with the noise of the observations."""
        own = self._noise_variance + JITTER * (2 * self.log_scale.double()).exp()
        noise = torch.diag_embed(own[:, None].expand(-1, covariance.shape[1]))
        root: Tensor = torch.linalg.cholesky(covariance + noise)
        return root


def _check_number(times: Tensor) -> None:
    """Raise `ConfigurationError` for so many times that their covariance does not fit into memory."""
    if times.shape[1] > MOST_TIMES:
        raise ConfigurationError(
            f"a Gaussian process takes {MOST_TIMES:,} times of a series at once; got {times.shape[1]:,}; ask "
            "for fewer"
        )
