"""A broad density mixed with a flow's, so that a row far from the data cannot dominate a mean."""

import math

import torch
from torch import Tensor, nn

from flowbench.models.density import base_log_prob
from flowbench.models.mixture import Mixture

#: Prior count of rows for the mixture, and for the flow, when a share is chosen.
COUNTED = 0.5
#: Prior count of rows for the standard normal. It is smaller, since most draws of the normal lie far from the
#: data.
NORMAL_COUNTED = 0.05
#: Number of alternations in which each share is chosen given the other.
TURNS = 5


class Background(nn.Module):
    """Two broad densities mixed with a flow: p = (1 - b) ((1 - a) p_flow + a q) + b N(0, I).

    q is a Gaussian mixture of the training rows, a is `share` and b is `normal_share`. All densities are in
    model space, and given the context if there is one.

    A sharp flow can give a row off its ridge a log-density that is thousands of nats too low. One such row
    then decides a mean. This defensive mixture (Hesterberg 1995) bounds the loss: no row's log-density is
    below log(a (1 - b)) + log q. It lowers no row's log-density by more than -log((1 - a) (1 - b)). The
    standard normal is broad, since columns have unit variance in model space. It covers rows where the
    mixture has next to no density.
    """

    share: Tensor
    normal_share: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.mixture = Mixture(features, context_features)
        self.register_buffer("share", torch.tensor(1e-3, dtype=torch.float64))
        self.register_buffer("normal_share", torch.tensor(1e-4, dtype=torch.float64))

    @property
    def whole_share(self) -> float:
        """The share of the density that is not the flow's, 1 - (1 - a) (1 - b)."""
        return 1 - ((1 - self.share) * (1 - self.normal_share)).item()

    def weigh(
        self, flow: Tensor, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Set the shares by held-out rows `x: (n, d)` with log-densities `flow: (n,)` under the flow."""
        shares = self.best_shares(flow, x, context, weights)
        for own, best in zip((self.share, self.normal_share), shares, strict=True):
            own.fill_(best)

    def best_shares(
        self, flow: Tensor, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[float, float]:
        """`share` and `normal_share` for rows `x: (n, d)` with log-densities `flow: (n,)` under the flow.

        The rows count by their `weights: (n,)`, together as much as their effective number.
        """
        flow, mixture, normal = self._parts(flow, x, context)
        counts = _counts(weights)
        share = normal_share = flow.new_zeros(())
        # The shares are chosen in turn, each given the other: a row that one density covers needs no share of
        # the other.
        for _ in range(TURNS):
            first, second = (_join(part, normal, normal_share) for part in (flow, mixture))
            share = flow.new_tensor(best_share(first, second, COUNTED, counts))
            either = _join(flow, mixture, share)
            normal_share = flow.new_tensor(best_share(either, normal, NORMAL_COUNTED, counts))
        return share.item(), normal_share.item()

    def mix(
        self,
        flow: Tensor,
        x: Tensor,
        shares: tuple[float, float] | None = None,
        *,
        context: Tensor | None = None,
    ) -> Tensor:
        """The log-density `(n,)`, float64, of `x: (n, d)` with log-densities `flow: (n,)` under the flow.

        The background's own shares are used unless `shares` are given.
        """
        flow, mixture, normal = self._parts(flow, x, context)
        own = self.share, self.normal_share
        share, normal_share = own if shares is None else map(self.share.new_tensor, shares)
        return _join(_join(flow, mixture, share), normal, normal_share)

    def flow_share(self, flow: Tensor, mixed: Tensor) -> Tensor:
        """The posterior probability `(n,)` that rows come from the flow.

        `flow: (n,)` are the log-densities of the rows under the flow, and `mixed: (n,)` those of `mix`.
        """
        kept = torch.log1p(-self.share) + torch.log1p(-self.normal_share)
        return (kept + flow.double() - mixed).exp()

    def draw(
        self, n: int, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A mask `(n,)` of which of `n` draws come from the background, and these draws `(k, d)`."""
        place = torch.rand(n, generator=generator, dtype=torch.float64)
        normal = place < self.normal_share
        mixed = ~normal & (place < self.normal_share + (1 - self.normal_share) * self.share)
        drawn = self.mixture.means.new_empty(n, self.mixture.features)
        given = None if context is None else context[mixed]
        drawn[mixed] = self.mixture.sample(int(mixed.sum()), generator, given)
        drawn[normal] = torch.randn(drawn[normal].shape, generator=generator).to(drawn)
        chosen = normal | mixed
        return chosen, drawn[chosen]

    def _parts(self, flow: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The log-densities (n,) of `x: (n, d)` under the flow, the mixture and the normal, float64."""
        x = x.double()
        return flow.double(), self.mixture.log_prob(x, context), base_log_prob(x)


def best_share(first: Tensor, second: Tensor, counted: float, counts: Tensor | None = None) -> float:
    """The share of the `second` of two densities in their mixture, from log-densities `(n,)` of rows.

    Each row counts once, or as `counts: (n,)` says.

    It is the mode of the posterior under a beta prior with `COUNTED` prior rows for the first density and
    `counted` for the second. The log-posterior is concave.
    """
    excess = (second - first).clamp(-700, 700).expm1()

    def slope(share: float) -> float:
        each = excess / (1 + share * excess)
        rows = (each if counts is None else counts * each).sum().item()
        return rows + counted / share - COUNTED / (1 - share)

    low, high = math.log(1e-9), 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp(low)


def _counts(weights: Tensor | None) -> Tensor | None:
    """How much rows of these `weights: (n,)` count: in proportion, and together their effective number."""
    if weights is None:
        return None
    wide = weights.double()
    return wide * (wide.sum() / wide.square().sum())


def _join(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The log-density (n,) of a mixture of two densities, in which the second has the weight `share`."""
    return torch.logaddexp(torch.log1p(-share) + first, share.log() + second)
