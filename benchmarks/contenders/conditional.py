"""flowbench's models as conditional densities p(y | x), each trained for CPU seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.native_engine import NativeOptions
from flowbench.training.stopwatch import CpuStopwatch
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import (
    EVALUATION,
    Watch,
    build_encoder,
    build_givens,
    make_trainer,
    prepare,
    random_stream,
)

Floats = NDArray[np.float64]

#: At which test rows are scored, in float64.
TOLERANCE = 1e-5
#: At which rows are drawn.
LOOSE = 1e-4


@dataclass(frozen=True)
class ConditionalModel:
    """A trained density of rows `y: (n, d)` given rows `x: (n, c)`, each in the units of its own table.

    `seconds` is the CPU time of the fit.
    """

    model: DensityModel
    generator: torch.Generator
    seconds: float
    steps: int

    @torch.no_grad()
    def log_prob(self, y: Floats, x: Floats) -> Floats:
        """Log-densities `(n,)`, float64, nats, of `y: (n, d)` given `x: (n, c)`."""
        model = self.model.for_evaluation(NativeOptions(atol=TOLERANCE, rtol=TOLERANCE))
        scores = model.score_places(torch.from_numpy(y), context=torch.from_numpy(x))
        return np.asarray(scores.log_prob)

    @torch.no_grad()
    def sample(self, x: Floats, m: int) -> Floats:
        """`m` draws `(n, m, d)` of y given each row of `x: (n, c)`."""
        model = self.model.for_evaluation(NativeOptions(atol=LOOSE, rtol=LOOSE), dtype=torch.float32)
        context = torch.from_numpy(x).repeat_interleave(m, 0)
        drawn, _ = model.draw_places(len(context), self.generator, context=context)
        return np.asarray(drawn).reshape(len(x), m, -1)


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

    It is the model that `flowbench fit` makes of a table by default, but for CPU seconds. `settings` change
    the configuration, as `--set` does.
    """
    torch.set_num_threads(1)
    config = resolve("rows", model_name, overrides={"plan.seconds": seconds, "seed": seed}, settings=settings)
    encoder = build_encoder(config, [f"y{i}" for i in range(train_y.shape[1])])
    givens = build_givens(config, [f"x{i}" for i in range(train_x.shape[1])])
    train, validation = (
        Rows(torch.from_numpy(y), torch.from_numpy(x))
        for y, x in ((train_y, train_x), (validation_y, validation_x))
    )
    prepared = prepare(config, encoder, train, validation, givens=givens)
    trainer = make_trainer(prepared, Watch(), clock=CpuStopwatch)
    trainer.run()
    seconds = prepared.encoder_seconds[1] + trainer.clock.cpu()
    return ConditionalModel(prepared.model, random_stream(seed, EVALUATION), seconds, trainer.counters.step)
