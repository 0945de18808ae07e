"""What `results.h5` holds, as plain numpy: no torch, so that reports can be made anywhere."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """One number of a run: its value and its units ("nats", "seconds", "evaluations", "1")."""

    value: float
    units: str


@dataclass(frozen=True)
class Certificate:
    """A check of a model's likelihoods: its figure and the bound on it, in `units`, and what it says.

    One that is not `passed` and not `settled` either could not tell: it neither certifies nor accuses.
    """

    value: float
    bound: float
    units: str
    passed: bool
    text: str
    settled: bool = True

    @property
    def failed(self) -> bool:
        """Whether it tells of a fault."""
        return self.settled and not self.passed


@dataclass(frozen=True)
class ScoredRows:
    """Held-out rows and what the model says of them.

    `row: (n,)` ids in the source table; `x: (n, d)` data units; `log_prob: (n,)` nats, data units;
    `true_log_prob: (n,)` or None, for data whose density is known; `log_prob_error: (n,)`, nats, how far
    `log_prob` may be off, or None in files of old.
    """

    row: Integers
    x: Floats
    log_prob: Floats
    true_log_prob: Floats | None = None
    log_prob_error: Floats | None = None


@dataclass(frozen=True)
class Samples:
    """Rows drawn from the model: `x: (m, d)` data units, `log_prob: (m,)` nats, data units.

    `log_prob_error: (m,)`, nats, how far `log_prob` may be off, is None in files of old.
    """

    x: Floats
    log_prob: Floats
    log_prob_error: Floats | None = None


@dataclass(frozen=True)
class Grid:
    """A density on a regular grid over two columns.

    `x: (nx,)`, `y: (ny,)` coordinates in data units; `log_prob: (nx, ny)` nats, data units;
    `true_log_prob: (nx, ny)` or None.
    """

    x: Floats
    y: Floats
    log_prob: Floats
    true_log_prob: Floats | None = None


@dataclass(frozen=True)
class Trajectory:
    """Paths of samples from the base (time 0) to the data (time 1).

    `time: (k,)`; `position: (k, p, d)` data units.
    """

    time: Floats
    position: Floats


@dataclass(frozen=True)
class Calibration:
    """Quantile transforms of the scored rows, each uniform on [0, 1] where the model is right.

    `row: (n,)` ids as in `ScoredRows`; `density_rank: (n,)`, the share of the model's draws that are
    likelier than the row; `column_quantile: (n, d)` and `radial_quantile: (n,)`, those of the row's base
    point and of its distance from the middle, or None for a density without a base.
    """

    row: Integers
    density_rank: Floats
    column_quantile: Floats | None = None
    radial_quantile: Floats | None = None


@dataclass(frozen=True)
class RowSplit:
    """Row ids (int64) of the disjoint train, validation and test parts of the source table."""

    train: Integers
    validation: Integers
    test: Integers


@dataclass(frozen=True)
class Results:
    """Everything a finished run knows; `columns` names the d columns of every `x`.

    `certificates` by name are empty in files of old; there is a `calibration` once a run was evaluated.
    """

    columns: tuple[str, ...]
    scored: ScoredRows
    samples: Samples
    split: RowSplit
    metrics: dict[str, Metric]
    grid: Grid | None = None
    trajectory: Trajectory | None = None
    calibration: Calibration | None = None
    certificates: dict[str, Certificate] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
