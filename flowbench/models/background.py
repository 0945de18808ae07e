"""A broad density mixed into a flow's, so that one row off the data cannot cost more than it is worth."""

import math

import torch
from torch import Tensor, nn

from flowbench.models.density import base_log_prob
from flowbench.models.mixture import Mixture

#: Rows that are counted in advance for the mixture, and for the flow, when a share is chosen.
COUNTED = 0.5
#: The same for the standard normal: its draws lie off the data, so it gets less unless rows ask for it.
NORMAL_COUNTED = 0.05
#: How often either share is chosen given the other.
TURNS = 5


class Background(nn.Module):
    """p = (1 - b) ((1 - a) p_flow + a q) + b N(0, I) with q a Gaussian mixture of the train rows.

    All in model space, given the context where there is one; a is `share` and b `normal_share`. A sharp flow
    gives a row off its ridge thousands of nats, and one such row decides a mean. Both are defensive
    (Hesterberg 1995): no row's log-density is below log(a (1 - b)) + log q, and they cost -log((1 - a) (1 -
    b)) at most. The standard normal is broad, as columns have unit variance there, and holds rows that the
    mixture leaves empty.
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
        """The share of the density that is not the flow's."""
        return 1 - ((1 - self.share) * (1 - self.normal_share)).item()

    def weigh(self, flow: Tensor, x: Tensor, context: Tensor | None = None) -> None:
        """Take the shares that suit held-out rows `x: (n, d)`, of which the flow says `flow: (n,)`."""
        shares = self.best_shares(flow, x, context)
        for own, best in zip((self.share, self.normal_share), shares, strict=True):
            own.fill_(best)

    def best_shares(self, flow: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[float, float]:
        """`share` and `normal_share` for rows `x: (n, d)` whose log-densities under the flow are `flow`."""
        flow, mixture, normal = self._parts(flow, x, context)
        share = normal_share = flow.new_zeros(())
        # Each in turn, as the other is: a row that the normal holds is none for the mixture to hold.
        for _ in range(TURNS):
            first, second = (_join(part, normal, normal_share) for part in (flow, mixture))
            share = flow.new_tensor(best_share(first, second, COUNTED))
            normal_share = flow.new_tensor(best_share(_join(flow, mixture, share), normal, NORMAL_COUNTED))
        return share.item(), normal_share.item()

    def mix(
        self,
        flow: Tensor,
        x: Tensor,
        shares: tuple[float, float] | None = None,
        *,
        context: Tensor | None = None,
    ) -> Tensor:
        """The log-density `(n,)`, float64, of `x: (n, d)`, of which the flow says `flow: (n,)`.

        At the background's own shares, unless other `shares` are given.
        """
        flow, mixture, normal = self._parts(flow, x, context)
        own = self.share, self.normal_share
        share, normal_share = own if shares is None else map(self.share.new_tensor, shares)
        return _join(_join(flow, mixture, share), normal, normal_share)

    def flow_share(self, flow: Tensor, mixed: Tensor) -> Tensor:
        """The flow's part `(n,)` of the density of rows whose log-densities are `flow` and `mixed: (n,)`."""
        kept = torch.log1p(-self.share) + torch.log1p(-self.normal_share)
        return (kept + flow.double() - mixed).exp()

    def draw(
        self, n: int, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Which of `n` rows are the background's, `(n,)`, true for them, and those rows `(k, d)`."""
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


def best_share(first: Tensor, second: Tensor, counted: float) -> float:
    """The share of the `second` of two densities in their mixture, from both log-densities `(n,)` of rows.

    The mode of the posterior that `COUNTED` rows for the first and `counted` for the second make of the
    likelihood, which is concave.
    """
    excess = (second - first).clamp(-700, 700).expm1()

    def slope(share: float) -> float:
        rows = (excess / (1 + share * excess)).sum().item()
        return rows + counted / share - COUNTED / (1 - share)

    low, high = math.log(1e-9), 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp(low)


def _join(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The log-density (n,) of a mixture of two, in which the second has `share`."""
    return torch.logaddexp(torch.log1p(-share) + first, share.log() + second)
