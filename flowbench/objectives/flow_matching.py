"""Flow matching (Lipman et al. 2023), with a choice of path and of coupling."""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.objectives.coupling import optimal_transport
from flowbench.objectives.objective import DensityObjective, LossTerms
from flowbench.objectives.paths import PATHS, PathName

#: With antithetic pairs, the share of late times whose depth is drawn uniformly. The density of the others
#: falls linearly to zero towards the data.
EVEN_SHARE = 0.1


class FlowMatchingOptions(options.PartOptions):
    """How times, pairs of base and data, and the paths between them are drawn.

    A share `late_share` of the times lies close to the data, with 1 - t log-uniform in [`latest`, 1].
    `coupling` pairs base and data at random, or by optimal transport within sub-batches of `coupling_size`
    rows. The time of optimal transport grows with the cube of that size. `path` leads from base to data.
    `antithetic` takes each row twice, with a draw x_0 from the base and with its mirror image -x_0.
    """

    name: Literal["flow-matching"] = "flow-matching"
    late_share: float = Field(default=0.9, ge=0, le=1)
    latest: float = Field(default=1e-3, gt=0, lt=1)
    path: PathName = "linear"
    coupling: Literal["independent", "minibatch-ot"] = "independent"
    coupling_size: int = Field(default=128, ge=2)
    antithetic: bool = False

    @model_validator(mode="after")
    def _mirror_images_are_independent(self) -> Self:
        if self.antithetic and self.coupling != "independent":
            raise ValueError(
                f'`antithetic` needs coupling "independent": under "{self.coupling}" a mirror image is no '
                "partner of its row"
            )
        return self


class FlowMatching(DensityObjective):
    """Regression of v(t, x_t) on the time derivative of the path x_t (Lipman et al. 2023, eq. 9).

    x_0 is drawn from the base, and x_1 is a row of data. The path between them has no noise of its own: it is
    linear, or variance-preserving (Albergo et al. 2023). x_0 and x_1 are independent, or coupled by optimal
    transport within minibatches (Tong et al. 2024; Pooladian et al. 2023), which makes the paths straighter.
    With every combination of the two options the minimum is a flow from base to data. Fields are
    preconditioned for the linear path and the independent coupling.

    Close to the data nearly all of the target's variance is due to x_0, about which x_t says little. An
    antithetic pair cancels the first order of this noise (antithetic variates; Albergo et al. 2023). The
    noise that remains in a gradient falls about linearly in log(1 - t). Late times are therefore drawn with a
    density that falls likewise, and weighted by its inverse (importance sampling). Measured:
    benchmarks/DEFAULTS.md#late-times-of-antithetic-pairs.

    With uniform times alone the field is learnt badly close to the data, where the likelihood is decided. The
    likelihood weighs the squared error of the velocity by t / (1 - t) on the linear path (Albergo et al.
    2023), and by (2 / pi) tan(pi t / 2) on the other. Hence `late_share`.
    """

    Options: ClassVar[type[options.PartOptions]] = FlowMatchingOptions

    def __init__(self, options: FlowMatchingOptions) -> None:
        super().__init__(options)
        self.late_share = options.late_share
        self.latest = options.latest
        self.path = PATHS[options.path]
        self.coupling_size = options.coupling_size if options.coupling == "minibatch-ot" else None
        self.antithetic = options.antithetic

    def is_static_for(self, flow: Density) -> bool:
        """True if the field is static and the coupling is independent.

        Optimal transport is solved on the CPU.
        """
        return self.coupling_size is None and self.continuous(flow).field.is_static

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` unless the flow is continuous and the coupling suits it.

        Only a continuous flow has a velocity field. A conditional flow needs the independent coupling.
        """
        self.continuous(flow)
        if flow.context_features and self.coupling_size is not None:
            raise ConfigurationError(
                "objective `flow-matching` with coupling `minibatch-ot` cannot learn a conditional density: "
                "rows of other givens decide which draw of the base a row gets; set `coupling=independent`"
            )

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The mean squared error of the velocity on `batch`, n rows, per feature."""
        data, context = batch.x, batch.context
        base = torch.randn(data.shape, generator=generator, dtype=data.dtype, device=data.device)
        if self.coupling_size is not None:
            base = base[optimal_transport(base, data, self.coupling_size)]
        t, weight = self._times(data, generator)
        if self.antithetic:
            base, data = torch.cat([base, -base]), data.repeat(2, 1)
            t, weight = t.repeat(2), weight.repeat(2)
            context = None if context is None else context.repeat(2, 1)
        x, velocity = self.path(t.unsqueeze(1), base, data)
        error = self.continuous(model).field.velocity(t, x, context) - velocity
        return LossTerms((weight * error.square().mean(1)).mean())

    def _times(self, data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Times `(n,)` and their weights in the loss `(n,)`.

        Late times lie in [0, 1 - latest], and the others are uniform in [0, 1].
        """

        def uniform() -> Tensor:
            return torch.rand(len(data), generator=generator, dtype=data.dtype, device=data.device)

        # log(1 - t) / log(latest), from 0 at the base to 1 close to the data.
        depth = uniform()
        density = torch.ones_like(depth)
        if self.antithetic:
            depth = torch.where(uniform() < EVEN_SHARE, depth, 1 - (1 - depth).sqrt())
            density = EVEN_SHARE + (1 - EVEN_SHARE) * 2 * (1 - depth)
        is_late = uniform() < self.late_share
        t = torch.where(is_late, 1 - self.latest**depth, uniform())
        return t, torch.where(is_late, 1 / density, 1.0)
