"""The contents of `results.h5` of a run on series, as dataclasses of numpy arrays; without torch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.store.results import Metric

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ScoredSeries:
    """The s test series and their log-likelihoods given their times.

    `log_prob: (s,)`, nats, data units. If it is a bound, `standard_error: (s,)`, nats, is that of the draws.
    `solver_error: (e,)` is by how much the first e series change at a tenth of the solver's tolerance. Both
    are None where there is no such error. `observations: (s,)` and `cells: (s,)` are counts; a cell is a
    value that is not missing. `true_log_prob: (s,)` is the exact log-likelihood under what the series were
    drawn from, or None. `draws: (b,)` and `bound: (b, s)` are the bounds from fewer draws, or None.
    """

    log_prob: Floats
    observations: Integers
    cells: Integers
    standard_error: Floats | None = None
    solver_error: Floats | None = None
    true_log_prob: Floats | None = None
    draws: Integers | None = None
    bound: Floats | None = None


@dataclass(frozen=True)
class HeldOut:
    """Predictions of p observations of test series that a model did not see, data units.

    `of_series: (p,)` are indices of test series, and `time: (p,)` their times. `value: (p, d)`, NaN where a
    cell is missing, `mean: (p, d)`, the 5, 25, 75 and 95% quantiles `bands: (4, p, d)`, the log-density
    `log_prob: (p, d)` of each cell, nats, and the continuous ranked probability score `crps: (p, d)`.
    """

    of_series: Integers
    time: Floats
    value: Floats
    mean: Floats
    bands: Floats
    log_prob: Floats
    crps: Floats


@dataclass(frozen=True)
class Curves:
    """Predictions of c test series along g times each, for pictures, data units.

    `of_series: (c,)` are indices of test series; `time: (c, g)`, `mean: (c, g, d)` and `bands: (4, c, g, d)`,
    as in `HeldOut`, given the observations before `cut: (c,)`. `path: (c, g, q)` are latent states, or None.
    """

    of_series: Integers
    time: Floats
    mean: Floats
    bands: Floats
    cut: Floats
    path: Floats | None = None


@dataclass(frozen=True)
class Observations:
    """The o observations of the pictured series, data units.

    `of_series: (o,)`, `time: (o,)` and `value: (o, d)`, NaN where a cell is missing. `truth: (o, d)` are the
    values without noise, or None where they are not known.
    """

    of_series: Integers
    time: Floats
    value: Floats
    truth: Floats | None = None


@dataclass(frozen=True)
class DrawnSeries:
    """m series that were drawn at `time: (g,)`: `value: (m, g, d)`, data units."""

    time: Floats
    value: Floats


@dataclass(frozen=True)
class SeriesResults:
    """Everything that a finished run says about its model of series, over the named `columns`.

    `ids` name the test series.
    """

    columns: tuple[str, ...]
    ids: tuple[str, ...]
    scored: ScoredSeries
    metrics: dict[str, Metric]
    interpolation: HeldOut | None = None
    extrapolation: HeldOut | None = None
    curves: Curves | None = None
    observations: Observations | None = None
    samples: DrawnSeries | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
