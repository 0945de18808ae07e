"""A model of series that is trained for CPU seconds or steps, without files."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flowbench.data.series_dataset import SeriesDataset
from flowbench.encoding.series_encoder import SeriesEncoder
from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.models.series.series_model import SeriesModel
from flowbench.registry import SERIES_MODELS
from flowbench.training.plan import TrainingPlan
from flowbench.training.progress import Progress
from flowbench.training.series_examples import SeriesCriterion, SeriesExamples
from flowbench.training.stopwatch import CpuStopwatch
from flowbench.training.trainer import Trainer


def build_for(
    train: SeriesDataset, model: str, options: Mapping[str, Any], generator: torch.Generator
) -> EncodedSeriesModel:
    """An untrained model behind an encoder that standardises the columns of the `train` series."""
    columns = [
        TableEncoder((name,), [Standardise((name,), StandardiseOptions())]) for name in train.column_names
    ]
    encoder = SeriesEncoder(columns)
    encoder.fit(torch.tensor(train.times), torch.tensor(train.values))
    kind: type[SeriesModel] = SERIES_MODELS.get(model)
    return EncodedSeriesModel(encoder, kind(len(columns), kind.Options(**options), generator))


def train_for(
    encoded: EncodedSeriesModel,
    parts: tuple[SeriesDataset, SeriesDataset],
    phase: Mapping[str, Any],
    budget: Mapping[str, Any],
    generator: torch.Generator,
    on_validation: Callable[[Progress], None],
    criterion: SeriesCriterion | None = None,
) -> int:
    """Train on the first of the `parts`, by the validation series of the second; returns the steps taken.

    `budget` are options of the plan, `seconds` of CPU time or `steps`. The whole of it is used.
    """
    train, validation = (
        encoded.encode([part.series(i) for i in range(len(part))])[0].each(torch.Tensor.float)
        for part in parts
    )
    encoded.model.initialise(train)
    trainer = Trainer(
        encoded.model,
        TrainingPlan(phases=(phase,), patience=0.0, ema_decay=0.99, **budget),
        SeriesExamples(train, validation),
        generator=generator,
        criterion=criterion or SeriesCriterion(),
        clock=CpuStopwatch(),
        on_validation=on_validation,
    )
    trainer.run()
    return trainer.counters.step
