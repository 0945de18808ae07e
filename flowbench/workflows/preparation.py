"""From a configuration to a model that can be trained, and the rows that it learns from."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowbench.data import Dataset
from flowbench.data.periods import Period
from flowbench.encoding.atoms import Atoms
from flowbench.encoding.circle import Circle
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.standardise import mean_of_rows
from flowbench.encoding.support_map import SupportMap
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.incomplete import has_gaps
from flowbench.models.background import Background
from flowbench.models.completion import cells_of, filled
from flowbench.models.density import Density
from flowbench.models.density_model import DensityModel
from flowbench.models.givens import Givens
from flowbench.models.incomplete_mixture import IncompleteMixture, fill_by_others
from flowbench.models.mixture import FEW_ROWS, Mixture
from flowbench.models.probability_mass import ProbabilityMass
from flowbench.models.rows import Rows
from flowbench.registry import MODELS, TRANSFORMS
from flowbench.statistics.gaussian_mixtures import Tell, silent
from flowbench.store import Run
from flowbench.training.criterion import RowCriterion
from flowbench.training.progress import Progress
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.trainer import Trainer, make_objectives
from flowbench.training.training_rows import TrainingRows
from flowbench.training.trials import choose_by_trials
from flowbench.workflows.config import RunConfig

#: How often train rows with missing cells are completed, and the most rows that this may make.
COPIES, MOST_COMPLETED = 10, 200_000
#: Independent random streams drawn from a run's seed.
WEIGHTS, TRAINING, EVALUATION, DEQUANTISATION, TRIALS = range(5)


@dataclass(frozen=True)
class Watch:
    """What the caller of a fit wants to hear, and how it asks for an end.

    `on_choice` hears what trials chose before training. `on_table` hears what is wrong with the table, once,
    before training; `on_warning` does where it is None.
    """

    on_preparation: Callable[[str], None] = lambda text: None
    on_choice: Callable[[str], None] = lambda text: None
    on_start: Callable[[Run], None] = lambda run: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_stage: Callable[[str], None] = lambda stage: None
    on_warning: Callable[[str], None] = lambda text: None
    on_table: Callable[[str], None] | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Prepared:
    """An untrained model whose encoder is fitted to the train rows, and the rows in model space.

    `smoother` draws around the train rows, where the plan asks for it and they are few. `stand_ins: (n, d)`
    marks the cells of the train rows that hold a stand-in for an atom, if there are atoms. `chosen` is a
    sentence on what trials chose of the flow, empty where there were none. `reserve` are validation rows
    beyond those that training is judged by. `validation_log_det` is the mean log|det| of the encoder on the
    `validation` rows, plus the mean log-mass of their categories. `encoder_seconds`, wall and CPU, went into
    the encoder, and `model_seconds` into what of the model is fitted before its first step, which is a part
    of its training.
    """

    config: RunConfig
    model: DensityModel
    train: Rows
    smoother: SmoothedBootstrap | None
    stand_ins: Tensor | None
    chosen: str
    validation: Rows
    reserve: Rows
    validation_log_det: float
    encoder_seconds: tuple[float, float]
    model_seconds: tuple[float, float]


def random_stream(seed: int, purpose: int, device: str = "cpu", *, part: int = 0) -> torch.Generator:
    """The generator of one purpose of a run (`WEIGHTS`, `TRAINING`, `EVALUATION`) for a part of the work."""
    entropy = [seed, purpose, part] if part else [seed, purpose]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


def build_encoder(
    config: RunConfig,
    columns: Sequence[str],
    dequantiser: Dequantiser | None = None,
    support: SupportMap | None = None,
    atoms: Mapping[str, Sequence[float]] | None = None,
    circle: Circle | None = None,
) -> TableEncoder:
    """The encoder of `columns` with the transforms of a configuration, which are not fitted yet.

    Without a `dequantiser` all columns are continuous, without a `support` none has an end, without `atoms`
    no value has a probability, and without a `circle` no column is periodic.
    """
    names = tuple(columns)
    transforms = [TRANSFORMS.get(options.name)(names, options) for options in config.transforms]
    return TableEncoder(names, transforms, dequantiser, support, Atoms(names, atoms), circle)


def build_givens(
    config: RunConfig,
    columns: Sequence[str],
    levels: Mapping[str, Sequence[float]] | None = None,
    periods: Mapping[str, Period] | None = None,
) -> Givens | None:
    """What a model is given: `columns`, behind the transforms of a configuration; None without any.

    Those of categories have `levels`. Those that are periodic are among the `periods`, which may have others.
    """
    levels = levels or {}
    own = {name: each for name, each in (periods or {}).items() if name in columns}
    numeric = [name for name in columns if name not in levels and name not in own]
    return Givens(build_encoder(config, numeric), columns, levels, own) if columns else None


def build_mass(categorical: Sequence[str], levels: Mapping[str, Sequence[float]]) -> ProbabilityMass | None:
    """The probability mass function of the columns `categorical` with these `levels`; None without any."""
    return ProbabilityMass({name: levels[name] for name in categorical}) if categorical else None


def build_flow(config: RunConfig, features: int, context_features: int = 0) -> Density:
    """The flow of a configuration over so many columns, with the initial weights of the run's seed."""
    generator = random_stream(config.seed, WEIGHTS)
    flow: Density = MODELS.get(config.flow.name)(features, config.flow, generator, context_features)
    return flow


def build_model(
    config: RunConfig,
    encoder: TableEncoder,
    givens: Givens | None = None,
    mass: ProbabilityMass | None = None,
) -> DensityModel:
    """A model of the encoder's columns with the initial weights of the run's seed.

    It fills missing cells if the configuration says that these are modelled.
    """
    features, context_features = len(encoder.columns), givens.width if givens else 0
    background = Background(features, context_features) if config.background else None
    flow = build_flow(config, features, context_features)
    imputer = None
    if config.data.missing == "model":
        imputer = IncompleteMixture(features, mass.levels.to_values() if mass else None)
    return DensityModel(encoder, flow, background, givens, mass, imputer)


def periods_in(model: DensityModel) -> dict[str, Period]:
    """The periods of the periodic columns of a model, given ones too."""
    own = model.encoder.circle.periods
    return own if model.givens is None else own | model.givens.circular.periods


def place_rows(encoder: TableEncoder, dataset: Dataset, seed: int) -> Rows:
    """The rows of a data set that a model learns from, each at a random place in its cell, with its atoms.

    Values of periodic columns are at random copies on the line.
    """
    rows = Rows.of_arrays(dataset.targets, dataset.context, dataset.weights)
    generator = np.random.default_rng((seed, DEQUANTISATION))
    return rows.at(encoder.unroll(encoder.dequantise(rows.x, generator), generator))


def prepare(
    config: RunConfig,
    encoder: TableEncoder,
    train: Rows,
    validation: Rows,
    tell: Tell = silent,
    *,
    givens: Givens | None = None,
    mass: ProbabilityMass | None = None,
    spent: tuple[float, float] | None = None,
) -> Prepared:
    """A model that is ready to train on rows `(n, d)` and to validate on rows `(m, d)`.

    The rows are at places in their cells, as `place_rows` gives them, with the values of the
    `givens` as context. Both encoders are fitted to the train rows here, unless they are fitted already: then
    `spent` are the seconds, wall and CPU, that this took, and the weights of a run are loaded later: nothing
    is tried then. `tell` hears where it stands.
    """
    stopwatch = Stopwatch()
    model = build_model(config, encoder, givens, mass)
    # Before anything is written.
    if spent is None:
        model.flow.check_packages()
    make_objectives(config.plan, model.flow)
    given_rows = len(train)
    train, validation, fitted = _complete(model, train, validation, tell, is_fitted=spent is not None)
    rows = fitted or (_fit_encoders(model, train, tell) if spent is None else _encode(model, train)[0])
    judged, reserved = config.plan.divide(len(validation))
    held_out, log_det = _encode(model, validation[: judged + reserved])
    _fit_mass(model, train, len(train) // given_rows)
    seconds, fitting = spent or (stopwatch.wall(), stopwatch.cpu()), Stopwatch()
    train_rows, held_out = (
        part.each(lambda values: values.float().to(config.device)) for part in (rows, held_out)
    )
    flow = model.flow.to(config.device)
    # What is fitted without steps is loaded whole.
    if spent is None or config.plan.phases:
        once = train_rows[:given_rows]
        flow.initialise(once.x, config.plan.seconds, tell, context=once.context, weights=once.weights)
    smoothed = given_rows <= FEW_ROWS and any(phase.smoothing for phase in config.plan.phases)
    mixture = model.flow.start
    if mixture is None:
        mixture = Mixture(model.flow.features, model.flow.context_features)
        if smoothed or model.background is not None:
            once = rows[:given_rows]
            mixture.fit_within(once.x, config.plan.seconds, tell, context=once.context, weights=once.weights)
    if model.background is not None:
        model.background.mixture.become(mixture)
    smoother = SmoothedBootstrap(train_rows, mixture) if smoothed else None
    stand_ins = model.encoder.absent(train.x).to(config.device) if model.encoder.atoms else None
    judged_weights = None if held_out.weights is None else held_out.weights[:judged]
    log_mass = model.log_mass(validation[:judged].context)
    if log_mass is not None:
        log_det = log_det[:judged] + log_mass
    validation_log_det = mean_of_rows(log_det[:judged, None], judged_weights).item()
    chosen = ""
    if spent is None and (variants := model.flow.variants()):
        learnt = TrainingRows(train_rows, held_out[:judged], None, smoother, stand_ins)
        draws = random_stream(config.seed, TRIALS, config.device)
        model.flow, chosen = choose_by_trials(
            variants,
            config.plan,
            learnt,
            # It settles the background's shares, so each trial gets a copy.
            lambda: RowCriterion(copy.deepcopy(model.background), validation_log_det),
            draws,
            tell,
        )
    return Prepared(
        config,
        model,
        train=train_rows,
        smoother=smoother,
        stand_ins=stand_ins,
        chosen=chosen,
        validation=held_out[:judged],
        reserve=held_out[judged:],
        validation_log_det=validation_log_det,
        encoder_seconds=seconds,
        model_seconds=(fitting.wall(), fitting.cpu()),
    )


def _complete(
    model: DensityModel, train: Rows, validation: Rows, tell: Tell, *, is_fitted: bool
) -> tuple[Rows, Rows, Rows | None]:
    """Train and validation rows, data units, without missing cells, and the former in model space.

    The last is None where no cells can be missing, and encoders are then fitted later. Else they are fitted
    to the cells that are there, unless they are already, and missing cells are drawn by a mixture
    (`flowbench.models.completion`). Train rows are completed `COPIES` times where they are few.
    """
    if model.imputer is None:
        return train, validation, None
    rng = np.random.default_rng(1)
    if not is_fitted:
        others = np.random.default_rng(0)
        _fit_encoders(
            model, train.each(lambda part: torch.from_numpy(fill_by_others(part.numpy(), others))), tell
        )
    model.imputer.fit(cells_of(model, train), tell)
    copies = max(1, min(COPIES, MOST_COMPLETED // len(train))) if bool(has_gaps(train).any()) else 1
    train = Rows.join([filled(model, train, rng) for _ in range(copies)])
    validation = filled(model, validation, rng)
    return train, validation, _encode(model, train)[0]


def _fit_encoders(model: DensityModel, rows: Rows, tell: Tell) -> Rows:
    """Fit both encoders to train rows, data units; returns the rows in model space."""
    weights = rows.weights
    x = model.encoder.fit(rows.x, tell, weights)
    if model.encoder.atoms:
        x = _with_stand_ins(model.encoder, rows.x)[0]
    if model.givens is None or rows.context is None:
        return Rows(x, None, weights)
    return Rows(x, model.givens.fit(rows.context, tell, weights), weights)


def _with_stand_ins(encoder: TableEncoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `x: (n, d)` with atoms in model space, and log|det| of the encoder: `(n,)`, nats.

    Stand-ins for atoms are drawn, always the same. The latter is less their log-density, and less the
    log-probability of a row's copy: so log-densities on the line become lower bounds of those on the circle.
    """
    if not encoder.atoms:
        z, log_det = encoder.to_model(x)
        return z, log_det - encoder.circle.log_share(x)
    placed, absent = encoder.fill(x, np.random.default_rng(0)), encoder.absent(x)
    z, log_det = encoder.to_model(placed)
    log_share = encoder.circle.log_share(placed, absent)
    return z, log_det - log_share - encoder.log_stand_in(placed, absent)


def _fit_mass(model: DensityModel, rows: Rows, copies: int) -> None:
    """Fit the probability mass function to train rows, data units; it takes no part in training.

    The rows are `copies` completions of rows with missing cells, one after another.
    """
    if model.mass is not None and model.givens is not None and rows.context is not None:
        # Copies of a row that differ in what was filled in count as one row.
        once = slice(None, len(rows) // copies)
        model.mass.fit(
            model.of_mass(rows.context[once]), None if rows.weights is None else rows.weights[once]
        )


def _encode(model: DensityModel, rows: Rows) -> tuple[Rows, Tensor]:
    """Rows in data units as rows in model space, and log|det| of the encoder: `(n,)`, nats."""
    x, log_det = _with_stand_ins(model.encoder, rows.x)
    if model.givens is None or rows.context is None:
        return Rows(x, None, rows.weights), log_det
    return Rows(x, model.givens.to_model(rows.context), rows.weights), log_det


def make_trainer(
    prepared: Prepared,
    watch: Watch,
    on_validation: Callable[[Progress], None] = lambda progress: None,
    clock: type[Stopwatch] = Stopwatch,
) -> Trainer[Density, Rows]:
    """The trainer of a prepared model, drawing from the run's own random stream.

    `clock` is what a budget in seconds is measured by.
    """
    config = prepared.config
    rows = TrainingRows(
        prepared.train, prepared.validation, prepared.reserve, prepared.smoother, prepared.stand_ins
    )
    return Trainer(
        prepared.model.flow,
        config.plan,
        rows,
        criterion=RowCriterion(prepared.model.background, prepared.validation_log_det),
        generator=random_stream(config.seed, TRAINING, config.device),
        on_progress=watch.on_progress,
        on_validation=on_validation,
        should_stop=watch.should_stop,
        clock=clock(*prepared.model_seconds),
    )
