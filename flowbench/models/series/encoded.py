"""A model of series together with its encoder: what is stored, and answers in data units."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.data.series_dataset import TimeSeries
from flowbench.encoding.series_encoder import SeriesEncoder
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.series_model import SeriesModel


class EncodedSeriesModel(nn.Module):
    """A `model` of series in model space behind the `encoder` of their table."""

    def __init__(self, encoder: SeriesEncoder, model: SeriesModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.model = model

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of values, in order."""
        return self.encoder.columns

    def encode(self, series: Sequence[TimeSeries]) -> tuple[SeriesBatch, Tensor]:
        """n series, data units, as a float64 batch, and log|dz/dx| summed over the cells of each: `(n,)`."""
        lengths = [len(each) for each in series]
        values = torch.from_numpy(np.concatenate([each.values for each in series]))
        times = torch.from_numpy(np.concatenate([each.times for each in series]))
        times = self.encoder.times_to_model(times)
        z, slope = self.encoder.to_model(values)
        parts = zip(torch.split(times, lengths), torch.split(z, lengths), strict=True)
        log_det = torch.stack([part.sum() for part in torch.split(slope, lengths)])
        return SeriesBatch.of(list(parts)), log_det

    def for_evaluation(self, integrator: options.PartOptions) -> Self:
        """A copy in float64 whose latent paths are solved with the options of `integrator`."""
        return type(self)(self.encoder, self.model.for_evaluation(integrator))
