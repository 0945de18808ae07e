"""Divergence of a velocity field: exact, or estimated from random probes that a solve keeps fixed."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.ode.integrator import Velocity

#: The most numbers in the tangents that one product takes, if no gradient is needed. A layer ten times as
#: wide as the rows then holds 0.7 GB of them.
TANGENT_NUMBERS = 2**23


class DivergenceEstimator(ABC):
    """tr(dv/dx) for each row; `exact` says whether it is free of probe noise.

    An integrator needs one function of (t, x) per solve. So call `draw` once before the solve, and pass the
    probes to every `velocity_and_divergence` in it. Probes are constants of the rows: a row that leaves the
    solve takes its own along.
    """

    Options: ClassVar[type[options.PartOptions]]
    exact: ClassVar[bool]
    options: options.Options

    @abstractmethod
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Probes (n, k, d) for the rows `x` (n, d), of the same dtype and device; None if none are needed.

        Raises `ConfigurationError` if probes are needed and there is no `generator`.
        """

    @abstractmethod
    def velocity_and_divergence(
        self,
        field: Velocity,
        t: Tensor,
        x: Tensor,
        probes: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n,) at `t`, () or (n,), and `x` (n, d), given `context`.

        `probes` (n, k, d) and `context` (n, c) are those of the same rows.
        """

    @abstractmethod
    def describe(self, field: Velocity) -> str:
        """How the divergence of `field` is computed, in words."""

    def chosen(self, field: Velocity) -> "DivergenceEstimator":
        """The estimator that is used for `field`: itself, unless it chooses among several."""
        return self


class ExactDivergenceOptions(options.PartOptions):
    """The exact divergence has no options."""

    name: Literal["exact"] = "exact"


class ExactDivergence(DivergenceEstimator):
    """The field's closed form if it has one, else Jacobian-vector products with the d basis vectors."""

    Options: ClassVar[type[options.PartOptions]] = ExactDivergenceOptions
    exact: ClassVar[bool] = True

    def __init__(self, options: ExactDivergenceOptions) -> None:
        self.options = options

    def draw(self, x: Tensor, generator: torch.Generator | None) -> None:
        """Nothing is drawn."""

    def velocity_and_divergence(
        self,
        field: Velocity,
        t: Tensor,
        x: Tensor,
        probes: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `DivergenceEstimator`; `probes` is not used."""
        if field.has_closed_form_divergence:
            return field.velocity_and_divergence(t, x, context)
        rows, features = x.shape
        basis = torch.eye(features, dtype=x.dtype, device=x.device)
        # With gradients all products are kept in memory anyway, so they are taken at once.
        most = features if torch.is_grad_enabled() else max(1, TANGENT_NUMBERS // max(1, x.numel()))
        divergence = x.new_zeros(rows)
        for first, part in zip(range(0, features, most), torch.split(basis, most), strict=True):
            velocity, columns = field.jvp(t, x, part[:, None].expand(len(part), rows, features), context)
            # The i-th entry of the product with basis vector i.
            divergence = divergence + columns[..., first:].diagonal(dim1=0, dim2=2).sum(-1)
        return velocity, divergence

    def describe(self, field: Velocity) -> str:
        """See `DivergenceEstimator`."""
        if field.has_closed_form_divergence:
            return "exact, in closed form"
        return f"exact, by {field.features} tangents"


class HutchinsonOptions(options.PartOptions):
    """The `distribution` of the probes, and how many `probes` are averaged."""

    name: Literal["hutchinson"] = "hutchinson"
    distribution: Literal["rademacher", "gaussian"] = "rademacher"
    probes: int = Field(1, ge=1)


class Hutchinson(DivergenceEstimator):
    """The mean of e^T J e over random probes e with unit covariance (Hutchinson 1990).

    It is unbiased. With S the symmetric part of J, its variance is 2 (|S|_F^2 - sum_i J_ii^2) for Rademacher
    probes, which is less than the 2 |S|_F^2 for Gaussian ones.
    """

    Options: ClassVar[type[options.PartOptions]] = HutchinsonOptions
    exact: ClassVar[bool] = False

    def __init__(self, options: HutchinsonOptions) -> None:
        self.options: HutchinsonOptions = options

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `DivergenceEstimator`; k is the option `probes`."""
        generator = _seeded(generator, self.options.name)
        draw = _rademacher if self.options.distribution == "rademacher" else _gaussian
        return draw(self.options.probes, x, generator).transpose(0, 1)

    def velocity_and_divergence(
        self,
        field: Velocity,
        t: Tensor,
        x: Tensor,
        probes: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `DivergenceEstimator`."""
        tangents = as_tangents(_required(probes))
        velocity, pushed = field.jvp(t, x, tangents, context)
        return velocity, (tangents * pushed).sum(-1).mean(0)

    def describe(self, field: Velocity) -> str:
        """See `DivergenceEstimator`."""
        probes = f"{self.options.probes} {self.options.distribution} probe" + "s" * (self.options.probes > 1)
        return f"estimated, by {probes} of Hutchinson"


class HutchPlusPlusOptions(options.PartOptions):
    """`probes` is the number of Jacobian-vector products per evaluation.

    A third each goes to the sketch, to the basis of its span and to the remainder.
    """

    name: Literal["hutch++"] = "hutch++"
    probes: int = Field(6, ge=3)


class HutchPlusPlus(DivergenceEstimator):
    """Hutch++ (Meyer, Musco, Musco and Woodruff 2021).

    S is a random sketch, Q an orthonormal basis of the span of J S, and P = I - Q Q^T. Then tr J = tr(Q^T J
    Q) + tr(P J P). The first term is computed, and the second is estimated as by Hutchinson. Q is held
    constant in gradients. Since the identity holds for any Q, both the value and its gradient stay unbiased.
    The trace is exact if the sketch has d columns or more.
    """

    Options: ClassVar[type[options.PartOptions]] = HutchPlusPlusOptions
    exact: ClassVar[bool] = False

    def __init__(self, options: HutchPlusPlusOptions) -> None:
        self.options: HutchPlusPlusOptions = options

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """See `DivergenceEstimator`: Gaussian probes for the sketch, Rademacher probes for the remainder."""
        generator = _seeded(generator, self.options.name)
        sketch = _gaussian(self._sketch_size, x, generator)
        rest = _rademacher(self.options.probes - 2 * self._sketch_size, x, generator)
        return torch.cat([sketch, rest]).transpose(0, 1)

    def velocity_and_divergence(
        self,
        field: Velocity,
        t: Tensor,
        x: Tensor,
        probes: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `DivergenceEstimator`."""
        sketch, rest = as_tangents(_required(probes)).tensor_split([self._sketch_size])
        with torch.no_grad():
            _, image = field.jvp(t, x, sketch, context)
            span = torch.linalg.qr(image.permute(1, 2, 0)).Q.permute(2, 0, 1)
            inside = torch.einsum("qnd,gnd->gqn", span, rest)
            outside = rest - torch.einsum("qnd,gqn->gnd", span, inside)
        velocity, pushed = field.jvp(t, x, torch.cat([span, outside]), context)
        in_span, off_span = pushed.tensor_split([len(span)])
        return velocity, (span * in_span).sum((0, 2)) + (outside * off_span).sum(-1).mean(0)

    def describe(self, field: Velocity) -> str:
        """See `DivergenceEstimator`."""
        return f"estimated, by {self.options.probes} products of Hutch++"

    @property
    def _sketch_size(self) -> int:
        return self.options.probes // 3


class AutoDivergenceOptions(options.PartOptions):
    """Without a closed form, the divergence is exact for up to this many `columns`."""

    name: Literal["auto"] = "auto"
    columns: int = Field(64, ge=1)


class AutoDivergence:
    """A choice by the field: the exact divergence if it is affordable, else Hutchinson's with one probe.

    It is affordable with a closed form, or with at most `columns` columns. Each column takes a
    Jacobian-vector product, whose intermediate values are kept for gradients in every layer. So memory runs
    out before time does.
    """

    Options: ClassVar[type[options.PartOptions]] = AutoDivergenceOptions

    def __init__(self, options: AutoDivergenceOptions) -> None:
        self.options = options

    def chosen(self, field: Velocity) -> DivergenceEstimator:
        """See `DivergenceEstimator`."""
        if field.has_closed_form_divergence or field.features <= self.options.columns:
            return ExactDivergence(ExactDivergenceOptions())
        return Hutchinson(HutchinsonOptions())


def as_tangents(probes: Tensor) -> Tensor:
    """Probes (n, k, d) as the tangents (k, n, d) of `Velocity.jvp`."""
    return probes.transpose(0, 1)


def _rademacher(count: int, x: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, (count, *x.shape), generator=generator, device=generator.device)
    return (2 * signs - 1).to(x)


def _gaussian(count: int, x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn((count, *x.shape), generator=generator, dtype=x.dtype, device=generator.device).to(x)


def _seeded(generator: torch.Generator | None, name: str) -> torch.Generator:
    if generator is None:
        raise ConfigurationError(
            f"the divergence estimator `{name}` draws random probes and needs a generator; "
            "pass one, or use the divergence `exact`"
        )
    return generator


def _required(probes: Tensor | None) -> Tensor:
    if probes is None:
        raise TypeError("this divergence estimator needs the probes that `draw` returned")
    return probes
