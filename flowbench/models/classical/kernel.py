"""A kernel density estimate whose bandwidth is chosen by likelihood."""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.models.density import Density, Scores
from flowbench.models.growing import GrowingBuffers
from flowbench.models.rows import Rows
from flowbench.statistics.gaussian_mixtures import Tell

Floats = NDArray[np.float64]

#: Number of rows whose leave-one-out likelihood chooses the bandwidths.
JUDGES = 500
#: The largest number of pairs of rows in memory at once.
PAIRS = 2**20


class KernelOptions(options.PartOptions):
    """At most `max_rows` training rows are kept, each as the centre of a kernel."""

    name: Literal["kde"] = "kde"
    max_rows: int = Field(default=20_000, ge=2)


class KernelDensity(GrowingBuffers, Density):
    """The mean of Gaussians centred on the training rows, all with the covariance L L'.

    L is a bandwidth times either the identity or the Cholesky factor of the rows' covariance. The choice of
    the two has the higher leave-one-out likelihood: that of each row under the kernels of all others (Duin
    1976).

    A conditional estimate weights the kernel of each training row by a Gaussian of the distance between its
    context and the given one (Rosenblatt 1969). Both bandwidths are chosen together, by the leave-one-out
    conditional likelihood (Hall, Racine and Li 2004).

    Kernels of rows that have weights count by these, and so do the rows that choose the bandwidths.
    """

    Options: ClassVar[type[options.PartOptions]] = KernelOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ()
    options: KernelOptions
    #: The training rows in units of the kernel, L^-1 x, (n, d).
    rows: Tensor
    #: The logarithms of the kernels' weights, whose scale does not matter, (n,).
    log_weights: Tensor
    #: L, (d, d).
    factor: Tensor
    #: The training rows' contexts in units of their bandwidth, (n, c).
    context_rows: Tensor
    #: The bandwidth of contexts, ().
    context_width: Tensor

    def __init__(
        self,
        features: int,
        options: KernelOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.growing = ("rows", "log_weights")
        self.register_buffer("rows", torch.zeros(0, features))
        self.register_buffer("log_weights", torch.zeros(0))
        self.register_buffer("factor", torch.eye(features))
        if context_features:
            self.growing = ("rows", "log_weights", "context_rows")
            self.register_buffer("context_rows", torch.zeros(0, context_features))
            self.register_buffer("context_width", torch.ones(()))

    @property
    def parameter_count(self) -> int:
        """The numbers in the rows that are kept and in their contexts, and one for each bandwidth."""
        return sum(getattr(self, name).numel() + 1 for name in self.growing if name != "log_weights")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rows = state_dict.get(prefix + "rows")
        if isinstance(rows, Tensor) and rows.ndim:
            # Runs from before there were any.
            state_dict.setdefault(prefix + "log_weights", rows.new_zeros(len(rows)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        few = rows[: self.options.max_rows].each(Tensor.double)
        x, given = few.x, few.context
        log_weights = x.new_zeros(len(x)) if few.weights is None else few.weights.log()
        unit = torch.eye(self.features, dtype=x.dtype, device=x.device)
        covariance = x.T.cov(aweights=log_weights.exp()).reshape(unit.shape)
        # The covariance of columns that determine one another is singular, so a small multiple of the
        # identity is added.
        shapes = [unit, torch.linalg.cholesky(covariance + 1e-6 * covariance.diagonal().mean() * unit)]
        found = [_choose_widths(x, shape, given, log_weights) for shape in shapes]
        chosen, shape = max(zip(found, shapes, strict=True), key=lambda pair: pair[0].likelihood)
        factor = chosen.width * shape
        self.register_buffer("factor", factor.to(self.factor))
        self.register_buffer("rows", _in_units(x, factor).to(self.rows))
        self.register_buffer("log_weights", log_weights.to(self.log_weights))
        if given is not None:
            self.register_buffer("context_rows", (given / chosen.context_width).to(self.context_rows))
            self.context_width.fill_(chosen.context_width)

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        offset = self.factor.diagonal().log().sum() + self.features / 2 * math.log(2 * math.pi)
        most = max(1, PAIRS // len(self.rows))
        parts = torch.split(_in_units(x, self.factor), most)
        if context is None:
            shares = self.log_weights.double().log_softmax(0)
            found = torch.cat([(_exponents(part, self.rows) + shares).logsumexp(1) for part in parts])
            return Scores(found.to(x) - offset)
        log_weights = map(self._log_weights, torch.split(context, most))
        found = torch.cat(
            [
                (_exponents(part, self.rows) + weights).logsumexp(1)
                for part, weights in zip(parts, log_weights, strict=True)
            ]
        )
        return Scores(found.to(x) - offset)

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        if context is None:
            shares = self.log_weights.double().exp().cpu()
            chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
        else:
            weights = map(self._log_weights, torch.split(context, max(1, PAIRS // len(self.rows))))
            drawn = [torch.multinomial(part.exp().cpu(), 1, generator=generator) for part in weights]
            chosen = torch.cat(drawn).squeeze(1) if drawn else torch.zeros(0, dtype=torch.int64)
        noise = torch.randn(n, self.features, generator=generator, dtype=self.rows.dtype)
        x = (self.rows[chosen] + noise.to(self.rows)) @ self.factor.T
        return x, self._score(x, context, None)

    def _log_weights(self, context: Tensor) -> Tensor:
        """The log-weights (m, n) of the training rows' kernels given `context: (m, c)`, float64."""
        near = _exponents(context / self.context_width, self.context_rows)
        return (near + self.log_weights.double()).log_softmax(1)


def _in_units(x: Tensor, factor: Tensor) -> Tensor:
    units: Tensor = torch.linalg.solve_triangular(factor, x.T, upper=False)
    return units.T.contiguous()


def _exponents(x: Tensor, rows: Tensor) -> Tensor:
    """-|x - row|^2 / 2 for all pairs, (m, n), float64."""
    # Centred and in float64, since the squares of rows far from zero cancel here.
    middle = rows.double().mean(0)
    x, rows = x.double() - middle, rows.double() - middle
    halves = -0.5 * rows.square().sum(1)
    return torch.addmm(halves, x, rows.T) - 0.5 * x.square().sum(1, keepdim=True)


class _Widths(NamedTuple):
    """The bandwidths of rows and of contexts, and the leave-one-out log-likelihood that they reach."""

    width: float
    context_width: float
    likelihood: float


def _choose_widths(
    x: Tensor, shape: Tensor, context: Tensor | None, log_weights: Tensor | None = None
) -> _Widths:
    """The bandwidths of kernels of this `shape` with the highest leave-one-out likelihood.

    `context: (n, c)` belongs to the rows `x: (n, d)`. Without it only the rows' own bandwidth is chosen.
    `log_weights: (n,)` are the logarithms of the rows' weights, equal ones if None.
    """
    from scipy.optimize import minimize, minimize_scalar

    log_weights = x.new_zeros(len(x)) if log_weights is None else log_weights
    rows = _in_units(x, shape)
    judges = torch.arange(min(JUDGES, len(x)))
    pairs = _exponents(rows[judges], rows)
    pairs[judges, judges] = -torch.inf
    # The logarithm of what all rows but the judge weigh, (m,), and the judges' shares among themselves.
    others = torch.where(pairs.isneginf(), -torch.inf, log_weights).logsumexp(1)
    counts = log_weights[judges].softmax(0)
    volume = shape.diagonal().log().sum().item() + x.shape[1] / 2 * math.log(2 * math.pi)
    bounds = math.log(3e-3), math.log(3.0)

    def own(log_width: float) -> Tensor:
        return pairs * math.exp(-2 * log_width)

    def loss(log_width: float, found: Tensor) -> float:
        return volume + x.shape[1] * log_width - (counts @ found).item()

    if context is None:
        result = minimize_scalar(
            lambda log_width: loss(log_width, (own(log_width) + log_weights).logsumexp(1) - others),
            bounds=bounds,
            method="bounded",
        )
        return _Widths(math.exp(result.x), 1.0, -float(result.fun))
    apart = _exponents(context[judges], context)
    apart[judges, judges] = -torch.inf

    def conditional(log_widths: Floats) -> float:
        near = (apart * math.exp(-2 * float(log_widths[1])) + log_weights).log_softmax(1)
        return loss(float(log_widths[0]), (own(float(log_widths[0])) + near).logsumexp(1))

    # The loss has several minima. In one of them an uninformative context has a very large bandwidth.
    starts = [np.log([width, reach]) for width in (0.1, 0.3) for reach in (0.1, 0.3, 1.0, 10.0)]
    start = min(starts, key=conditional)
    best = minimize(
        conditional,
        start,
        method="Nelder-Mead",
        bounds=[bounds, (bounds[0], math.log(100.0))],
        options={"maxfev": 60, "xatol": 0.01, "fatol": 1e-4},
    )
    width, context_width = np.exp(best.x).tolist()
    return _Widths(width, context_width, -float(best.fun))
