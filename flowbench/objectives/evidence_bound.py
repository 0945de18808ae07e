"""Bounds on the likelihood of models with latent variables."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from flowbench import options
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.latent_ode import LatentOde
from flowbench.models.series.noise import BatchNoise
from flowbench.models.trainable import Trainable
from flowbench.objectives.objective import LossTerms, Objective


class EvidenceBoundOptions(options.PartOptions):
    """How many `draws` the bound takes, and how it is reached.

    With `importance` it is the importance-weighted bound (Burda et al. 2016); one draw makes no difference.
    The weight of the Kullback-Leibler divergence rises evenly from 0 to 1 over the share `warm_up` of the
    phase (KL annealing; Bowman et al. 2016). A share `cut` of the batches has the series cut off at a random
    observation, so that the posterior of what is seen at first is learnt too.

    The posterior can be that given a part of a series, which then has to tell the rest (Rubanova et al.
    2019): a share `seen` of the observations among the first `within`, chosen anew for each batch.
    """

    name: Literal["evidence-bound"] = "evidence-bound"
    draws: int = Field(default=1, ge=1)
    importance: bool = False
    warm_up: float = Field(default=0.2, ge=0, le=1)
    cut: float = Field(default=0.5, ge=0, le=1)
    seen: float = Field(default=1.0, gt=0, le=1)
    within: float = Field(default=1.0, gt=0, le=1)


class EvidenceBound(Objective[LatentOde, SeriesBatch]):
    """The negative evidence lower bound, nats for each observed cell, in model space (Kingma, Welling 2014).

    The bound of a series that is cut off is a bound on the likelihood of what is left of it. That of a series
    of which a part is seen is a bound on the likelihood of all of it: any posterior gives one.
    """

    Options: ClassVar[type[options.PartOptions]] = EvidenceBoundOptions
    trains: ClassVar[type[Trainable]] = LatentOde

    def __init__(self, options: EvidenceBoundOptions) -> None:
        super().__init__(options)
        self.draws = options.draws
        self.importance = options.importance
        self.warm_up = options.warm_up
        self.cut = options.cut
        self.seen = options.seen
        self.within = options.within

    def __call__(
        self, model: LatentOde, batch: SeriesBatch, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        """The loss on n series; terms `log_prob` and `divergence`, nats, are means over series."""
        place = torch.rand(len(batch) + 1, generator=generator, device=generator.device).to(batch.times)
        if place[-1] < self.cut:
            # From 1 observation to all of them.
            batch = batch.up_to((place[:-1] * batch.lengths).long() + 1)
        weight = min(1.0, spent / self.warm_up) if self.warm_up else 1.0
        seen = None
        if self.seen < 1 or self.within < 1:
            seen = batch.part(self.seen, self.within, generator)
        found = model.evidence(batch, BatchNoise(len(batch), generator, model.like), self.draws, seen)
        if self.importance and weight == 1:
            bound = found.log_weights.logsumexp(0) - math.log(self.draws)
        else:
            bound = found.log_prob.mean(0) - weight * found.divergence
        terms = {"log_prob": found.log_prob.mean().detach(), "divergence": found.divergence.mean().detach()}
        return LossTerms(-bound.sum() / batch.cells.sum().clamp(min=1), terms)
