"""A density model as a distribution of torch."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class RowDensity(Protocol):
    """A density over rows, as `flowbench.models.density_model.DensityModel` is one."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor: ...

    def sample(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor: ...


class FlowDistribution(Distribution):
    """A `DensityModel` seen as a distribution of rows, with event shape (d,); `rsample` is not offered.

    With a `context: (..., c)` of a conditional model, its leading axes are the batch shape: one distribution
    for each row of givens. Where columns are dequantised, `sample` gives rows of the table, with the values
    of their cells, and `log_prob` is the lower bound that `DensityModel.log_prob` gives them.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, model: RowDensity, generator: torch.Generator, context: Tensor | None = None) -> None:
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        event_shape = torch.Size([len(model.columns)])
        super().__init__(batch_shape=batch_shape, event_shape=event_shape, validate_args=False)
        self.model = model
        self.generator = generator
        self.context = context

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-likelihood of `value: (..., d)`: `(...)`, float64, nats, data units.

        The leading axes of `value` broadcast against the batch shape.
        """
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)  # type: ignore[no-untyped-call]
        flat = value.expand(shape + self.event_shape).reshape(-1, *self.event_shape)
        return self.model.log_prob(flat, context=self._context_of(shape)).reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw `sample_shape + batch_shape + (d,)` values in data units."""
        shape = torch.Size(sample_shape) + self.batch_shape
        if not shape.numel():
            return torch.empty(shape + self.event_shape, dtype=torch.float64)
        drawn = self.model.sample(shape.numel(), self.generator, context=self._context_of(shape))
        return drawn.reshape(shape + self.event_shape)

    def _context_of(self, shape: torch.Size) -> Tensor | None:
        """The context (n, c) of the n values of a `shape` that ends in the batch shape."""
        if self.context is None:
            return None
        return self.context.expand(*shape, -1).reshape(-1, self.context.shape[-1])
