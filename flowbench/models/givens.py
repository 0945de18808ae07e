"""The columns that a conditional density is given: how they are encoded, and what they are like."""

import torch
from torch import Tensor

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.growing import GrowingBuffers

#: Contexts of train rows that a model keeps, at most.
KEPT = 1000


class Givens(GrowingBuffers):
    """The `encoder` of c given columns, and contexts of train rows in data units, `contexts: (k, c)`.

    Nothing is learnt of the density of the givens. Their encoder has transforms alone, and its
    log-determinant never counts. The contexts say at which values the density was learnt: there it is
    checked, and there draws are made by which the errors of its log-likelihoods are calibrated.

    Raises `ConfigurationError` if the encoder is of dequantised columns.
    """

    contexts: Tensor

    def __init__(self, encoder: TableEncoder) -> None:
        super().__init__()
        if encoder.dequantiser:
            raise ConfigurationError("columns that a density is given are not dequantised")
        self.growing = ("contexts",)
        self.encoder = encoder
        self.register_buffer("contexts", torch.zeros(0, len(encoder.columns), dtype=torch.float64))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the c columns."""
        return self.encoder.columns

    def keep(self, contexts: Tensor) -> None:
        """Keep the first of the train rows' `contexts: (n, c)`, data units, which are in random order."""
        self.register_buffer("contexts", contexts[:KEPT].to(self.contexts, copy=True))

    def to_model(self, context: Tensor) -> Tensor:
        """A `context: (n, c)` in data units as what a flow takes, `(n, c)`, float64."""
        return self.encoder.to_model(context.double())[0]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` of the contexts that were kept, `(n, c)`, data units, drawn with replacement."""
        return self.contexts[torch.randint(len(self.contexts), (n,), generator=generator)]
