"""From a configuration to a model that can be trained, and the rows that it learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import Dataset, Split, load_dataset
from flowbench.data.repeats import find_copies, unite_groups
from flowbench.encoding.dequantiser import CONTINUOUS, Dequantiser, choose_dequantiser, parse_spacings
from flowbench.errors import ConfigurationError
from flowbench.models.background import Background
from flowbench.models.density_model import DensityModel
from flowbench.models.mixture import FEW_ROWS, Mixture
from flowbench.registry import MODELS, TRANSFORMS
from flowbench.statistics.gaussian_mixtures import Tell, silent
from flowbench.store import Run
from flowbench.training.criterion import Criterion
from flowbench.training.progress import Progress
from flowbench.training.rows import Rows, TrainingRows
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.trainer import Trainer, make_objectives
from flowbench.workflows.config import RunConfig

#: Independent random streams drawn from a run's seed.
WEIGHTS, TRAINING, EVALUATION, DEQUANTISATION = range(4)


@dataclass(frozen=True)
class Watch:
    """What the caller of a fit wants to hear, and how it asks for an end.

    `on_table` hears what is wrong with the table, once, before training; `on_warning` does where it is None.
    """

    on_preparation: Callable[[str], None] = lambda text: None
    on_start: Callable[[Run], None] = lambda run: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_stage: Callable[[str], None] = lambda stage: None
    on_warning: Callable[[str], None] = lambda text: None
    on_table: Callable[[str], None] | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Prepared:
    """An untrained model whose transforms are fitted on the train rows, and the rows in model space.

    `smoother` draws around the train rows, where the plan asks for it and they are few. `reserve` are
    validation rows beyond those that training is judged by. `validation_log_det` is the mean log|det| of the
    transforms on the `validation` rows. `wall_seconds` and `cpu_seconds` went into the transforms, and
    `fit_wall_seconds` and `fit_cpu_seconds` into what of the model is fitted before its first step, which is
    a part of its training.
    """

    config: RunConfig
    model: DensityModel
    train: Tensor
    smoother: SmoothedBootstrap | None
    validation: Tensor
    reserve: Tensor
    validation_log_det: float
    wall_seconds: float
    cpu_seconds: float
    fit_wall_seconds: float
    fit_cpu_seconds: float


def random_stream(seed: int, purpose: int, device: str = "cpu") -> torch.Generator:
    """The generator of one purpose of a run (`WEIGHTS`, `TRAINING`, `EVALUATION`)."""
    state = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


def build_model(config: RunConfig, columns: tuple[str, ...]) -> DensityModel:
    """A model of `columns` with unfitted transforms and the initial weights of the run's seed."""
    transforms = [TRANSFORMS.get(options.name)(columns, options) for options in config.transforms]
    generator = random_stream(config.seed, WEIGHTS)
    flow = MODELS.get(config.flow.name)(len(columns), config.flow, generator)
    background = Background(len(columns)) if config.background else None
    return DensityModel(columns, transforms, flow, background)


def prepare(
    config: RunConfig,
    columns: tuple[str, ...],
    train: NDArray[np.float64],
    validation: NDArray[np.float64],
    tell: Tell = silent,
) -> Prepared:
    """A model of `columns`, ready to train on rows `(n, d)` and validate on rows `(m, d)`, data units.

    `tell` hears where it stands.
    """
    stopwatch = Stopwatch()
    model = build_model(config, columns)
    make_objectives(config.plan, model.flow)  # refuses an impossible plan before anything is written
    rows = torch.tensor(train)
    for transform, chosen in zip(model.transforms, config.transforms, strict=True):
        tell(f"fitting the transform {chosen.name}")
        transform.fit(rows)  # type: ignore[operator]
        rows, _ = transform.to_model(rows)  # type: ignore[operator]
    judged, reserved = config.plan.divide(len(validation))
    held_out, log_det = model.to_model(torch.tensor(validation[: judged + reserved]))
    before, fitting = (stopwatch.wall(), stopwatch.cpu()), Stopwatch()
    train_rows, held_out = (part.float().to(config.device) for part in (rows, held_out))
    model.flow.to(config.device).initialise(train_rows, config.plan.seconds, tell)
    smoothed = len(rows) <= FEW_ROWS and any(phase.smoothing for phase in config.plan.phases)
    mixture = model.flow.start
    if mixture is None:
        mixture = Mixture(len(columns))
        if smoothed or model.background is not None:
            mixture.fit_within(rows, config.plan.seconds, tell)
    if model.background is not None:
        model.background.mixture.become(mixture)
    return Prepared(
        config,
        model,
        train=train_rows,
        smoother=SmoothedBootstrap(train_rows, mixture) if smoothed else None,
        validation=held_out[:judged],
        reserve=held_out[judged:],
        validation_log_det=log_det[:judged].mean().item(),
        wall_seconds=before[0],
        cpu_seconds=before[1],
        fit_wall_seconds=fitting.wall(),
        fit_cpu_seconds=fitting.cpu(),
    )


def make_trainer(
    prepared: Prepared, watch: Watch, on_validation: Callable[[Progress], None] = lambda progress: None
) -> Trainer:
    """The trainer of a prepared model, drawing from the run's own random stream."""
    config = prepared.config
    rows = TrainingRows(
        Rows(prepared.train), Rows(prepared.validation), Rows(prepared.reserve), prepared.smoother
    )
    return Trainer(
        prepared.model.flow,
        config.plan,
        rows,
        criterion=Criterion(prepared.model.background, prepared.validation_log_det),
        generator=random_stream(config.seed, TRAINING, config.device),
        on_progress=watch.on_progress,
        on_validation=on_validation,
        should_stop=watch.should_stop,
        clock=Stopwatch(prepared.fit_wall_seconds, prepared.fit_cpu_seconds),
    )


def load_rows(config: RunConfig, datasets: Path) -> tuple[Dataset, Split]:
    """The data set of a configuration and its split; raises as `load_dataset` and `Split.draw` do.

    Rows of one group, and of a table rows that are copies of one another, are in one part of the split: a
    copy in the test rows would tell how well a model knows its train rows by heart.
    """
    data, split = config.data, config.split
    dataset = load_dataset(
        data.dataset, columns=data.columns, rows=data.rows, seed=data.seed, folder=datasets, reading=data
    )
    groups = dataset.groups
    if dataset.density is None:  # draws of a density are never the same
        copies = find_copies(dataset.rows)
        groups = copies if groups is None else unite_groups(groups, copies)
    fractions = (split.train, split.validation, split.test)
    return dataset, Split.draw(len(dataset.rows), fractions, data.seed, groups)


def find_dequantiser(config: RunConfig, dataset: Dataset, split: Split) -> Dequantiser:
    """The dequantiser that the configuration asks for, of a data set by its train rows.

    Raises `ConfigurationError` for spacings that the columns cannot have, or of a toy.
    """
    wanted = config.data.dequantise
    spacings = None if wanted in ("auto", "none") else parse_spacings(wanted)
    if spacings and dataset.density is not None:
        raise ConfigurationError(
            f"`dequantise` is for tables; `{dataset.name}` is drawn from a density; leave it out"
        )
    if wanted == "none" or dataset.density is not None:
        return CONTINUOUS
    return choose_dequantiser(dataset.column_names, dataset.rows[split.train], spacings)


def rows_to_learn(config: RunConfig, dataset: Dataset, dequantiser: Dequantiser) -> NDArray[np.float64]:
    """The rows `(n, d)` of a data set, each value that stands for a cell at a random place in it."""
    return dequantiser.jitter(dataset.rows, np.random.default_rng((config.data.seed, DEQUANTISATION)))
