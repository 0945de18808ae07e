"""Recognition networks: from the observations of a series to a normal posterior of its initial state."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from flowbench.models.seeded_layers import seeded_linear
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.evolution import Evolution
from flowbench.models.series.gated_recurrence import gated_states
from flowbench.models.series.networks import seeded_gru

#: Standard deviations of the posterior lie between these.
LEAST_SCALE, MOST_SCALE = 1e-3, 1e2


class Recognition(nn.Module, ABC):
    """Reads a series from its end to its start, and gives the mean and scale of the state at time 0.

    The last layer also sees the time of the first observation.
    """

    def __init__(self, units: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.latent = latent
        self.head = seeded_linear(units + 1, 2 * latent, generator)

    @abstractmethod
    def _read(self, batch: SeriesBatch) -> Tensor:
        """What the network knows at the first observation: `(n, units)`."""

    def forward(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation of the posterior, `(n, latent)` each."""
        known = torch.cat([self._read(batch), batch.times[:, :1]], 1)
        mean, log_scale = self.head(known).chunk(2, 1)
        return mean, log_scale.exp().clamp(LEAST_SCALE, MOST_SCALE)


def backwards(batch: SeriesBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The observations from the last to the first: values and masks `(n, L, 2 d)`, gaps, places `(n, L)`.

    Gaps are the model times to the observation that was read before, 0 for the first that is read. Places
    beyond the end of a series come last, and their gaps are 0.
    """
    longest = batch.times.shape[1]
    order = (batch.lengths[:, None] - 1 - torch.arange(longest, device=batch.times.device)).clamp(min=0)
    inputs = torch.cat([batch.values, batch.observed.to(batch.values)], 2)
    inputs = inputs.gather(1, order[..., None].expand(-1, -1, inputs.shape[2]))
    times = batch.times.gather(1, order)
    gaps = torch.cat([torch.zeros_like(times[:, :1]), times[:, :-1] - times[:, 1:]], 1)
    return inputs, gaps, batch.present


class RecurrentRecognition(Recognition):
    """A gated recurrent network whose input has the gaps between observations (Chen et al. 2018)."""

    def __init__(self, features: int, units: int, latent: int, generator: torch.Generator) -> None:
        super().__init__(units, latent, generator)
        self.gru = seeded_gru(2 * features + 1, units, generator)

    def _read(self, batch: SeriesBatch) -> Tensor:
        inputs, gaps, _ = backwards(batch)
        inputs = torch.cat([inputs, gaps[..., None]], 2)
        first = inputs.new_zeros(len(batch), self.gru.hidden_size)
        return gated_states(self.gru, inputs, first, batch.lengths - 1)


class OdeRecurrentRecognition(Recognition):
    """An ODE-RNN: the state follows an ODE between observations (Rubanova, Chen and Duvenaud 2019)."""

    def __init__(
        self, features: int, units: int, latent: int, evolution: Evolution, generator: torch.Generator
    ) -> None:
        super().__init__(units, latent, generator)
        self.evolution = evolution
        self.gru = seeded_gru(2 * features, units, generator)

    def _read(self, batch: SeriesBatch) -> Tensor:
        inputs, gaps, present = backwards(batch)
        state = inputs.new_zeros(len(batch), self.gru.hidden_size)
        for place in range(inputs.shape[1]):
            if place:
                state = self.evolution(state, gaps[:, place])
            after = self.gru(inputs[:, place : place + 1], state[None])[0].squeeze(1)
            state = torch.where(present[:, place, None], after, state)
        return state
