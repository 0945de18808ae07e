"""The encoder of series: times and columns of values to model space and back, with the log-determinant."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import DataError


class SeriesEncoder(nn.Module):
    """Maps times and values of series to model space, in which models are fitted, and back.

    Times are moved and scaled so that those of the train series run from 0 to 1. Each of the d columns has an
    encoder of its own, of one column. It is fitted to the cells of the train series that are not missing. All
    parameters are float64 buffers, and are saved with the model.
    """

    time_origin: Tensor
    time_scale: Tensor

    def __init__(self, encoders: Sequence[TableEncoder]) -> None:
        super().__init__()
        self.columns = tuple(name for encoder in encoders for name in encoder.columns)
        self.encoders = nn.ModuleList(encoders)
        self.register_buffer("time_origin", torch.zeros((), dtype=torch.float64))
        self.register_buffer("time_scale", torch.ones((), dtype=torch.float64))

    def fit(self, times: Tensor, values: Tensor) -> None:
        """Fit to all observations of train series: `times: (N,)` and `values: (N, d)`, NaN where missing.

        Raises `DataError` if a column has no spread, or if all times are one.
        """
        span = times.max() - times.min()
        if not span > 0:
            raise DataError(f"every observation of the train series is at one time, {float(times[0]):g}")
        self.time_origin.copy_(times.min())
        self.time_scale.copy_(span)
        for encoder, cells in zip(self._each(), values.T, strict=True):
            held = cells[~cells.isnan()]
            if not len(held):
                raise DataError(
                    f"column `{encoder.columns[0]}` has no value in the train series; leave it out"
                )
            encoder.fit(held[:, None])

    def times_to_model(self, times: Tensor) -> Tensor:
        """Times in model space, of any shape."""
        return (times - self.time_origin) / self.time_scale

    def to_model(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values `(N, d)`, NaN where missing, in model space, and log|dz/dx| of each cell, `(N, d)`, nats.

        The latter is 0 where a cell is missing.
        """
        z, slope = values.clone(), torch.zeros_like(values)
        for number, encoder in enumerate(self._each()):
            held = ~values[:, number].isnan()
            x, log_det = encoder.to_model(values[held, number][:, None])
            z[held, number], slope[held, number] = x[:, 0], log_det
        return z, slope

    def to_data(self, z: Tensor) -> Tensor:
        """Values in data units of `z: (..., d)` in model space; the map of each column increases."""
        x = z.double().clone()
        for number, encoder in enumerate(self._each()):
            column, _ = encoder.to_data(x[..., number].reshape(-1, 1))
            x[..., number] = column.view(x.shape[:-1])
        return x

    def _each(self) -> list[TableEncoder]:
        return list(self.encoders)  # type: ignore[arg-type]
