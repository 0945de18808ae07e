"""A conditional model at one value of its givens."""

import torch
from torch import Tensor

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel


class Conditioned:
    """The density p(x | context) of a conditional `model`, at one `context: (c,)`, data units.

    It is an unconditional density of places in cells, with the methods of `DensityModel` for these.
    """

    def __init__(self, model: DensityModel, context: Tensor) -> None:
        self.model = model
        self.context = context

    @property
    def encoder(self) -> TableEncoder:
        """The encoder of the rows."""
        return self.model.encoder

    def score_line(self, x: Tensor, generator: torch.Generator | None = None) -> Scores:
        """As `DensityModel.score_line`, given the context."""
        return self.model.score_line(x, generator, context=self._repeated(len(x)))

    def score_places(self, x: Tensor, generator: torch.Generator | None = None) -> Scores:
        """As `DensityModel.score_places`, given the context."""
        return self.model.score_places(x, generator, context=self._repeated(len(x)))

    def sample_line(self, n: int, generator: torch.Generator) -> Tensor:
        """As `DensityModel.sample_line`, given the context."""
        return self.model.sample_line(n, generator, context=self._repeated(n))

    def _repeated(self, n: int) -> Tensor:
        return self.context.expand(n, -1)
