"""flowbench's models as conditional densities p(y | x), each trained for CPU seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.models.background import Background
from flowbench.models.density import Density
from flowbench.models.mixture import Mixture
from flowbench.ode.native_engine import NativeOptions
from flowbench.registry import MODELS
from flowbench.training.criterion import Criterion
from flowbench.training.rows import Rows, TrainingRows
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import (
    EVALUATION,
    TRAINING,
    WEIGHTS,
    build_encoder,
    random_stream,
)

Floats = NDArray[np.float64]

#: At which test rows are scored, in float64.
TOLERANCE = 1e-5
#: Rows that are carried through a flow at once.
CHUNK = 1024


class ConditionalCriterion(Criterion):
    """The NLL of held-out rows given their context, under the flow and its background."""

    def __init__(self, background: Background | None) -> None:
        super().__init__()
        self.background = background

    def nll(self, rows: Rows, log_prob: Tensor) -> Tensor:
        """See `Criterion`."""
        if self.background is None:
            return -log_prob
        shares = self.background.best_shares(log_prob, rows.x, rows.context)
        return -self.background.mix(log_prob, rows.x, shares, context=rows.context)

    def settle(self, rows: Rows, log_prob: Tensor) -> None:
        """See `Criterion`."""
        if self.background is not None:
            self.background.weigh(log_prob, rows.x, rows.context)


@dataclass(frozen=True)
class ConditionalModel:
    """A trained density of rows `y: (n, d)` given rows `x: (n, c)`, each in the units of its own table.

    `seconds` is the CPU time of the fit.
    """

    encoder: TableEncoder
    givens: TableEncoder
    flow: Density
    background: Background | None
    generator: torch.Generator
    seconds: float
    steps: int

    @torch.no_grad()
    def log_prob(self, y: Floats, x: Floats) -> Floats:
        """Log-densities `(n,)`, float64, nats, of `y: (n, d)` given `x: (n, c)`."""
        flow = self.flow.for_evaluation(NativeOptions(atol=TOLERANCE, rtol=TOLERANCE))
        z, log_det = self.encoder.to_model(torch.from_numpy(y))
        context = self.givens.to_model(torch.from_numpy(x))[0]
        parts = []
        for rows, given in zip(torch.split(z, CHUNK), torch.split(context, CHUNK), strict=True):
            log_prob = flow.log_prob(rows, context=given)
            if self.background is not None:
                log_prob = self.background.mix(log_prob, rows, context=given)
            parts.append(log_prob)
        return np.asarray(torch.cat(parts) + log_det)

    @torch.no_grad()
    def sample(self, x: Floats, m: int) -> Floats:
        """`m` draws `(n, m, d)` of y given each row of `x: (n, c)`."""
        context = self.givens.to_model(torch.from_numpy(x))[0].repeat_interleave(m, 0)
        flow, parts = self.flow.for_validation(), []
        for given in torch.split(context, CHUNK):
            drawn = flow.sample(len(given), self.generator, context=given.to(flow.like))
            if self.background is not None:
                chosen, others = self.background.draw(len(given), self.generator, given)
                drawn[chosen] = others.to(drawn)
            parts.append(drawn)
        return self.encoder.to_data(torch.cat(parts))[0].numpy().reshape(len(x), m, -1)


def fit_conditional(
    model_name: str,
    train_y: Floats,
    train_x: Floats,
    validation_y: Floats,
    validation_x: Floats,
    *,
    seconds: float,
    seed: int,
    settings: Sequence[str] = (),
) -> ConditionalModel:
    """Train the model of the registry called `model_name` on rows `(n, d)` given rows `(n, c)`.

    It is the model that `flowbench fit` makes of a table by default, but for CPU seconds. The givens have
    the transforms of the rows. `settings` change the configuration, as `--set` does.
    """
    torch.set_num_threads(1)
    clock = Stopwatch()
    overrides = {"plan.seconds": seconds, "seed": seed}
    config = resolve("rows", model_name, overrides=overrides, settings=settings)
    encoder = build_encoder(config, [f"y{i}" for i in range(train_y.shape[1])])
    givens = build_encoder(config, [f"x{i}" for i in range(train_x.shape[1])])
    encoder.fit(torch.from_numpy(train_y))
    givens.fit(torch.from_numpy(train_x))

    def encoded(y: Floats, x: Floats) -> Rows:
        return Rows(*(e.to_model(torch.from_numpy(v))[0].float() for e, v in ((encoder, y), (givens, x))))

    train, validation = encoded(train_y, train_x), encoded(validation_y, validation_x)
    widths = train_y.shape[1], train_x.shape[1]
    flow: Density = MODELS.get(model_name)(
        widths[0], config.flow, random_stream(seed, WEIGHTS), context_features=widths[1]
    )
    flow.initialise(train.x, seconds, context=train.context)
    background = Background(*widths) if config.background else None
    if background is not None:
        mixture = flow.start
        if mixture is None:
            mixture = Mixture(*widths)
            mixture.fit_within(train.x, seconds, context=train.context)
        background.mixture.become(mixture)
    trainer = Trainer(
        flow,
        config.plan,
        TrainingRows(train, validation),
        criterion=ConditionalCriterion(background),
        generator=random_stream(seed, TRAINING),
        clock=clock,
    )
    clock.wall = clock.cpu  # type: ignore[method-assign]
    trainer.run()
    generator = random_stream(seed, EVALUATION)
    return ConditionalModel(encoder, givens, flow, background, generator, clock.cpu(), trainer.counters.step)
