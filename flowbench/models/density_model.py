"""An encoder and a flow together: a density over the rows of a table, in the table's own units."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from flowbench.encoding.dequantiser import PLACES
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.background import Background
from flowbench.models.density import Density, Flow, Scores
from flowbench.options import PartOptions

#: Rows carried through the model at once: flat memory for tables of any length, and arrays that stay in the
#: cache.
CHUNK = 1024
#: The same for a flow on a GPU, which takes about as long for 1,024 of them, of so many columns at most; of
#: more columns fewer rows, for their memory.
GPU_CHUNK, GPU_FEATURES = 16_384, 16


class DensityModel(nn.Module):
    """A density over the rows of a table: an encoder, a flow in model space, and perhaps a background.

    Rows `x: (n, d)` are float64, in data units, with the columns of the `encoder` in their order. The
    log-likelihood of a row is the log-density there. Where columns are dequantised it is the mean of the
    log-density over the row's cell, at `PLACES` places: a lower bound of the logarithm of the cell's mass by
    its volume (`flowbench.encoding.dequantiser.Dequantiser`). `score_places` and `draw_places` speak of the
    density itself, at places in cells.

    With `givens`, an encoder of c further columns, the density is conditional: every method then takes
    `context: (n, c)`, the values of these columns for each row, in their own data units. The density is not
    one over the givens, so the log-determinant of their encoder never counts.

    The flow alone may be on a GPU: rows and likelihoods are on the CPU, as encoder and background are.

    Raises `ConfigurationError` if the givens are dequantised, if a context is missing or not asked for, and
    if rows or context have the wrong shape.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        flow: Density,
        background: Background | None = None,
        givens: TableEncoder | None = None,
    ) -> None:
        super().__init__()
        if givens is not None and givens.dequantiser:
            raise ConfigurationError("columns that a density is given are not dequantised")
        self.encoder = encoder
        self.flow = flow
        self.background = background
        self.givens = givens

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the d columns."""
        return self.encoder.columns

    @property
    def chunk(self) -> int:
        """How many rows are carried through the flow at once."""
        if not self.flow.like.is_cuda:
            return CHUNK
        return max(CHUNK, GPU_CHUNK * GPU_FEATURES // max(GPU_FEATURES, self.flow.features))

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `TableEncoder.to_model`."""
        return self.encoder.to_model(x)

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """As `TableEncoder.to_data`."""
        return self.encoder.to_data(z)

    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Log-likelihoods of rows `x: (n, d)`: `(n,)`, float64, nats; raises as `score` does."""
        return self.score(x, context=context).log_prob

    def score(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Scores:
        """Log-likelihoods of rows `x: (n, d)`, float64, nats, and what they cost (`nfe`: the most).

        `generator` draws the probes of a stochastic divergence estimator, where there is one.
        Raises `IntegrationError` if a solve fails.
        """
        x = x.double()
        if not self.encoder.dequantiser:
            return self.score_places(x, generator, context=context)
        places = (self.encoder.spread(x, draw, PLACES) for draw in range(PLACES))
        return _mean([self.score_places(each, generator, context=context) for each in places])

    def score_places(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Scores:
        """Log-densities at places `x: (n, d)` in cells, as `score` gives log-likelihoods of rows."""
        x = x.double()
        return Scores.join(
            [self._score(x[rows], generator, **given) for rows, given in self._chunks(len(x), context)]
        )

    def sample(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
        """Draw `n` >= 1 rows `(n, d)`; dequantised columns hold the values of their cells."""
        return self.encoder.restore(self.draw_places(n, generator, context=context)[0])

    def sample_and_log_prob(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw `n` >= 1 rows `(n, d)`, with their log-likelihoods `(n,)`, float64, nats."""
        x, scores = self.draw(n, generator, context=context)
        return x, scores.log_prob

    def draw(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Scores]:
        """Draw `n` >= 1 rows `(n, d)`, with the scores that `score` gives them.

        Where columns are dequantised, the rows are scored once they are drawn.
        """
        x, scores = self.draw_places(n, generator, context=context)
        if not self.encoder.dequantiser:
            return x, scores
        x = self.encoder.restore(x)
        return x, self.score(x, generator, context=context)

    def draw_places(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Scores]:
        """Draw `n` >= 1 places in cells `(n, d)`, with the scores that `score_places` gives them."""
        parts = [
            self._draw(rows.stop - rows.start, generator, **given) for rows, given in self._chunks(n, context)
        ]
        return torch.cat([x for x, _ in parts]), Scores.join([scores for _, scores in parts])

    def trajectory(
        self, n: int, times: Tensor, generator: torch.Generator, *, context: Tensor | None = None
    ) -> Tensor | None:
        """Paths `(k, n, d)` of `n` samples of the flow at `times: (k,)`: places in cells, data units.

        None for a density without a time axis.
        """
        if not isinstance(self.flow, Flow):
            return None
        given = self._encode_context(context, n)
        path = self.flow.trajectory(self.flow.sample_base(n, generator), times, **given)
        return None if path is None else torch.stack([self.encoder.to_data(z)[0] for z in path.cpu()])

    def for_evaluation(
        self,
        integrator: PartOptions,
        *,
        divergence: PartOptions | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """The same model, with the flow as `Density.for_evaluation` gives it."""
        flow = self.flow.for_evaluation(integrator, divergence=divergence, dtype=dtype)
        return type(self)(self.encoder, flow, self.background, self.givens)

    def as_distribution(self, generator: torch.Generator) -> "FlowDistribution":
        """A `torch.distributions.Distribution` over rows in data units, drawing from `generator`."""
        return FlowDistribution(self, generator)

    def _chunks(self, n: int, context: Tensor | None) -> Iterator[tuple[slice, dict[str, Any]]]:
        """`n` rows by the chunk, each with the keyword arguments that tell the flow what is given there."""
        given = self._encode_context(context, n)
        for start in range(0, max(n, 1), self.chunk):
            rows = slice(start, min(start + self.chunk, n))
            yield rows, {name: values[rows] for name, values in given.items()}

    def _encode_context(self, context: Tensor | None, n: int) -> dict[str, Any]:
        """The keyword arguments that tell the flow what `n` rows are given: `context: (n, c)`, or none."""
        if self.givens is None:
            if context is not None:
                raise ConfigurationError("the model is given no columns, so it takes no `context`")
            return {}
        names = ", ".join(self.givens.columns)
        if context is None:
            raise ConfigurationError(f"the model needs a `context`: the values of {names} for each row")
        if context.shape != (n, len(self.givens.columns)):
            raise ConfigurationError(
                f"`context` must have shape ({n}, {len(self.givens.columns)}), the values of {names} for "
                f"each row; got {tuple(context.shape)}"
            )
        return {"context": self.givens.to_model(context.double())[0].to(self.flow.like)}

    def _score(self, x: Tensor, generator: torch.Generator | None, **given: Any) -> Scores:
        z, log_det = self.encoder.to_model(x)
        scores = self._mix(self._score_in_model_space(z, generator, **given), z)
        return replace(scores, log_prob=scores.log_prob + log_det)

    def _draw(self, n: int, generator: torch.Generator, **given: Any) -> tuple[Tensor, Scores]:
        z, scores = self.flow.draw(n, generator, **given)
        z, scores = z.to(generator.device), scores.to(generator.device)
        if self.background is not None:
            chosen, others = self.background.draw(n, generator)
            if len(others):
                z[chosen] = others.to(z)
                theirs = {name: value[chosen.to(value.device)] for name, value in given.items()}
                scores = scores.put(chosen, self._score_in_model_space(z[chosen], generator, **theirs))
        x, log_det = self.encoder.to_data(z)
        scores = self._mix(scores, z)
        return x, replace(scores, log_prob=scores.log_prob - log_det)

    def _score_in_model_space(self, z: Tensor, generator: torch.Generator | None, **given: Any) -> Scores:
        """What the flow says of `z: (n, d)`."""
        return self.flow.score(z.to(self.flow.like), generator, **given).to(z.device)

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
    """A `DensityModel` seen as a distribution of rows, with event shape (d,); `rsample` is not offered.

    Where columns are dequantised, `sample` gives rows of the table, with the values of their cells, and
    `log_prob` is the lower bound that `DensityModel.log_prob` gives them.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, model: DensityModel, generator: torch.Generator) -> None:
        super().__init__(event_shape=torch.Size([len(model.columns)]), validate_args=False)
        self.model = model
        self.generator = generator

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-likelihood of `value: (..., d)`: `(...)`, float64, nats, data units."""
        flat = value.reshape(-1, value.shape[-1])
        return self.model.log_prob(flat).reshape(value.shape[:-1])

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw `sample_shape + (d,)` values in data units."""
        shape = torch.Size(sample_shape)
        if not shape.numel():
            return torch.empty(shape + self.event_shape, dtype=torch.float64)
        return self.model.sample(shape.numel(), self.generator).reshape(shape + self.event_shape)


def _mean(parts: Sequence[Scores]) -> Scores:
    """The scores whose log-densities, and local errors, are the means of several of the same rows."""
    log_prob = torch.stack([part.log_prob for part in parts]).mean(0)
    errors = [part.local_error for part in parts if part.local_error is not None]
    nfes = [part.nfe for part in parts if part.nfe is not None]
    return Scores(log_prob, max(nfes, default=None), torch.stack(errors).mean(0) if errors else None)


def chunk_sizes(n: int, most: int) -> Iterator[int]:
    """`n` in parts of `most` and a rest."""
    for start in range(0, n, most):
        yield min(most, n - start)
