"""The velocity that carries a standard normal to a fitted Gaussian mixture, in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor

from flowbench.models.mixture import Mixture


class MixtureDrift(Mixture):
    """u(t, x) = sum_k r_k(t, x) u_k(t, x): flow matching's exact solution for a Gaussian mixture.

    The path is x_t = (1 - t) x_0 + t x_1, with x_0 standard normal and x_1 from sum_k w_k N(m_k, S_k). At
    time t component k is N(t m_k, C_k), with C_k = t^2 S_k + (1 - t)^2 I. r_k is the posterior probability of
    component k. u_k = m_k + (t S_k - (1 - t) I) C_k^-1 (x - t m_k) is the velocity of component k alone
    (Lipman et al. 2023, theorem 3). The flow of u has the density of the mixture at t = 1. A network that
    starts at zero and is added to u therefore starts from the mixture's likelihood.

    Given a context, the weights and means are those of the conditional mixture, one set for each row.

    A new drift has no components. The data are then taken to be standard normal: u = (2t - 1) / s^2 x, with
    s^2 = t^2 + (1 - t)^2.
    """

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (n, d) at times `t: (m, 1)`, m = 1 or n, and `x: (n, d)`, given `context: (n, c)`."""
        if not len(self.means):
            return _standard_rate(t) * x
        return self._at(t, x, context).velocity

    def jvp(
        self, t: Tensor, x: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its Jacobian times each of the `tangents` (k, n, d), (k, n, d)."""
        if not len(self.means):
            return _standard_rate(t) * x, _standard_rate(t) * tangents
        at = self._at(t, x, context)
        turned = _into_axes(tangents, at.axes)
        bent = at.rates * turned + at.own * (at.score * turned).sum(-1, keepdim=True)
        pushed = _out_of_axes(at.shares.unsqueeze(-1) * bent, at.axes)
        return at.velocity, pushed - at.velocity * (at.mean_score * tangents).sum(-1, keepdim=True)

    def velocity_and_divergence(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity (n, d) and its divergence (n, 1)."""
        if not len(self.means):
            rate = _standard_rate(t)
            return rate * x, (self.features * rate).expand(len(x), 1)
        at = self._at(t, x, context)
        own = at.shares * (at.rates + at.own * at.score).sum(-1)
        return at.velocity, own.sum(1, keepdim=True) - (at.velocity * at.mean_score).sum(1, keepdim=True)

    def _at(self, t: Tensor, x: Tensor, context: Tensor | None) -> "_Components":
        t = t.unsqueeze(-1)
        log_weights, means, own_variances, axes = self.components(x, context)
        variances = t.square() * own_variances + (1 - t).square()
        rates = (t * own_variances - (1 - t)) / variances
        centres = torch.einsum("...kd,kde->...ke", means, axes)
        offset = _into_axes(x, axes) - t * centres
        score = -offset / variances
        log_shares = log_weights - 0.5 * (variances.log() - offset * score).sum(-1)
        shares = torch.softmax(log_shares, -1)
        own = centres + rates * offset
        velocity = _out_of_axes(shares.unsqueeze(-1) * own, axes)
        mean_score = _out_of_axes(shares.unsqueeze(-1) * score, axes)
        return _Components(axes, shares, rates, score, own, velocity, mean_score)


class _Components(NamedTuple):
    """The components of the mixture at given times and rows.

    Per component: the principal `axes` (k, d, d), the posterior probabilities `shares` (n, k), and (n, k, d)
    vectors in these axes. The vectors are the `rates` of growth along the axes, the `score` and the velocity
    (`own`). For the whole mixture, in the original axes: its `velocity` and its `mean_score`, (n, d) each.
    """

    axes: Tensor
    shares: Tensor
    rates: Tensor
    score: Tensor
    own: Tensor
    velocity: Tensor
    mean_score: Tensor


def _into_axes(vectors: Tensor, axes: Tensor) -> Tensor:
    """`vectors: (..., d)` in the coordinates of each component's principal `axes: (k, d, d)`, (..., k, d)."""
    flat = axes.permute(1, 0, 2).flatten(1)
    return (vectors @ flat).reshape(*vectors.shape[:-1], *axes.shape[:2])


def _out_of_axes(turned: Tensor, axes: Tensor) -> Tensor:
    """The sum (..., d) over components of vectors (..., k, d) given in their `axes: (k, d, d)`."""
    return turned.flatten(-2) @ axes.permute(0, 2, 1).flatten(0, 1)


def _standard_rate(t: Tensor) -> Tensor:
    return (2 * t - 1) / (t.square() + (1 - t).square())
