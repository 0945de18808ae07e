"""The base classes of densities over rows in model space, and of flows, which map rows to a base."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows
from flowbench.models.trainable import Trainable
from flowbench.statistics.gaussian_mixtures import Tell, silent


@dataclass(frozen=True)
class Scores:
    """Log-densities `log_prob: (n,)`, nats, and their cost and error.

    `nfe` is the number of evaluations of the velocity field; None for a density that solves no equation.
    `local_error: (n,)`, nats, is the sum of the local errors that the solver estimated in its steps. It grows
    with the error of the row; None if the solver does not keep it.
    """

    log_prob: Tensor
    nfe: int | None = None
    local_error: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The scores of all rows, from the scores of `parts` of them, at least one."""
        nfes = [part.nfe for part in parts if part.nfe is not None]
        errors = [part.local_error for part in parts if part.local_error is not None]
        return cls(
            torch.cat([part.log_prob for part in parts]),
            max(nfes, default=None),
            torch.cat(errors) if errors else None,
        )

    def to(self, device: torch.device) -> Self:
        """The same scores on `device`."""
        error = None if self.local_error is None else self.local_error.to(device)
        return type(self)(self.log_prob.to(device), self.nfe, error)

    def of(self, rows: Tensor) -> Self:
        """The scores of the rows where the mask `rows: (n,)` is true."""
        error = None if self.local_error is None else self.local_error[rows]
        return type(self)(self.log_prob[rows], self.nfe, error)

    def put(self, rows: Tensor, scores: Self) -> Self:
        """A copy in which `scores` replaces the scores of the rows where the mask `rows: (n,)` is true."""
        error = self.local_error
        if error is not None and scores.local_error is not None:
            error = error.masked_scatter(rows, scores.local_error)
        return type(self)(self.log_prob.masked_scatter(rows, scores.log_prob), self.nfe, error)


def sum_of(parts: Sequence[Scores]) -> Scores:
    """The scores of densities that are the sums of those of `parts`, which are of the same rows.

    A local error of the sum is the mean of the local errors, by the shares of the densities in the sum.
    """
    each = torch.stack([part.log_prob for part in parts])
    log_prob = each.logsumexp(0)
    errors = [part.local_error for part in parts if part.local_error is not None]
    nfes = [part.nfe for part in parts if part.nfe is not None]
    local_error = None
    if errors:
        # Where all densities are zero, there is no error.
        shares = (each - log_prob).exp().nan_to_num(nan=0.0)
        local_error = (shares * torch.stack(errors).to(shares)).sum(0)
    return Scores(log_prob, max(nfes, default=None), local_error)


@dataclass(frozen=True)
class Mapped:
    """Rows carried through a flow, from data to base or back.

    `value: (n, d)` are the rows, and `log_det: (n,)` is log|det d value / d input|, nats. `nfe` and
    `local_error` are as in `Scores`.
    """

    value: Tensor
    log_det: Tensor
    nfe: int | None = None
    local_error: Tensor | None = None


class Density(Trainable):
    """A probability density over rows `x: (n, d)` in model space, from which rows can be drawn.

    With `context_features` c > 0 it is a conditional density p(x | context). Every method that takes or
    returns n rows then takes a `context: (n, c)`, one row for each of them. Without `context_features` a
    context is refused.

    Subclasses implement the mathematics alone, in `_score` and `_draw`; shapes are checked here. Initial
    weights are drawn from `generator`, never from the global random state.
    """

    #: Whether a model of this density has a `Background` by default.
    default_background: ClassVar[bool] = False
    #: Published recipes by name: each maps the kind of data ("toy" or "table") to configuration values.
    presets: ClassVar[dict[str, Callable[[str], dict[str, Any]]]] = {}

    def __init__(
        self,
        features: int,
        options: options.PartOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(options)
        if features < 1:
            raise ConfigurationError(f"a density needs at least one feature; got {features}")
        if context_features < 0:
            raise ConfigurationError(f"a context has no negative number of columns; got {context_features}")
        self.features = features
        self.context_features = context_features

    @abstractmethod
    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores: ...

    @abstractmethod
    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]: ...

    def initialise(
        self,
        x: Tensor,
        seconds: float | None = None,
        tell: Tell = silent,
        *,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Set initial parameters, or all parameters, from training rows `x: (n, d)` in model space.

        A search that may take long stops after about `seconds`, and `tell` gets sentences about its progress.
        A row of weight 2 in `weights: (n,)` counts as two rows; None stands for equal weights. Raises
        `ConfigurationError` for a wrong shape.
        """
        self._check(x, context)
        self._initialise(Rows(x, context, weights), seconds, tell)

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        """`initialise` for checked arguments; by default the parameters stay as they are."""

    @property
    def start(self) -> Mixture | None:
        """The Gaussian mixture of training rows that the untrained density equals, or None."""
        return None

    def variants(self) -> dict[str, Self]:
        """Copies of the density after `initialise`, itself among them, that are worth a trial, by name.

        Where it is unclear before training which suits the rows, the first is the one to take unheard. Empty
        if there is nothing to choose.
        """
        return {}

    def score(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Scores:
        """Log-densities of `x: (n, d)` in model space, given `context: (n, c)`, and their cost.

        `generator` draws the probes of a stochastic divergence estimator, if there is one. Raises
        `ConfigurationError` for a wrong shape and `IntegrationError` if a solve fails.
        """
        self._check(x, context)
        return self._score(x, context, generator)

    def log_prob(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Log-density of `x: (n, d)` in model space: `(n,)`, nats; raises as `score` does."""
        return self.score(x, generator, context=context).log_prob

    def draw(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Scores]:
        """Draw `n` rows `(n, d)` in model space, one for each row of `context: (n, c)`, with their scores.

        Raises as `score` does.
        """
        self._check_context(n, context)
        return self._draw(n, context, generator)

    def sample(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
        """Draw `n` rows `(n, d)` in model space, as `draw` does."""
        return self.draw(n, generator, context=context)[0]

    def sample_and_log_prob(
        self, n: int, generator: torch.Generator, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw `n` rows `(n, d)` and their log-densities `(n,)`, nats, model space, as `draw` does."""
        x, scores = self.draw(n, generator, context=context)
        return x, scores.log_prob

    def sample_for_each(self, m: int, generator: torch.Generator, *, context: Tensor) -> Tensor:
        """Draw `m` rows for each row of `context: (n, c)`, by common random numbers: `(n, m, d)`.

        Each context gets the same random numbers, so its draws do not depend on the other contexts, unless a
        solver shares its steps among rows. Those of a flow change smoothly with the context, if its map does.
        The draws of one context are not independent of one another, but each has its density. Raises as
        `score` does, and for `m` below 1.
        """
        self._check_context(len(context), context)
        if m < 1:
            raise ConfigurationError(f"at least one row is drawn for each context; got {m}")
        if not len(context):
            return context.new_zeros(0, m, self.features)
        return self._sample_for_each(m, context, generator)

    def _sample_for_each(self, m: int, context: Tensor, generator: torch.Generator) -> Tensor:
        each = zip(context, repeating(generator, len(context)), strict=True)
        return torch.stack([self._draw(m, own.expand(m, -1), same)[0] for own, same in each])

    def for_evaluation(
        self,
        integrator: options.PartOptions,
        *,
        divergence: options.PartOptions | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """A copy for likelihoods that are reported, in `dtype`.

        If it solves an ODE, it uses the options of `integrator`, and the exact divergence unless another is
        given.
        """
        density = copy.deepcopy(self).to(dtype).eval()
        return density.requires_grad_(False)

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ConfigurationError(f"rows must have shape (n, {self.features}); got {tuple(x.shape)}")
        self._check_context(len(x), context)

    def _check_context(self, n: int, context: Tensor | None) -> None:
        if not self.context_features:
            if context is not None:
                raise ConfigurationError("this density has no givens; leave `context` out")
            return
        if context is None:
            raise ConfigurationError(
                f"this density is conditional; give a `context` of shape (n, {self.context_features})"
            )
        if context.shape != (n, self.context_features):
            raise ConfigurationError(
                f"the context of {n} rows must have shape ({n}, {self.context_features}); "
                f"got {tuple(context.shape)}"
            )


class Flow(Density):
    """A density made by an invertible map between rows `x: (n, d)` and a standard normal base `z: (n, d)`.

    The map of a conditional flow depends on each row's context; the base does not. Subclasses implement the
    mathematics alone, in `_to_base` and `_to_data`.
    """

    @abstractmethod
    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped: ...

    @abstractmethod
    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped: ...

    def to_base(
        self, x: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Mapped:
        """Map data to base: `x: (n, d)` -> `z: (n, d)` with log|det dz/dx|; raises as `score` does."""
        self._check(x, context)
        return self._to_base(x, context, generator)

    def to_data(
        self, z: Tensor, generator: torch.Generator | None = None, *, context: Tensor | None = None
    ) -> Mapped:
        """Map base to data: `z: (n, d)` -> `x: (n, d)` with log|det dx/dz|; raises as `score` does."""
        self._check(z, context)
        return self._to_data(z, context, generator)

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        z = self.sample_base(n, generator)
        mapped = self._to_data(z, context, generator)
        return mapped.value, Scores(base_log_prob(z) - mapped.log_det, mapped.nfe, mapped.local_error)

    def _sample_for_each(self, m: int, context: Tensor, generator: torch.Generator) -> Tensor:
        z = self._latin_hypercube(m, generator).repeat(len(context), 1)
        mapped = self._to_data(z, context.repeat_interleave(m, 0), generator)
        return mapped.value.view(len(context), m, self.features)

    def _latin_hypercube(self, m: int, generator: torch.Generator) -> Tensor:
        """`m` points `(m, d)` of the base, one in each of m equally probable parts of each column's range.

        McKay, Beckman and Conover (1979). Each point is standard normal, and the mean over all of them of
        what depends on single columns has less variance than over independent points.
        """
        like = self.like
        place = torch.rand(
            2, m, self.features, generator=generator, dtype=torch.float64, device=generator.device
        )
        z: Tensor = torch.special.ndtri((place[0].argsort(0) + place[1].clamp(1e-9, 1 - 1e-9)) / m)
        return z.to(like)

    def sample_base(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` points `(n, d)` from the base."""
        like = self.like
        base = torch.randn(n, self.features, generator=generator, dtype=like.dtype, device=generator.device)
        return base.to(like.device)

    def trajectory(self, z: Tensor, times: Tensor, *, context: Tensor | None = None) -> Tensor | None:
        """Positions `(k, n, d)` at increasing `times: (k,)` in [0, 1] of base points `z: (n, d)`.

        None for a flow without a time axis.
        """
        return None

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        mapped = self._to_base(x, context, generator)
        log_prob = base_log_prob(mapped.value) + mapped.log_det
        return Scores(log_prob, mapped.nfe, mapped.local_error)


def repeating(generator: torch.Generator, times: int) -> Iterator[torch.Generator]:
    """`generator` so many `times`, always in the state that it has at first: common random numbers."""
    state = generator.get_state()
    for _ in range(times):
        generator.set_state(state)
        yield generator


def base_log_prob(z: Tensor) -> Tensor:
    """Log-density of the standard normal base at `z: (n, d)`: `(n,)`, nats."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
