"""A broad density mixed into a flow's, so that one row off the data cannot cost more than it is worth."""

import math

import torch
from torch import Tensor, nn

from flowbench.fields.mixture import Mixture

#: Share of the background that a standard normal keeps, whatever the mixture leaves empty.
NORMAL_SHARE = 0.1


class Background(nn.Module):
    """p = (1 - `share`) p_flow + `share` q with q a Gaussian mixture of the train rows, in model space.

    A sharp flow gives a row off its ridge thousands of nats, and one such row decides a mean. The mixture is
    defensive (Hesterberg 1995): no row's log-density is below log(share) + log q, and where the flow is right
    it costs -log(1 - share) at most. q also holds `NORMAL_SHARE` of a standard normal, since that is what the
    transforms make of every column.
    """

    share: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mixture = Mixture(features)
        self.register_buffer("share", torch.tensor(1e-3, dtype=torch.float64))

    def fit(self, x: Tensor) -> None:
        """Take the mixture of train rows `x: (n, d)` in model space."""
        self.mixture.fit(x)
        self.mixture.add_standard_normal(NORMAL_SHARE)

    def weigh(self, flow: Tensor, x: Tensor) -> None:
        """Take the share that suits held-out rows `x: (n, d)`, of which the flow says `flow: (n,)`."""
        self.share.fill_(self.best_share(flow, x))

    def best_share(self, flow: Tensor, x: Tensor) -> float:
        """The share that suits rows `x: (n, d)` whose log-densities under the flow are `flow: (n,)`.

        The mode of the posterior that half a row for either side makes of the likelihood, which is concave.
        """
        excess = (self.mixture.log_prob(x.double()) - flow.double()).clamp(-700, 700).expm1()

        def slope(share: float) -> float:
            return (excess / (1 + share * excess)).sum().item() + 0.5 / share - 0.5 / (1 - share)

        low, high = math.log(1e-9), 0.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
        return math.exp(low)

    def mix(self, flow: Tensor, x: Tensor, share: float | None = None) -> Tensor:
        """The log-density `(n,)`, float64, of `x: (n, d)`, of which the flow says `flow: (n,)`.

        At the background's own share, unless another `share` is given.
        """
        weight = self.share if share is None else self.share.new_tensor(share)
        return torch.logaddexp(
            torch.log1p(-weight) + flow.double(), weight.log() + self.mixture.log_prob(x.double())
        )

    def flow_share(self, flow: Tensor, mixed: Tensor) -> Tensor:
        """The flow's part `(n,)` of the density of rows whose log-densities are `flow` and `mixed: (n,)`."""
        return (torch.log1p(-self.share) + flow.double() - mixed).exp()

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of `n` rows are the background's, `(n,)`, true for them, and those rows `(k, d)`."""
        chosen = torch.rand(n, generator=generator, dtype=torch.float64) < self.share
        return chosen, self.mixture.sample(int(chosen.sum()), generator)
