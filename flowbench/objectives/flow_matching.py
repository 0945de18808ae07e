"""Flow matching (Lipman et al. 2023) with independent coupling."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.flows.base import Flow
from flowbench.flows.continuous import ContinuousFlow
from flowbench.objectives.base import LossTerms, Objective


class FlowMatchingOptions(options.PartOptions):
    """`late_share` of the times lie close to the data, with 1 - t log-uniform in [`latest`, 1]."""

    name: Literal["flow-matching"] = "flow-matching"
    late_share: float = Field(default=0.9, ge=0, le=1)
    latest: float = Field(default=1e-3, gt=0, lt=1)


class FlowMatching(Objective):
    """Regression of v(t, x_t) on x_1 - x_0 along x_t = (1 - t) x_0 + t x_1 (Lipman et al. 2023, eq. 23).

    x_0 is drawn from the base, independently of the data x_1, with no noise at t = 1. Uniform times alone
    leave the last moments, which decide the likelihood, badly learnt: its weighting of this path is
    t / (1 - t) (Albergo et al. 2023), hence the late share.
    """

    Options: ClassVar[type[options.PartOptions]] = FlowMatchingOptions

    def __init__(self, options: FlowMatchingOptions) -> None:
        super().__init__(options)
        self.late_share = options.late_share
        self.latest = options.latest

    def check(self, flow: Flow) -> None:
        """Only a continuous flow has a velocity field to match."""
        if not isinstance(flow, ContinuousFlow):
            raise ConfigurationError(
                f"objective `flow-matching` needs a continuous flow; train `{type(flow).__name__}` "
                "with `likelihood`"
            )

    def __call__(self, flow: Flow, batch: Tensor, generator: torch.Generator) -> LossTerms:
        """The mean squared error of the velocity on `batch: (n, d)`, per feature."""
        base = torch.randn(batch.shape, generator=generator, dtype=batch.dtype, device=batch.device)
        t = self._times(batch, generator)
        x = torch.lerp(base, batch, t.unsqueeze(1))
        error = flow.get_submodule("field").velocity(t, x) - (batch - base)  # type: ignore[operator]
        return LossTerms(error.square().mean())

    def _times(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Times `(n,)` in [0, 1 - latest] or, for the uniform part, [0, 1]."""

        def uniform() -> Tensor:
            return torch.rand(len(batch), generator=generator, dtype=batch.dtype, device=batch.device)

        late = 1 - self.latest ** uniform()
        return torch.where(uniform() < self.late_share, late, uniform())
