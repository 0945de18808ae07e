"""Transforms and a flow together: a density over the rows of a table, in the table's own units."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from flowbench.encoding.transform import Transform
from flowbench.models.background import Background
from flowbench.models.density import Density, Flow, Scores
from flowbench.options import PartOptions

#: Rows carried through the model at once: flat memory for tables of any length, and arrays that stay in the
#: cache (4,096 took 1.6 times as long a row).
CHUNK = 1024
#: The same for a flow on a GPU, which takes about as long for 1,024 of them, of so many columns at most; of
#: more columns fewer rows, for their memory.
GPU_CHUNK, GPU_FEATURES = 16_384, 16


class DensityModel(nn.Module):
    """A density over rows in data units: fitted transforms in front of a flow, with or without a background.

    `columns` names the d columns, in the order of every `x: (n, d)`. The flow alone may be on a GPU: rows and
    likelihoods are on the CPU, as transforms and background are.
    """

    def __init__(
        self,
        columns: Sequence[str],
        transforms: Sequence[Transform],
        flow: Density,
        background: Background | None = None,
    ) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.transforms = nn.ModuleList(transforms)
        self.flow = flow
        self.background = background

    @property
    def chunk(self) -> int:
        """How many rows are carried through the flow at once."""
        if not self.flow.like.is_cuda:
            return CHUNK
        return max(CHUNK, GPU_CHUNK * GPU_FEATURES // max(GPU_FEATURES, self.flow.features))

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through the transforms: `x: (n, d)`, float64, data units, to `z: (n, d)` and log|det dz/dx|."""
        log_det = x.new_zeros(len(x))
        for transform in self._transforms():
            x, part = transform.to_model(x)
            log_det = log_det + part
        return x, log_det

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Back through the transforms: `z: (n, d)` to `x: (n, d)` in data units and log|det dx/dz|."""
        z = z.double()
        log_det = z.new_zeros(len(z))
        for transform in reversed(self._transforms()):
            z, part = transform.to_data(z)
            log_det = log_det + part
        return z, log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of `x: (n, d)` in data units: `(n,)`, float64, nats; raises as `score` does."""
        return self.score(x).log_prob

    def score(self, x: Tensor, generator: torch.Generator | None = None) -> Scores:
        """Log-densities of `x: (n, d)` in data units, float64, and what they cost (`nfe`: the most).

        `generator` draws the probes of a stochastic divergence estimator, where there is one.
        Raises `IntegrationError` if a solve fails.
        """
        return Scores.join([self._score(part, generator) for part in torch.split(x.double(), self.chunk)])

    def sample_and_log_prob(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `n` >= 1 rows `(n, d)` in data units and their log-densities `(n,)`, float64, nats."""
        x, scores = self.draw(n, generator)
        return x, scores.log_prob

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        """Draw `n` >= 1 rows `(n, d)` in data units, with their scores."""
        parts = [self._draw(size, generator) for size in chunk_sizes(n, self.chunk)]
        return torch.cat([x for x, _ in parts]), Scores.join([scores for _, scores in parts])

    def trajectory(self, n: int, times: Tensor, generator: torch.Generator) -> Tensor | None:
        """Paths `(k, n, d)` of `n` samples of the flow at `times: (k,)`, data units.

        None for a density without a time axis.
        """
        if not isinstance(self.flow, Flow):
            return None
        path = self.flow.trajectory(self.flow.sample_base(n, generator), times)
        return None if path is None else torch.stack([self.to_data(z)[0] for z in path.cpu()])

    def for_evaluation(
        self,
        integrator: PartOptions,
        *,
        divergence: PartOptions | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """The same model, with the flow as `Density.for_evaluation` gives it."""
        flow = self.flow.for_evaluation(integrator, divergence=divergence, dtype=dtype)
        return type(self)(self.columns, self._transforms(), flow, self.background)

    def as_distribution(self, generator: torch.Generator) -> "FlowDistribution":
        """A `torch.distributions.Distribution` over rows in data units, drawing from `generator`."""
        return FlowDistribution(self, generator)

    def _transforms(self) -> list[Transform]:
        return list(self.transforms)  # type: ignore[arg-type]

    def _score(self, x: Tensor, generator: torch.Generator | None) -> Scores:
        z, log_det = self.to_model(x)
        scores = self._mix(self._score_in_model_space(z, generator), z)
        return replace(scores, log_prob=scores.log_prob + log_det)

    def _draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        z, scores = self.flow.draw(n, generator)
        z, scores = z.to(generator.device), scores.to(generator.device)
        if self.background is not None:
            chosen, others = self.background.draw(n, generator)
            if len(others):
                z[chosen] = others.to(z)
                scores = scores.put(chosen, self._score_in_model_space(z[chosen], generator))
        x, log_det = self.to_data(z)
        scores = self._mix(scores, z)
        return x, replace(scores, log_prob=scores.log_prob - log_det)

    def _score_in_model_space(self, z: Tensor, generator: torch.Generator | None) -> Scores:
        """What the flow says of `z: (n, d)`."""
        return self.flow.score(z.to(self.flow.like), generator).to(z.device)

    def _mix(self, flow: Scores, z: Tensor) -> Scores:
        """The scores, float64, at `z: (n, d)` in model space, of which the flow says `flow`."""
        log_prob, local_error = flow.log_prob.double(), flow.local_error
        if self.background is None:
            return replace(flow, log_prob=log_prob)
        mixed = self.background.mix(log_prob, z)
        if local_error is not None:
            # Where the background holds the density, the flow's error counts for little.
            local_error = local_error * self.background.flow_share(log_prob, mixed)
        return Scores(mixed, flow.nfe, local_error)


class FlowDistribution(Distribution):
    """A `DensityModel` seen as a distribution with event shape (d,); `rsample` is not offered."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, model: DensityModel, generator: torch.Generator) -> None:
        super().__init__(event_shape=torch.Size([len(model.columns)]), validate_args=False)
        self.model = model
        self.generator = generator

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value: (..., d)`: `(...)`, float64, nats, data units."""
        flat = value.reshape(-1, value.shape[-1])
        return self.model.log_prob(flat).reshape(value.shape[:-1])

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw `sample_shape + (d,)` values in data units."""
        shape = torch.Size(sample_shape)
        if not shape.numel():
            return torch.empty(shape + self.event_shape, dtype=torch.float64)
        x, _ = self.model.sample_and_log_prob(shape.numel(), self.generator)
        return x.reshape(shape + self.event_shape)


def chunk_sizes(n: int, most: int) -> Iterator[int]:
    """`n` in parts of `most` and a rest."""
    for start in range(0, n, most):
        yield min(most, n - start)
