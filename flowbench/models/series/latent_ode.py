"""Latent ODEs: series as noisy views of a path that an initial state determines."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import elu_

from flowbench import options
from flowbench.models.series.batch import SeriesBatch, union_of_times
from flowbench.models.series.evolution import Evolution
from flowbench.models.series.networks import Perceptron
from flowbench.models.series.noise import Noise
from flowbench.models.series.prediction import Prediction
from flowbench.models.series.recognition import OdeRecurrentRecognition, Recognition, RecurrentRecognition
from flowbench.models.series.series_model import LEAST_NOISE, SeriesModel, SeriesScores
from flowbench.options import part_of
from flowbench.registry import INTEGRATORS


class LatentOdeOptions(options.PartOptions):
    """Sizes of the networks, how series are recognised, and the solvers of training.

    `latent` is the dimension of the state. Dynamics have `layers` hidden layers of `width` units, and the
    decoder has one. `recognition` "rnn" is a gated recurrent network with gaps as inputs. "ode-rnn" follows
    an ODE in between, with `recognition_width` units in its dynamics. Both have `units`. `integrator` solves
    the dynamics, and `recognition_integrator` those of the recognition.
    """

    name: Literal["latent-ode"] = "latent-ode"
    latent: int = Field(default=8, ge=1)
    width: int = Field(default=32, ge=1)
    layers: int = Field(default=2, ge=1)
    units: int = Field(default=32, ge=1)
    recognition: Literal["rnn", "ode-rnn"] = "rnn"
    recognition_width: int = Field(default=32, ge=1)
    integrator: part_of(INTEGRATORS, "native") = {  # type: ignore[valid-type]
        "name": "native",
        "atol": 1e-3,
        "rtol": 1e-3,
    }
    recognition_integrator: part_of(INTEGRATORS, "native") = {  # type: ignore[valid-type]
        "name": "native",
        "method": "midpoint",
        "steps": 1,
    }


@dataclass(frozen=True)
class Evidence:
    """The terms of a bound on the log-likelihoods of n series, from k draws of each state, nats.

    `log_prob: (k, n)` is log p(x | z), `log_ratio: (k, n)` is log p(z) - log q(z | x), and `divergence: (n,)`
    is KL(q(z | x) || p(z)).
    """

    log_prob: Tensor
    log_ratio: Tensor
    divergence: Tensor

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x): `(k, n)`; the bound of a single draw."""
        return self.log_prob + self.log_ratio


class LatentOde(SeriesModel):
    """z_0 ~ N(0, I), dz/dt = f(z), x(t) ~ N(g(z(t)), s^2) (Chen et al. 2018, section 5).

    The posterior of z_0 given a series is a normal distribution from a recognition network. The likelihood is
    known by bounds: the evidence bound, and the tighter importance-weighted bound (Burda et al. 2016). All
    series of a batch share a solve, over the union of their times. Columns are independent given z(t), with
    noise s of their own.
    """

    Options: ClassVar[type[options.PartOptions]] = LatentOdeOptions
    is_exact: ClassVar[bool] = False
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "objective": "evidence-bound",
            "optimizer": "soap",
            "batch_size": 64,
            "learning_rate": 2e-2,
            "decline": 0.5,
        },
    )

    def __init__(self, features: int, options: LatentOdeOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        latent, units = options.latent, options.units
        self.latent = latent
        self.dynamics = Evolution(
            latent, options.width, options.layers, options.integrator, generator, activation=elu_
        )
        self.decoder = Perceptron(latent, options.width, features, generator, activation=elu_)
        self.recognition: Recognition = RecurrentRecognition(features, units, latent, generator)
        if options.recognition == "ode-rnn":
            evolution = Evolution(
                units, options.recognition_width, 1, options.recognition_integrator, generator
            )
            self.recognition = OdeRecurrentRecognition(features, units, latent, evolution, generator)
        self.log_noise = nn.Parameter(torch.full((features,), math.log(0.5)))

    @property
    def noise_scale(self) -> Tensor:
        """The standard deviation of the noise of each column: `(d,)`, model space."""
        return (self.log_noise.exp().square() + LEAST_NOISE**2).sqrt()

    def evidence(
        self, batch: SeriesBatch, noise: Noise, draws: int = 1, seen: SeriesBatch | None = None
    ) -> Evidence:
        """The terms of the bound, from `draws` draws of the state of each series.

        The posterior is that given what was `seen` of the series, by default all of them.
        """
        mean, scale = self.recognition(batch if seen is None else seen)
        epsilon = noise.normal(draws, self.latent).transpose(0, 1)
        z = mean + scale * epsilon
        decoded = self._decode(z, batch.times, batch.present)
        # The sums over time come first: what follows is then done for few numbers.
        squares = torch.where(batch.observed, (batch.values - decoded).square(), 0.0).sum(2)
        log_norm = batch.observed.sum(1) * (self.noise_scale.log() + 0.5 * math.log(2 * math.pi))
        log_prob = -(0.5 * squares / self.noise_scale.square() + log_norm).sum(2)
        log_ratio = (-0.5 * z.square() + 0.5 * epsilon.square() + scale.log()).sum(2)
        divergence = (0.5 * (mean.square() + scale.square() - 1) - scale.log()).sum(1)
        return Evidence(log_prob, log_ratio, divergence)

    def for_evaluation(self, integrator: options.PartOptions, dtype: torch.dtype = torch.float64) -> Self:
        """A copy in `dtype` whose dynamics are solved with the options of `integrator`.

        The recognition keeps the fixed steps that it was trained with: any posterior gives a bound.
        """
        model = super().for_evaluation(integrator, dtype)
        model.dynamics.integrator = integrator
        if isinstance(model.recognition, OdeRecurrentRecognition):
            model.recognition.evolution.settle(integrator)
        return model

    def _score(self, batch: SeriesBatch, noise: Noise, draws: int) -> SeriesScores:
        self.dynamics.nfe = 0
        log_weights = self.evidence(batch, noise, draws).log_weights
        looser = {}
        count = 1
        while count < draws:
            if draws % count == 0:
                groups = log_weights.view(draws // count, count, -1)
                looser[count] = (groups.logsumexp(1) - math.log(count)).mean(0)
            count *= 4
        bound = log_weights.logsumexp(0) - math.log(draws)
        if draws == 1:
            return SeriesScores(bound, None, nfe=self.dynamics.nfe)
        # The delta method, for the logarithm of a mean.
        ratios = (log_weights - bound).exp()
        error = ratios.std(0) / math.sqrt(draws)
        return SeriesScores(bound, error, looser, self.dynamics.nfe)

    def _predict(self, seen: SeriesBatch, times: Tensor, noise: Noise, draws: int) -> Prediction:
        mean, scale = self.recognition(seen)
        z = mean + scale * noise.normal(draws, self.latent).transpose(0, 1)
        means = self._decode(z, times, torch.ones_like(times, dtype=torch.bool))
        weights = means.new_full((draws, len(times)), -math.log(draws))
        return Prediction(means, self.noise_scale.expand_as(means), weights)

    def _sample(self, times: Tensor, noise: Noise) -> Tensor:
        z = noise.normal(self.latent)[None]
        means = self._decode(z, times, torch.ones_like(times, dtype=torch.bool))[0]
        return means + self.noise_scale * noise.normal(*means.shape[1:])

    def paths(self, z: Tensor, times: Tensor) -> Tensor:
        """The states `(k, n, latent)` at increasing `times: (k,)` that follow from `z: (n, latent)`."""
        return self.dynamics.along(z, times)

    def _decode(self, z: Tensor, times: Tensor, present: Tensor) -> Tensor:
        """The means `(k, n, L, d)` of cells at `times: (n, L)` given states `z: (k, n, latent)` at time 0."""
        draws, n, latent = z.shape
        union, places = union_of_times(times, present)
        states = self.paths(z.flatten(0, 1), union).view(len(union), draws, n, latent)
        if places is not None:
            # Only the states at each series' own times are decoded.
            index = places.t()[:, None, :, None].expand(-1, draws, -1, latent)
            states = states.gather(0, index)
        decoded: Tensor = self.decoder(states)
        return decoded.permute(1, 2, 0, 3).contiguous()
