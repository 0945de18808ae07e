"""Recurrent models: the likelihood of a series by predictions of each observation from those before."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from flowbench import options
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.evolution import Evolution
from flowbench.models.series.gated_recurrence import gated_states
from flowbench.models.series.networks import Perceptron, seeded_gru
from flowbench.models.series.noise import Noise
from flowbench.models.series.prediction import Prediction, normal_log_prob
from flowbench.models.series.series_model import LEAST_NOISE, SeriesModel, SeriesScores
from flowbench.options import part_of
from flowbench.registry import INTEGRATORS

#: What a recurrent model knows, one row for each series, and at which time it learnt it, `(n,)`.
State = tuple[Tensor, ...]


class RecurrentOptions(options.PartOptions):
    """Recurrent `units`, and the `width` of the hidden layer that predicts from them."""

    units: int = Field(default=64, ge=1)
    width: int = Field(default=64, ge=1)


class RecurrentModel(SeriesModel):
    """p(x_1, ..., x_m | t) = prod_i p(x_i | x_1, ..., x_{i-1}, t): an exact likelihood.

    Each factor is a normal distribution of every cell, with mean and scale from what a gated recurrent
    network knows. Cells at one time are independent given the past. Predictions use the past alone: at a time
    between observations, those after it have no part.

    Predictions and draws are fed back, but no closer together than the train series are typically observed: a
    network has seen no others. In between, each value is drawn by itself from what is known.

    Subclasses define `_begin`, `_known_at` and `_learn`.
    """

    looks_ahead: ClassVar[bool] = False
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "objective": "series-likelihood",
            "optimizer": "soap",
            "batch_size": 64,
            "learning_rate": 1e-2,
            "decline": 0.5,
        },
    )
    #: How many inputs the network gets beside values and mask, and the predictor beside the units.
    more_inputs: ClassVar[int] = 0
    more_known: ClassVar[int] = 0
    typical_gap: Tensor

    def __init__(self, features: int, options: RecurrentOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        self.units = options.units
        self.gru = seeded_gru(2 * features + self.more_inputs, options.units, generator)
        self.predictor = Perceptron(options.units + self.more_known, options.width, 2 * features, generator)
        self.first = nn.Parameter(torch.zeros(options.units))
        #: The median time between two observations of the train series.
        self.register_buffer("typical_gap", torch.zeros(()))

    def initialise(self, train: SeriesBatch) -> None:
        """Take the typical gap of the train series."""
        gaps = torch.diff(train.times, dim=1)[train.present[:, 1:]]
        if len(gaps):
            self.typical_gap.copy_(gaps.median())

    def _is_due(self, state: State, times: Tensor) -> Tensor:
        """Whether a draw at `times: (n,)` is fed back: `(n,)`."""
        is_first = (state[0] == self.first).all(1)
        return (times - state[1] >= 0.99 * self.typical_gap) | is_first

    def _begin(self, n: int) -> State:
        """What is known of `n` series before their first observation, at time 0."""
        return self.first.expand(n, -1), self.first.new_zeros(n)

    @abstractmethod
    def _known_at(self, state: State, times: Tensor) -> Tensor:
        """What the predictor gets for an observation at `times: (n,)`."""

    @abstractmethod
    def _learn(self, state: State, times: Tensor, values: Tensor, observed: Tensor) -> State:
        """The state after observations at `times: (n,)` of `values: (n, d)`, where `observed: (n, d)`."""

    def _distribution(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale `(..., d)` of the cells that are predicted from what is `known: (..., u)`."""
        mean, raw = self.predictor(known).chunk(2, -1)
        return mean, softplus(raw) + LEAST_NOISE

    def _score(self, batch: SeriesBatch, noise: Noise, draws: int) -> SeriesScores:
        known = self._all_known(batch)
        terms = normal_log_prob(batch.values, *self._distribution(known))
        return SeriesScores(torch.where(batch.observed, terms, 0.0).sum((1, 2)))

    def _all_known(self, batch: SeriesBatch) -> Tensor:
        """What the predictor gets for each observation: `(n, L, u)`."""
        state, known = self._begin(len(batch)), []
        for place in range(batch.times.shape[1]):
            times = batch.times[:, place]
            known.append(self._known_at(state, times))
            state = self._learn(state, times, batch.values[:, place], batch.observed[:, place])
        return torch.stack(known, 1)

    def _predict(self, seen: SeriesBatch, times: Tensor, noise: Noise, draws: int) -> Prediction:
        n, k = times.shape
        # Seen and asked places in the order of their times; of equal ones, those that were seen come last,
        # since a prediction must not know what it predicts.
        every = torch.cat([times, seen.times], 1)
        is_asked = torch.cat([torch.ones_like(times, dtype=torch.bool), ~seen.present], 1)
        is_there = torch.cat([torch.ones_like(times, dtype=torch.bool), seen.present], 1)
        order = torch.argsort(torch.where(is_there, every, torch.inf), dim=1, stable=True)
        values = torch.cat([seen.values.new_zeros(n, k, self.features), seen.values], 1)
        observed = torch.cat([torch.zeros_like(values[:, :k], dtype=torch.bool), seen.observed], 1)
        epsilon = noise.normal(draws, k, self.features)
        rows = torch.arange(n, device=times.device)
        known = self._begin(n * draws)
        branch = known
        means = values.new_zeros(n, k, draws, self.features)
        scales, joint = torch.ones_like(means), torch.zeros_like(means)
        for place in order.T:
            at = every[rows, place].repeat_interleave(draws)
            asked = is_asked[rows, place] & is_there[rows, place]
            got = ~is_asked[rows, place]
            if not bool((asked | got).any()):
                break
            mean, scale = (part.view(n, draws, -1) for part in self._distribution(self._known_at(branch, at)))
            number = place.clamp(max=k - 1)
            drawn = mean + scale * epsilon[rows, :, number]
            means[rows[asked], number[asked]] = mean[asked]
            scales[rows[asked], number[asked]] = scale[asked]
            joint[rows[asked], number[asked]] = drawn[asked]
            told = torch.where(got[:, None, None], values[rows, place][:, None], drawn).flatten(0, 1)
            cells = torch.where(got[:, None], observed[rows, place], True).repeat_interleave(draws, 0)
            after = self._learn(branch, at, told, cells)
            # What was seen is learnt from what was seen before, not from draws in between.
            learnt = self._learn(known, at, told, cells)
            known = _where(got.repeat_interleave(draws), learnt, known)
            fed_back = asked.repeat_interleave(draws) & self._is_due(branch, at)
            branch = _where(fed_back, after, branch)
            branch = _where(got.repeat_interleave(draws), known, branch)
        weights = values.new_full((draws, n), -math.log(draws))
        parts = (each.permute(2, 0, 1, 3) for each in (means, scales, joint))
        mean, scale, drawn = parts
        return Prediction(mean, scale, weights, drawn)

    def _sample(self, times: Tensor, noise: Noise) -> Tensor:
        n, k = times.shape
        epsilon, state, drawn = noise.normal(k, self.features), self._begin(n), []
        for place in range(k):
            mean, scale = self._distribution(self._known_at(state, times[:, place]))
            drawn.append(mean + scale * epsilon[:, place])
            every = torch.ones_like(drawn[-1], dtype=torch.bool)
            after = self._learn(state, times[:, place], drawn[-1], every)
            state = _where(self._is_due(state, times[:, place]), after, state)
        return torch.stack(drawn, 1)

    def _read(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """The state `(n, units)` of the network after one more input."""
        after: Tensor = self.gru(torch.cat(inputs, 1)[:, None], state[None].contiguous())[0]
        return after.squeeze(1)


def _where(chosen: Tensor, one: State, other: State) -> State:
    return tuple(
        torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(one, other, strict=True)
    )


class RnnOptions(RecurrentOptions):
    """See `RecurrentOptions`."""

    name: Literal["rnn"] = "rnn"


class Rnn(RecurrentModel):
    """A gated recurrent network that sees the order of observations, not their times."""

    Options: ClassVar[type[options.PartOptions]] = RnnOptions

    def _known_at(self, state: State, times: Tensor) -> Tensor:
        return state[0]

    def _learn(self, state: State, times: Tensor, values: Tensor, observed: Tensor) -> State:
        return self._read(state[0], values, observed.to(values)), times

    def _all_known(self, batch: SeriesBatch) -> Tensor:
        inputs = torch.cat([batch.values, batch.observed.to(batch.values)], 2)
        return self._run(inputs)

    def _run(self, inputs: Tensor) -> Tensor:
        """The states `(n, L, units)` before each of the inputs `(n, L, i)`, in one call."""
        first = self._begin(len(inputs))[0]
        if inputs.shape[1] == 1:
            return first[:, None]
        states = gated_states(self.gru, inputs[:, :-1], first)
        return torch.cat([first[:, None], states], 1)


class RnnWithGapsOptions(RecurrentOptions):
    """See `RecurrentOptions`."""

    name: Literal["rnn-dt"] = "rnn-dt"


class RnnWithGaps(Rnn):
    """A gated recurrent network whose inputs have the gap before an observation, and the gap to the next."""

    Options: ClassVar[type[options.PartOptions]] = RnnWithGapsOptions
    more_inputs: ClassVar[int] = 1
    more_known: ClassVar[int] = 1

    def _known_at(self, state: State, times: Tensor) -> Tensor:
        return torch.cat([state[0], (times - state[1])[:, None]], 1)

    def _learn(self, state: State, times: Tensor, values: Tensor, observed: Tensor) -> State:
        gap = (times - state[1])[:, None]
        return self._read(state[0], values, observed.to(values), gap), times

    def _all_known(self, batch: SeriesBatch) -> Tensor:
        gaps = torch.diff(batch.times, dim=1, prepend=torch.zeros_like(batch.times[:, :1]))[..., None]
        states = self._run(torch.cat([batch.values, batch.observed.to(batch.values), gaps], 2))
        return torch.cat([states, gaps], 2)


class GruDecayOptions(RecurrentOptions):
    """See `RecurrentOptions`."""

    name: Literal["gru-decay"] = "gru-decay"


class GruDecay(RecurrentModel):
    """GRU-D: states decay to their start, and missing values to the mean, with the gap (Che et al. 2018).

    The mean of each column is 0 in model space. What is known of a missing value is the last one that was
    observed, times exp(-r gap), with a rate r for each column.
    """

    Options: ClassVar[type[options.PartOptions]] = GruDecayOptions
    more_known: ClassVar[int] = 1

    def __init__(self, features: int, options: GruDecayOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        self.state_rate = nn.Parameter(torch.zeros(options.units))
        self.value_rate = nn.Parameter(torch.zeros(features))

    def _begin(self, n: int) -> State:
        state, time = super()._begin(n)
        # The last value of each column, and when it was observed.
        return state, time, state.new_zeros(n, self.features), state.new_zeros(n, self.features)

    def _decayed(self, state: State, times: Tensor) -> Tensor:
        gap = (times - state[1])[:, None].clamp(min=0)
        return self.first + (state[0] - self.first) * torch.exp(-softplus(self.state_rate) * gap)

    def _known_at(self, state: State, times: Tensor) -> Tensor:
        return torch.cat([self._decayed(state, times), (times - state[1])[:, None]], 1)

    def _learn(self, state: State, times: Tensor, values: Tensor, observed: Tensor) -> State:
        _, _, last, when = state
        age = (times[:, None] - when).clamp(min=0)
        expected = last * torch.exp(-softplus(self.value_rate) * age)
        filled = torch.where(observed, values, expected)
        after = self._read(self._decayed(state, times), filled, observed.to(values))
        when = torch.where(observed, times[:, None], when)
        return after, times, torch.where(observed, values, last), when


class OdeRnnOptions(RecurrentOptions):
    """The dynamics have a hidden layer of `dynamics` units, and `integrator` solves them."""

    name: Literal["ode-rnn"] = "ode-rnn"
    dynamics: int = Field(default=64, ge=1)
    integrator: part_of(INTEGRATORS, "native") = {  # type: ignore[valid-type]
        "name": "native",
        "method": "midpoint",
        "steps": 1,
    }


class OdeRnn(RecurrentModel):
    """ODE-RNN: the state follows dh/dt = f(h) between observations (Rubanova, Chen and Duvenaud 2019).

    The fixed steps of its solver belong to the model, like the layers of a network.
    """

    Options: ClassVar[type[options.PartOptions]] = OdeRnnOptions

    def __init__(self, features: int, options: OdeRnnOptions, generator: torch.Generator) -> None:
        super().__init__(features, options, generator)
        self.evolution = Evolution(options.units, options.dynamics, 1, options.integrator, generator)

    def for_evaluation(self, integrator: options.PartOptions, dtype: torch.dtype = torch.float64) -> Self:
        """A copy in `dtype`, whose states are carried by `integrator` unless the steps are fixed."""
        model = super().for_evaluation(integrator, dtype)
        model.evolution.settle(integrator)
        return model

    def _known_at(self, state: State, times: Tensor) -> Tensor:
        carried: Tensor = self.evolution(state[0], times - state[1])
        return carried

    def _learn(self, state: State, times: Tensor, values: Tensor, observed: Tensor) -> State:
        carried = self._known_at(state, times)
        return self._read(carried, values, observed.to(values)), times

    def _all_known(self, batch: SeriesBatch) -> Tensor:
        state, known = self._begin(len(batch)), []
        for place in range(batch.times.shape[1]):
            times = batch.times[:, place]
            carried = self._known_at(state, times)
            known.append(carried)
            seen = batch.observed[:, place].to(batch.values)
            state = self._read(carried, batch.values[:, place], seen), times
        return torch.stack(known, 1)
