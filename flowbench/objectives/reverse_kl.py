"""Reverse Kullback-Leibler divergence to an unnormalised density, for targets without data."""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.density import Density, base_log_prob
from flowbench.objectives.objective import LossTerms, Objective

#: `x: (n, d)`, rows in model space, to an unnormalised log-density (n,), nats, differentiable in x.
LogDensity = Callable[[Tensor], Tensor]


class ReverseKLOptions(options.PartOptions):
    """Nothing to choose; the target is no option, but is given to `ReverseKL`."""

    name: Literal["reverse-kl"] = "reverse-kl"


class ReverseKL(Objective):
    """E log q(x) - log target(x) over draws x of the flow q: KL(q | target) up to the target's constant.

    The variational free energy of Rezende and Mohamed (2015), with gradients through the draws. It needs
    no data but a `target`, which cannot be written into a configuration: this objective is made from
    Python only, `ReverseKL(ReverseKLOptions(), target=...)`, for a training loop of one's own: `Trainer`
    needs rows to validate on.

    A minimum is mode-seeking: of modes far apart it may keep one, which the loss does not tell.
    """

    Options: ClassVar[type[options.PartOptions]] = ReverseKLOptions

    def __init__(self, options: ReverseKLOptions, *, target: LogDensity) -> None:
        super().__init__(options)
        self.target = target

    def check(self, flow: Density) -> None:
        """Only a continuous flow will do: the draws of some others, such as planar, carry no gradients."""
        self.continuous(flow)

    def __call__(
        self, flow: Density, batch: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> LossTerms:
        """The loss, nats, over as many draws as `batch: (n, d)` has rows; their values do not matter.

        Raises `ConfigurationError` if the target does not give one number for each row.
        """
        base = torch.randn(batch.shape, generator=generator, dtype=batch.dtype, device=batch.device)
        mapped = self.continuous(flow).to_data(base, generator, context=context)
        log_target = self.target(mapped.value)
        if log_target.shape != (len(batch),):
            raise ConfigurationError(
                f"the target of `reverse-kl` must give log-densities of shape ({len(batch)},) for rows of "
                f"shape {tuple(batch.shape)}; got {tuple(log_target.shape)}"
            )
        return LossTerms((base_log_prob(base) - mapped.log_det - log_target).mean())
