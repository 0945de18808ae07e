"""Maximum likelihood."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowbench import options
from flowbench.flows.base import Flow
from flowbench.objectives.base import LossTerms, Objective


class LikelihoodOptions(options.PartOptions):
    """Maximum likelihood has nothing to choose; solver and divergence are the flow's."""

    name: Literal["likelihood"] = "likelihood"


class Likelihood(Objective):
    """The mean negative log-likelihood of the batch, nats, model space."""

    Options: ClassVar[type[options.PartOptions]] = LikelihoodOptions

    def __call__(self, flow: Flow, batch: Tensor, generator: torch.Generator) -> LossTerms:
        """-mean log p over `batch: (n, d)`."""
        return LossTerms(-flow.log_prob(batch, generator).mean())
