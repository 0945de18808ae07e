"""The contents of `results.h5`, as dataclasses of numpy arrays; without torch, for reports."""

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
    """A check of a model's likelihoods: a measured `value`, the `bound` on it, both in `units`, and a `text`.

    A certificate that is neither `passed` nor `settled` is undecided: the value is too uncertain to tell.
    """

    value: float
    bound: float
    units: str
    passed: bool
    text: str
    settled: bool = True

    @property
    def failed(self) -> bool:
        """Whether the check found a fault."""
        return self.settled and not self.passed


@dataclass(frozen=True)
class ScoredRows:
    """Held-out rows and their log-likelihoods under the model.

    `row: (n,)` ids in the source table; `x: (n, d)` data units; `log_prob: (n,)` nats, data units;
    `true_log_prob: (n,)`, or None unless the true density is known; `log_prob_error: (n,)`, nats, how far
    `log_prob` may be off, or None in older files; `context: (n, c)` the givens of a conditional model, data
    units, or None. `log_mass: (n,)` is the part of `log_prob` that is the log-probability of the row's
    categories, nats, or None without a probability mass function; the rest is the log-density of the other
    columns given these. `weight: (n,)` is how much each row counts, in the table's own scale, or None if all
    count alike.
    """

    row: Integers
    x: Floats
    log_prob: Floats
    true_log_prob: Floats | None = None
    log_prob_error: Floats | None = None
    context: Floats | None = None
    log_mass: Floats | None = None
    weight: Floats | None = None

    @property
    def log_density(self) -> Floats:
        """The part of `log_prob: (n,)` that is a log-density, nats, data units."""
        return self.log_prob if self.log_mass is None else self.log_prob - self.log_mass


@dataclass(frozen=True)
class Samples:
    """Rows drawn from the model: `x: (m, d)` data units, `log_prob: (m,)` nats, data units.

    `log_prob_error: (m,)`, nats, how far `log_prob` may be off, is None in older files. `context: (m, c)` are
    the givens that a conditional model drew them for, data units, or None. `log_mass: (m,)` is as in
    `ScoredRows`: a model with one has drawn the categories in the context too.
    """

    x: Floats
    log_prob: Floats
    log_prob_error: Floats | None = None
    context: Floats | None = None
    log_mass: Floats | None = None


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
class Slices:
    """The density of one column at each of k contexts: those of held-out rows.

    `context: (k, c)` the givens of the rows; `value: (k,)` what the column was there; `y: (k, p)` points at
    which the density is tabulated, increasing, and `log_prob: (k, p)`, nats; all in data units.
    """

    context: Floats
    value: Floats
    y: Floats
    log_prob: Floats


@dataclass(frozen=True)
class SlicePlanes:
    """The density of two columns at each of k contexts: those of held-out rows.

    `context: (k, c)` the givens of the rows; `value: (k, 2)` what the columns were there; `x: (k, nx)` and
    `y: (k, ny)` the grid over the first and the second column, and `log_prob: (k, nx, ny)`, nats; all in data
    units.
    """

    context: Floats
    value: Floats
    x: Floats
    y: Floats
    log_prob: Floats


@dataclass(frozen=True)
class Trajectory:
    """Paths of samples from the base (time 0) to the data (time 1).

    `time: (k,)`; `position: (k, p, d)` data units.
    """

    time: Floats
    position: Floats


@dataclass(frozen=True)
class Calibration:
    """Quantile transforms of the scored rows; each is uniform on [0, 1] if the model is right.

    `row: (n,)` are ids as in `ScoredRows`. `density_rank: (n,)` is the share of the model's draws that are
    likelier than the row. `column_quantile: (n, d)` are the quantiles of the columns of the row's base point,
    and `radial_quantile: (n,)` that of its distance from the origin; None for a density without a base.

    Of a conditional model the rank is among draws for the row's own context. `pit: (n, d)` is the probability
    integral transform of each column among these, and `crps: (n, d)` their ranked probability score, in data
    units; None for an unconditional model.
    """

    row: Integers
    density_rank: Floats
    column_quantile: Floats | None = None
    radial_quantile: Floats | None = None
    pit: Floats | None = None
    crps: Floats | None = None


@dataclass(frozen=True)
class RowSplit:
    """Row ids (int64) of the disjoint train, validation and test parts of the source table."""

    train: Integers
    validation: Integers
    test: Integers


@dataclass(frozen=True)
class Results:
    """All results of a finished run; `columns` names the d columns of every `x`.

    `given` names the c columns of every `context`; there are none for an unconditional model.

    `certificates`, by name, are empty in older files. `calibration` is None until the run is evaluated.
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
    given: tuple[str, ...] = ()
    slices: Slices | None = None
    slice_planes: SlicePlanes | None = None
