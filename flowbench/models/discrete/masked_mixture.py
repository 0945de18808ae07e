"""A masked autoregressive network whose conditionals are mixtures of normals."""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Density, Scores
from flowbench.models.seeded_layers import global_seed
from flowbench.models.training_defaults import likelihood_phases
from flowbench.models.waves import Waves

#: The least standard deviation of a normal, in model space, so that no row gets an unbounded density.
LEAST_DEVIATION = 1e-4
#: That of the normals at the start, where the mixture has mean 0 and variance 1.
FIRST_DEVIATION = 0.5


class MADEOptions(options.PartOptions):
    """Each column has `components` normals, from a network with layers of `hidden` units.

    The network sees the columns themselves, and sines and cosines of them at `scales` octaves.
    """

    name: Literal["made"] = "made"
    components: PositiveInt = 16
    hidden: tuple[PositiveInt, ...] = (256, 256)
    scales: NonNegativeInt = 4


class MaskedMixture(Density):
    """p(x) = prod_i sum_k w_k N(x_i; m_k, s_k), with w, m and s of column i from the columns before it.

    One network gives the parameters of all columns in one pass: MADE (Germain et al. 2015) with mixtures, as
    in Papamakarios et al. (2017). Its masks let the parameters of a column depend on earlier columns and on
    the context alone. It has residual blocks, by zuko, and Fourier features of the columns as inputs. Drawing
    a row takes as many passes as there are columns.
    """

    Options: ClassVar[type[options.PartOptions]] = MADEOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(2e-3)
    is_static: ClassVar[bool] = True
    options: MADEOptions
    centres: Tensor

    def __init__(
        self,
        features: int,
        options: MADEOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        k = options.components
        self.waves = Waves(features, options.scales, 1, generator)
        with global_seed(generator):
            self.network = self._network()
        #: What the network's output is added to: logits, means and logarithms of deviations, (d, 3, k).
        self.offsets = nn.Parameter(torch.zeros(features, 3, k))
        centres = torch.special.ndtri((torch.arange(k, dtype=torch.float64) + 0.5) / k)
        self.first_deviation = FIRST_DEVIATION if k > 1 else 1.0
        if k > 1:
            centres *= ((1 - FIRST_DEVIATION**2) / centres.var(correction=0)).sqrt()
        self.register_buffer("centres", centres.float(), persistent=False)

    def _network(self) -> nn.Module | None:
        """The network from features and context to changes of the parameters; None if it has no input."""
        from zuko.nn import MaskedMLP

        d, c = self.features, self.context_features
        if d == 1 and not c:
            return None
        column = torch.cat([torch.arange(d).repeat(1 + self.waves.count // d), torch.full((c,), -1)])
        outputs = torch.arange(d).repeat_interleave(3 * self.options.components)
        network: nn.Module = MaskedMLP(
            outputs[:, None] > column, self.options.hidden, activation=nn.SiLU, residual=True
        )
        # The columns are independent and almost standard normal at the start.
        last = list(network.children())[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        return network

    def _normals(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and deviations, (n, d, k) each, of the normals of rows `x: (n, d)`."""
        raw = self.offsets.expand(len(x), -1, -1, -1)
        if self.network is not None:
            inputs = self.waves(x)
            inputs = inputs if context is None else torch.cat([inputs, context], 1)
            raw = raw + self.network(inputs).view(raw.shape)
        logits, moves, logs = raw.unbind(2)
        deviations = LEAST_DEVIATION + self.first_deviation * logs.exp()
        return logits.log_softmax(2), self.centres + moves, deviations

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        log_weights, means, deviations = self._normals(x, context)
        z = (x.unsqueeze(2) - means) / deviations
        each = log_weights - 0.5 * z.square() - deviations.log()
        return Scores((each.logsumexp(2) - 0.5 * math.log(2 * math.pi)).sum(1))

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        x = self._from_noise(*self._noise(n, generator), context)
        return x, self._score(x, context, None)

    def _sample_for_each(self, m: int, context: Tensor, generator: torch.Generator) -> Tensor:
        uniform, normal = (part.repeat(len(context), 1) for part in self._noise(m, generator))
        x = self._from_noise(uniform, normal, context.repeat_interleave(m, 0))
        return x.view(len(context), m, self.features)

    def _noise(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers `(n, d)` that choose the normals of `n` rows, uniform, and those that draw from them."""
        like, device = self.like, generator.device
        uniform = torch.rand(n, self.features, generator=generator, dtype=like.dtype, device=device)
        normal = torch.randn(n, self.features, generator=generator, dtype=like.dtype, device=device)
        return uniform.to(like.device), normal.to(like.device)

    def _from_noise(self, uniform: Tensor, normal: Tensor, context: Tensor | None) -> Tensor:
        """The rows `(n, d)` that `_noise` stands for, column by column."""
        x = torch.zeros_like(normal)
        for i in range(self.features):
            log_weights, means, deviations = (part[:, i] for part in self._normals(x, context))
            passed = log_weights.exp().cumsum(1)[:, :-1] < uniform[:, i, None]
            chosen = passed.sum(1, keepdim=True)
            drawn = means.gather(1, chosen) + deviations.gather(1, chosen) * normal[:, i, None]
            x = torch.cat([x[:, :i], drawn, x[:, i + 1 :]], 1)
        return x
