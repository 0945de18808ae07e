"""The columns that a conditional density is given: how they are encoded, and what they are like."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flowbench.data.periods import Period
from flowbench.encoding.circle import CosineAndSine
from flowbench.encoding.one_hot import OneHot
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.growing import GrowingBuffers
from flowbench.statistics.gaussian_mixtures import Tell, silent

#: Contexts of train rows that a model keeps, at most.
KEPT = 1000


class Givens(GrowingBuffers):
    """The c columns that a density is given, and contexts of train rows, data units, `contexts: (k, c)`.

    Columns with `levels` are encoded as indicators of these (`flowbench.encoding.one_hot.OneHot`), those with
    `periods` as cosines and sines (`flowbench.encoding.circle.CosineAndSine`), and the others by an
    `encoder`, which has transforms alone. `columns` names all of them in their order; by default
    they are those of the encoder. Nothing is learnt here of their density. The contexts say at which values
    the density was learnt: there it is checked, and there draws are made by which the errors of its
    log-likelihoods are calibrated.

    Raises `ConfigurationError` if the encoder is of dequantised columns, or if the columns are not those of
    encoder, levels and periods together.
    """

    contexts: Tensor

    def __init__(
        self,
        encoder: TableEncoder,
        columns: Sequence[str] | None = None,
        levels: Mapping[str, Sequence[float]] | None = None,
        periods: Mapping[str, Period] | None = None,
    ) -> None:
        super().__init__()
        if encoder.dequantiser:
            raise ConfigurationError("columns that a density is given are not dequantised")
        self.growing = ("contexts",)
        self.columns = encoder.columns if columns is None else tuple(columns)
        self.encoder = encoder
        self.one_hot = OneHot(levels or {})
        self.circular = CosineAndSine(periods or {})
        encoded = (*encoder.columns, *self.circular.columns, *self.one_hot.levels.columns)
        if sorted(self.columns) != sorted(encoded):
            raise ConfigurationError(
                f"the given columns are {', '.join(self.columns)}, and those that are encoded "
                f"{', '.join(encoded)}"
            )
        self._numeric = [self.columns.index(name) for name in encoder.columns]
        self._periodic = [self.columns.index(name) for name in self.circular.columns]
        self._levelled = [self.columns.index(name) for name in self.one_hot.levels.columns]
        self.register_buffer("contexts", torch.zeros(0, len(self.columns), dtype=torch.float64))

    @property
    def width(self) -> int:
        """How many numbers a flow takes for the columns of a row."""
        return len(self.encoder.columns) + self.circular.width + self.one_hot.width

    def fit(self, contexts: Tensor, tell: Tell = silent, weights: Tensor | None = None) -> Tensor:
        """Fit the encoding to the train rows' `contexts: (n, c)`, data units, which are in random order.

        The first of them are kept. A row of weight 2 in `weights: (n,)` counts as two. Returns all as a flow
        takes them, `(n, width)`. Raises as `TableEncoder.fit` does.
        """
        self.register_buffer("contexts", contexts[:KEPT].to(self.contexts, copy=True))
        self.one_hot.fit(contexts[:, self._levelled])
        if self._numeric:
            self.encoder.fit(contexts[:, self._numeric], tell, weights)
        return self.to_model(contexts)

    def to_model(self, context: Tensor) -> Tensor:
        """A `context: (n, c)` in data units as what a flow takes, `(n, width)`, float64."""
        context = context.double()
        parts = [
            self.circular.to_model(context[:, self._periodic]),
            self.one_hot.to_model(context[:, self._levelled]),
        ]
        if self._numeric:
            parts.insert(0, self.encoder.to_model(context[:, self._numeric])[0])
        return torch.cat(parts, 1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` of the contexts that were kept, `(n, c)`, data units, drawn with replacement."""
        return self.contexts[torch.randint(len(self.contexts), (n,), generator=generator)]
