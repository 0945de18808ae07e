"""Using a fitted run: draw rows and score tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.config import RunConfig
from flowbench.data import load_dataset
from flowbench.errors import DataError, UnknownColumnError
from flowbench.evaluation.likelihood import reported_likelihoods
from flowbench.experiment import EVALUATION, load_model, random_stream
from flowbench.home import Home
from flowbench.store import Run, write_table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnRows:
    """Rows `x: (n, d)` in data units under their `columns`, and `log_prob: (n,)`, nats, data units."""

    columns: tuple[str, ...]
    x: Floats
    log_prob: Floats

    def save(self, path: Path, run: Run) -> None:
        """Write the table's own columns and `log_prob`, in the format of the path's ending."""
        if "log_prob" in self.columns:
            raise DataError("the table has a column called `log_prob`, where samples hold theirs; rename it")
        table = {name: self.x[:, i] for i, name in enumerate(self.columns)}
        write_table(path, {**table, "log_prob": self.log_prob}, _attributes(run), {"log_prob": "nats"})


@dataclass(frozen=True)
class ScoredTable:
    """`row: (n,)` counted from 0, and `log_prob: (n,)`, nats, data units.

    `solver_error` is that of `flowbench.evaluation.likelihood.Likelihoods`.
    """

    row: NDArray[np.int64]
    log_prob: Floats
    solver_error: float | None

    def save(self, path: Path, run: Run) -> None:
        """Write `row` and `log_prob`, in the format of the path's ending."""
        attributes = _attributes(run)
        if self.solver_error is not None:
            attributes["solver_error_nats"] = self.solver_error
        write_table(path, {"row": self.row, "log_prob": self.log_prob}, attributes, {"log_prob": "nats"})


@torch.no_grad()
def sample(run: Run, n: int, *, seed: int = 0) -> DrawnRows:
    """Draw `n` rows from a run's model, with float64, exact-divergence log-likelihoods."""
    config = RunConfig(**run.config)
    model = load_model(run).for_evaluation(config.evaluation.integrator)
    x, log_prob = model.sample_and_log_prob(n, random_stream(seed, EVALUATION))
    return DrawnRows(model.columns, x.numpy(), log_prob.numpy())


@torch.no_grad()
def score(run: Run, table: str, *, home: Home | None = None) -> ScoredTable:
    """Log-likelihood of every row of `table`, a path or a data set's name, under a run's model.

    The table needs the columns that the run was fitted on, in any order; others are ignored. Raises
    `DataError` if they are missing or hold values that cannot be scored.
    """
    config = RunConfig(**run.config)
    model = load_model(run)
    folder = (home or Home()).datasets
    try:
        dataset = load_dataset(
            table, columns=model.columns, seed=config.data.seed, folder=folder, for_fit=False
        )
    except UnknownColumnError as error:
        raise DataError(f"{error}; the run was fitted on {', '.join(model.columns)}") from None
    likelihoods = reported_likelihoods(
        model, torch.tensor(dataset.rows), config.evaluation.integrator, config.evaluation.error_rows
    )
    rows = np.arange(len(dataset.rows), dtype=np.int64)
    return ScoredTable(rows, likelihoods.log_prob.numpy(), likelihoods.solver_error)


def _attributes(run: Run) -> dict[str, str | int | float]:
    return {
        "run": run.name,
        "model": run.info["model"],
        "dataset": run.info["dataset"]["name"],
        "dataset_sha256": run.info["dataset"]["sha256"],
    }
