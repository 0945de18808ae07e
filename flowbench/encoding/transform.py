"""The base class of transforms: bijections between data units and model space."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from flowbench import options


class Transform(nn.Module, ABC):
    """An increasing map of each column between data units and model space, the space of the flow.

    It is fitted on training rows only. A column's map does not depend on the other columns of the row.
    Its parameters are float64 buffers: saved with the model and never trained.
    """

    Options: ClassVar[type[options.PartOptions]]

    def __init__(self, columns: tuple[str, ...], options: options.PartOptions) -> None:
        super().__init__()
        self.columns = columns
        self.options = options

    @abstractmethod
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Set the parameters from training rows `x: (n, d)`, float64, data units.

        A row of weight 2 in `weights: (n,)` counts as two rows.

        Raises `DataError` if the rows do not determine them.
        """

    @abstractmethod
    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x: (n, d)` in data units to `z: (n, d)` and log(dz/dx) of each cell: `(n, d)`, nats."""

    @abstractmethod
    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map `z: (n, d)` to `x: (n, d)` in data units and log(dx/dz) of each cell: `(n, d)`, nats."""
