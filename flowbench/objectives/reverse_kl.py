"""Reverse Kullback-Leibler divergence to an unnormalised density, for targets without data."""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowbench import options
from flowbench.errors import ConfigurationError
from flowbench.models.density import Density, base_log_prob
from flowbench.models.rows import Rows
from flowbench.objectives.objective import DensityObjective, LossTerms

#: Maps rows `x: (n, d)` in model space to an unnormalised log-density (n,), nats, differentiable in x.
LogDensity = Callable[[Tensor], Tensor]


class ReverseKLOptions(options.PartOptions):
    """No options: the target is no configuration value, but an argument of `ReverseKL`."""

    name: Literal["reverse-kl"] = "reverse-kl"


class ReverseKL(DensityObjective):
    """E log q(x) - log target(x) over draws x of the flow q: KL(q | target) up to a constant.

    This is the variational free energy of Rezende and Mohamed (2015), with gradients through the draws. It
    needs a `target` instead of data. A configuration cannot hold a target, so the objective is made in
    Python: `ReverseKL(ReverseKLOptions(), target=...)`. One without a target trains nothing, as `check` says.
    It needs a training loop of its own, since `Trainer` needs rows for validation.

    The minimum is mode-seeking: of modes far apart the flow may cover one, and the loss does not show it.
    """

    Options: ClassVar[type[options.PartOptions]] = ReverseKLOptions

    def __init__(self, options: ReverseKLOptions, *, target: LogDensity | None = None) -> None:
        super().__init__(options)
        self.target = target

    def check(self, flow: Density) -> None:
        """Raise `ConfigurationError` unless there is a target and the flow is continuous.

        The draws of some other flows, such as planar ones, carry no gradients.
        """
        self._log_target()
        self.continuous(flow)

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss, nats, over as many draws as `batch` has rows, whose values are not used.

        Raises `ConfigurationError` without a target, and if the target does not give one number for each row.
        """
        rows = batch.x
        base = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        mapped = self.continuous(model).to_data(base, generator, context=batch.context)
        log_target = self._log_target()(mapped.value)
        if log_target.shape != (len(batch),):
            raise ConfigurationError(
                f"the target of `reverse-kl` must give log-densities of shape ({len(batch)},) for rows of "
                f"shape {tuple(rows.shape)}; got {tuple(log_target.shape)}"
            )
        return LossTerms((base_log_prob(base) - mapped.log_det - log_target).mean())

    def _log_target(self) -> LogDensity:
        if self.target is None:
            raise ConfigurationError(
                "objective `reverse-kl` learns from a density in the place of rows, which no configuration "
                "holds; make it in Python, `ReverseKL(options, target=...)`, or train with `likelihood`"
            )
        return self.target
