"""An encoder and a flow together: a density over the rows of a table, in the table's own units."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from flowbench.encoding.dequantiser import PLACES
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.background import Background
from flowbench.models.density import Density, Flow, Scores, repeating, sum_of
from flowbench.models.flow_distribution import FlowDistribution
from flowbench.models.givens import Givens
from flowbench.models.incomplete_mixture import IncompleteMixture
from flowbench.models.probability_mass import ProbabilityMass
from flowbench.models.rows import Rows
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
    density itself, at places in cells. Where columns are periodic, that is the sum of the densities at the
    copies of a row on the line (`flowbench.encoding.circle.Circle`).

    With `givens`, c further columns, the density is conditional. Every method then takes `context: (n, c)`,
    the values of these columns for each row, in their own data units. The `mass` is a probability mass
    function of categorical ones among them. It is apart from the density: `log_mass` gives its logarithm.
    The log-likelihood of a whole row is the log-mass of its categories plus the log-density of the rest. The
    `imputer` fills missing cells (`flowbench.models.completion`).

    The flow alone may be on a GPU: rows and likelihoods are on the CPU, as encoder and background are.

    Raises `ConfigurationError` if a context is missing or not asked for, and if rows or context have the
    wrong shape.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        flow: Density,
        background: Background | None = None,
        givens: Givens | None = None,
        mass: ProbabilityMass | None = None,
        imputer: IncompleteMixture | None = None,
    ) -> None:
        super().__init__()
        if mass is not None and (givens is None or not set(mass.columns) <= set(givens.columns)):
            raise ConfigurationError("the columns with a probability mass are not among the given ones")
        self.encoder = encoder
        self.flow = flow
        self.background = background
        self.givens = givens
        self.mass = mass
        self.imputer = imputer

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
        if not self.encoder.has_places:
            return self.score_places(x, generator, context=context)
        places = (self.encoder.spread(x, draw, PLACES) for draw in range(PLACES))
        scored = ((each, self.score_places(each, generator, context=context)) for each in places)
        return _mean([self.without_stand_ins(scores, each, context) for each, scores in scored])

    def without_stand_ins(self, scores: Scores, x: Tensor, context: Tensor | None) -> Scores:
        """The `scores` of rows `x: (n, d)` at places, less the log-density of their stand-ins for atoms."""
        absent = self.absent(context)
        if absent is None:
            return scores
        return replace(scores, log_prob=scores.log_prob - self.encoder.log_stand_in(x, absent))

    def absent(self, context: Tensor | None) -> Tensor | None:
        """Which cells `(n, d)` hold an atom, by a `context: (n, c)`, data units; None without atoms."""
        states = self._states(context)
        return None if states is None else self.encoder.atoms.absent(states)

    def restore(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Rows of the table from rows `x: (n, d)` at places with a `context: (n, c)`, data units."""
        return self.put_atoms(self.encoder.restore(x), context)

    def put_atoms(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Rows `x: (n, d)` with the atoms in place of their stand-ins, by a `context: (n, c)`, data units."""
        states = self._states(context)
        return x if states is None else self.encoder.atoms.restore(x, states)

    def _states(self, context: Tensor | None) -> Tensor | None:
        """The states `(n, k)` of the columns with atoms, which are the last of the givens."""
        count = len(self.encoder.atoms.values)
        return None if context is None or not count else context[:, -count:]

    def score_places(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Scores:
        """Log-densities at places `x: (n, d)` in cells, as `score` gives log-likelihoods of rows.

        A value of any period of a periodic column counts.
        """
        x, circle = x.double(), self.encoder.circle
        if not circle:
            return self.score_line(x, generator, context=context)
        copies = list(circle.copies(x, self.absent(context)))
        same = [None] * len(copies) if generator is None else repeating(generator, len(copies))
        parts = []
        for (copy, there), each in zip(copies, same, strict=True):
            scores = self.score_line(copy, each, context=context)
            parts.append(replace(scores, log_prob=scores.log_prob.masked_fill(~there, -math.inf)))
        return sum_of(parts)

    def score_line(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Scores:
        """Log-densities on the line, at copies `x: (n, d)` of places: of these alone.

        Without periodic columns they are those that `score_places` gives.
        """
        return Scores.join(
            [self._score(x[rows], given, generator) for rows, given in self._chunks(len(x), context)]
        )

    def unroll(self, x: Tensor, generator: np.random.Generator, context: Tensor | None = None) -> Tensor:
        """Places `x: (n, d)` with stand-ins at random copies on the line (`Circle.unroll`)."""
        return self.encoder.circle.unroll(x, generator, self.absent(context))

    @property
    def has_levels(self) -> bool:
        """Whether some of the given columns are categorical."""
        return self.givens is not None and self.givens.one_hot.width > 0

    def log_mass(self, context: Tensor | None) -> Tensor | None:
        """The log-probabilities `(n,)`, float64, nats, of the categories in a `context: (n, c)`, data units.

        None for a model without a probability mass function.
        """
        if self.mass is None or self.givens is None or context is None:
            return None
        return self.mass.log_prob(self.of_mass(context).double())

    def of_mass(self, context: Tensor) -> Tensor:
        """The columns `(n, m)` of a `context: (n, c)` that have a probability mass, in its order."""
        return context[:, self._places_of_mass]

    def put_mass(self, context: Tensor, values: Tensor) -> Tensor:
        """A `context: (n, c)` with other `values: (n, m)` of the columns that have a probability mass."""
        context = context.clone()
        context[:, self._places_of_mass] = values
        return context

    @property
    def _places_of_mass(self) -> list[int]:
        if self.mass is None or self.givens is None:
            raise ConfigurationError("the model has no probability mass function")
        return [self.givens.columns.index(name) for name in self.mass.columns]

    def draw_context(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Contexts `(n, c)` drawn from the mass; None for a model that has no mass of all given columns."""
        if self.mass is None or self.givens is None or len(self.mass.columns) < len(self.givens.columns):
            return None
        order = [self.mass.columns.index(name) for name in self.givens.columns]
        return self.mass.sample(n, generator)[:, order]

    def sample(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
        """Draw `n` >= 1 rows `(n, d)`; dequantised columns hold the values of their cells, or atoms."""
        return self.restore(self.sample_places(n, generator, context=context), context)

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
        if not self.encoder.has_places:
            return self.draw_places(n, generator, context=context)
        x = self.sample(n, generator, context=context)
        return x, self.score(x, generator, context=context)

    def sample_places(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
        """Draw `n` >= 1 places in cells `(n, d)`."""
        return self._within_period(self._draw_line(n, generator, context)[0], context)

    def sample_line(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
        """Draw `n` >= 1 copies of places `(n, d)` on the line."""
        return self._draw_line(n, generator, context)[0]

    @torch.no_grad()
    def draw_places(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Scores]:
        """Draw `n` >= 1 places in cells `(n, d)`, with the scores that `score_places` gives them.

        Where columns are periodic, places are scored once they are drawn. One that is not finite gets NaN.
        """
        x, scores = self._draw_line(n, generator, context)
        if not self.encoder.circle:
            return x, scores
        x = self._within_period(x, context)
        finite = x.isfinite().all(1)
        scores = self.score_places(torch.where(finite[:, None], x, 0.0), generator, context=context)
        return x, replace(scores, log_prob=scores.log_prob.masked_fill(~finite, math.nan))

    def _within_period(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Places from copies `x: (n, d)` on the line, with stand-ins, which stay."""
        absent, wrapped = self.absent(context), self.encoder.circle.wrap(x)
        return wrapped if absent is None else torch.where(absent, x, wrapped)

    @torch.no_grad()
    def _draw_line(self, n: int, generator: torch.Generator, context: Tensor | None) -> tuple[Tensor, Scores]:
        """Draw `n` copies of places `(n, d)`, with their log-densities on the line."""
        parts = [
            self._draw(rows.stop - rows.start, given, generator) for rows, given in self._chunks(n, context)
        ]
        return torch.cat([x for x, _ in parts]), Scores.join([scores for _, scores in parts])

    def sample_for_each(self, m: int, generator: torch.Generator, *, context: Tensor) -> Tensor:
        """Draw `m` >= 1 rows for each row of `context: (n, c)`, by common random numbers: `(n, m, d)`.

        `Density.sample_for_each` says what they depend on.
        """
        places = self.sample_places_for_each(m, generator, context=context)
        return self.restore(places.flatten(0, 1), context.repeat_interleave(m, 0)).view(places.shape)

    @torch.no_grad()
    def sample_places_for_each(self, m: int, generator: torch.Generator, *, context: Tensor) -> Tensor:
        """As `sample_for_each`, but places in cells."""
        given = self._encode_context(context, len(context))
        if given is None:  # no model without givens gets here
            raise ConfigurationError("the model is given no columns")
        parts = torch.split(given, max(1, self.chunk // max(1, m)))
        each = zip(parts, repeating(generator, len(parts)), strict=True)
        drawn = torch.cat([self._draw_for_each(m, part, same) for part, same in each])
        x = self.encoder.to_data(drawn.flatten(0, 1))[0]
        return self._within_period(x, context.repeat_interleave(m, 0)).view(drawn.shape)

    def trajectory(
        self, n: int, times: Tensor, generator: torch.Generator, *, context: Tensor | None = None
    ) -> Tensor | None:
        """Paths `(k, n, d)` of `n` samples of the flow at `times: (k,)`: places in cells, data units.

        Periodic columns are on the line, where the flow moves.
        None for a density without a time axis.
        """
        if not isinstance(self.flow, Flow):
            return None
        given = self._to_flow(self._encode_context(context, n))
        path = self.flow.trajectory(self.flow.sample_base(n, generator), times, context=given)
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
        return type(self)(self.encoder, flow, self.background, self.givens, self.mass, self.imputer)

    def as_distribution(
        self, generator: torch.Generator, *, context: Tensor | None = None
    ) -> FlowDistribution:
        """A `torch.distributions.Distribution` over rows in data units, drawing from `generator`.

        Of a conditional model it is a batch of them, one for each row of `context: (..., c)`.
        """
        return FlowDistribution(self, generator, context)

    def encode_context(self, rows: Rows) -> Tensor | None:
        """The context of `rows` in data units as the flow takes it; None for an unconditional model."""
        return self._to_flow(self._encode_context(rows.context, len(rows)))

    def _chunks(self, n: int, context: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
        """`n` rows by the chunk, each with its context in model space, if there is one."""
        given = self._encode_context(context, n)
        for start in range(0, max(n, 1), self.chunk):
            rows = slice(start, min(start + self.chunk, n))
            yield rows, None if given is None else given[rows]

    def _encode_context(self, context: Tensor | None, n: int) -> Tensor | None:
        """The `context: (n, c)` of `n` rows in model space, float64; None for an unconditional model."""
        if self.givens is None:
            if context is not None:
                raise ConfigurationError("the model is given no columns, so it takes no `context`")
            return None
        names = ", ".join(self.givens.columns)
        if context is None:
            raise ConfigurationError(f"the model needs a `context`: the values of {names} for each row")
        if context.shape != (n, len(self.givens.columns)):
            raise ConfigurationError(
                f"`context` must have shape ({n}, {len(self.givens.columns)}), the values of {names} for "
                f"each row; got {tuple(context.shape)}"
            )
        return self.givens.to_model(context)

    def _to_flow(self, given: Tensor | None) -> Tensor | None:
        """A context in model space, in the dtype and on the device of the flow."""
        return None if given is None else given.to(self.flow.like)

    def _score(self, x: Tensor, given: Tensor | None, generator: torch.Generator | None) -> Scores:
        z, log_det = self.encoder.to_model(x)
        scores = self._mix(self._score_in_model_space(z, given, generator), z, given)
        return replace(scores, log_prob=scores.log_prob + log_det)

    def _draw(self, n: int, given: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        z, scores = self.flow.draw(n, generator, context=self._to_flow(given))
        z, scores = z.to(generator.device), scores.to(generator.device)
        if self.background is not None:
            chosen, others = self.background.draw(n, generator, given)
            if len(others):
                z[chosen] = others.to(z)
                theirs = None if given is None else given[chosen]
                scores = scores.put(chosen, self._score_in_model_space(z[chosen], theirs, generator))
        x, log_det = self.encoder.to_data(z)
        scores = self._mix(scores, z, given)
        return x, replace(scores, log_prob=scores.log_prob - log_det)

    def _draw_for_each(self, m: int, given: Tensor, generator: torch.Generator) -> Tensor:
        """`m` draws for each of the contexts `given: (n, c)`, `(n, m, d)`, float64; all in model space."""
        z = self.flow.sample_for_each(m, generator, context=given.to(self.flow.like))
        z = z.to(generator.device, torch.float64)
        if self.background is not None:
            for own, drawn, same in zip(given, z, repeating(generator, len(given)), strict=True):
                chosen, others = self.background.draw(m, same, own.expand(m, -1))
                drawn[chosen] = others
        return z

    def _score_in_model_space(
        self, z: Tensor, given: Tensor | None, generator: torch.Generator | None
    ) -> Scores:
        """The flow's scores of `z: (n, d)`, given a context in model space."""
        scores = self.flow.score(z.to(self.flow.like), generator, context=self._to_flow(given))
        return scores.to(z.device)

    def _mix(self, flow: Scores, z: Tensor, given: Tensor | None) -> Scores:
        """The scores, float64, at `z: (n, d)` in model space, where those of the flow are `flow`."""
        log_prob, local_error = flow.log_prob.double(), flow.local_error
        if self.background is None:
            return replace(flow, log_prob=log_prob)
        mixed = self.background.mix(log_prob, z, context=given)
        if local_error is not None:
            # Where the background holds the density, the flow's error counts for little.
            local_error = local_error * self.background.flow_share(log_prob, mixed)
        return Scores(mixed, flow.nfe, local_error)


def _mean(parts: Sequence[Scores]) -> Scores:
    """The scores whose log-densities, and local errors, are the means of several of the same rows."""
    log_prob = torch.stack([part.log_prob for part in parts]).mean(0)
    errors = [part.local_error for part in parts if part.local_error is not None]
    nfes = [part.nfe for part in parts if part.nfe is not None]
    return Scores(log_prob, max(nfes, default=None), torch.stack(errors).mean(0) if errors else None)
