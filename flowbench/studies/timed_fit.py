"""A model that is trained for a number of CPU seconds, and then asked for its test rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.data import Dataset, Split
from flowbench.evaluation.reported import Likelihoods, reported_likelihoods
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.training.progress import Progress
from flowbench.training.stopwatch import CpuStopwatch
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import RunConfig
from flowbench.workflows.dataset_rows import find_dequantiser, load_rows
from flowbench.workflows.preparation import (
    Prepared,
    Watch,
    build_encoder,
    make_trainer,
    place_rows,
    prepare,
)


@dataclass(frozen=True)
class TimedFit:
    """A data set with a model of it; every model gets the same split.

    `rows: (n, d)` are its own in data units, those of dequantised columns at one place in their cells. Of its
    test rows the first `test_rows` are scored.
    """

    dataset: Dataset
    rows: NDArray[np.float64]
    split: Split
    prepared: Prepared
    test_rows: int

    @classmethod
    def load(cls, config: RunConfig, test_rows: int, datasets: Path) -> Self:
        """The rows that a configuration names, and its model, untrained; see `workflows.fit.fit`."""
        table, split = load_rows(config, datasets)
        cells = build_encoder(config, table.column_names, find_dequantiser(config, table, split))
        rows = place_rows(cells, table, config.data.seed)
        # Every model is given places, and judged by its density there.
        encoder = build_encoder(config, table.column_names)
        prepared = prepare(
            config, encoder, rows[torch.from_numpy(split.train)], rows[torch.from_numpy(split.validation)]
        )
        return cls(table, rows.x.numpy(), split, prepared, test_rows)

    @property
    def test(self) -> NDArray[np.float64]:
        """The rows that are scored, data units."""
        rows: NDArray[np.float64] = self.rows[self.split.test[: self.test_rows]]
        return rows

    def train(
        self, on_validation: Callable[[Progress], None] = lambda progress: None
    ) -> Trainer[Density, Rows]:
        """Train the model; seconds of its plan are CPU seconds."""
        trainer = make_trainer(self.prepared, Watch(), on_validation, CpuStopwatch)
        trainer.run()
        return trainer

    def score(self) -> Likelihoods:
        """The log-likelihoods of the test rows, as the configuration's evaluation has it."""
        rows = torch.from_numpy(self.test)
        return reported_likelihoods(self.prepared.model, rows, self.prepared.config.evaluation)
