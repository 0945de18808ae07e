"""The layout of `results.h5`: one table, from which the file is both written and checked.

Every axis has a dimension scale, so that xarray shows `row`, `sample`, `column`, `x`, `y`, `slice`, `point`,
`x_point`, `y_point`, `time` and `particle` as dimensions. All groups share the scale `column`, which lies in
the root, and so does `given`, the scale of the columns that a conditional model is given.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowbench.store.results import (
    Calibration,
    Grid,
    RowSplit,
    Samples,
    ScoredRows,
    SlicePlanes,
    Slices,
    Trajectory,
)


@dataclass(frozen=True)
class Member:
    """One dataset of a group.

    A member whose only dimension has the member's own name is the scale of that dimension. A scale that only
    counts from 0 has no field in the dataclass: `numbers` is the member and the axis that it counts along.
    """

    name: str
    dims: tuple[str, ...]
    units: str
    dtype: type[np.float64] | type[np.int64] = np.float64
    optional: bool = False
    numbers: tuple[str, int] | None = None


@dataclass(frozen=True)
class Layout:
    """The members of a group, scales first, and the dataclass that has them as fields."""

    part: type[Any]
    members: tuple[Member, ...]


_DATA_UNITS = "data units"
LAYOUTS = {
    "log_likelihood": Layout(
        ScoredRows,
        (
            Member("row", ("row",), "1", np.int64),
            Member("x", ("row", "column"), _DATA_UNITS),
            Member("log_prob", ("row",), "nats"),
            Member("true_log_prob", ("row",), "nats", optional=True),
            Member("log_prob_error", ("row",), "nats", optional=True),
            Member("context", ("row", "given"), _DATA_UNITS, optional=True),
            Member("log_mass", ("row",), "nats", optional=True),
            Member("weight", ("row",), "1", optional=True),
        ),
    ),
    "samples": Layout(
        Samples,
        (
            Member("sample", ("sample",), "1", np.int64, numbers=("x", 0)),
            Member("x", ("sample", "column"), _DATA_UNITS),
            Member("log_prob", ("sample",), "nats"),
            Member("log_prob_error", ("sample",), "nats", optional=True),
            Member("context", ("sample", "given"), _DATA_UNITS, optional=True),
            Member("log_mass", ("sample",), "nats", optional=True),
        ),
    ),
    "split": Layout(
        RowSplit,
        (
            Member("train", ("train",), "1", np.int64),
            Member("validation", ("validation",), "1", np.int64),
            Member("test", ("test",), "1", np.int64),
        ),
    ),
    "grid": Layout(
        Grid,
        (
            Member("x", ("x",), _DATA_UNITS),
            Member("y", ("y",), _DATA_UNITS),
            Member("log_prob", ("x", "y"), "nats"),
            Member("true_log_prob", ("x", "y"), "nats", optional=True),
        ),
    ),
    "slices": Layout(
        Slices,
        (
            Member("slice", ("slice",), "1", np.int64, numbers=("y", 0)),
            Member("point", ("point",), "1", np.int64, numbers=("y", 1)),
            Member("context", ("slice", "given"), _DATA_UNITS),
            Member("value", ("slice",), _DATA_UNITS),
            Member("y", ("slice", "point"), _DATA_UNITS),
            Member("log_prob", ("slice", "point"), "nats"),
        ),
    ),
    "slice_planes": Layout(
        SlicePlanes,
        (
            Member("slice", ("slice",), "1", np.int64, numbers=("x", 0)),
            Member("x_point", ("x_point",), "1", np.int64, numbers=("x", 1)),
            Member("y_point", ("y_point",), "1", np.int64, numbers=("y", 1)),
            Member("context", ("slice", "given"), _DATA_UNITS),
            Member("value", ("slice", "column"), _DATA_UNITS),
            Member("x", ("slice", "x_point"), _DATA_UNITS),
            Member("y", ("slice", "y_point"), _DATA_UNITS),
            Member("log_prob", ("slice", "x_point", "y_point"), "nats"),
        ),
    ),
    "trajectory": Layout(
        Trajectory,
        (
            Member("time", ("time",), "1"),
            Member("particle", ("particle",), "1", np.int64, numbers=("position", 1)),
            Member("position", ("time", "particle", "column"), _DATA_UNITS),
        ),
    ),
    "calibration": Layout(
        Calibration,
        (
            Member("row", ("row",), "1", np.int64),
            Member("density_rank", ("row",), "1"),
            Member("column_quantile", ("row", "column"), "1", optional=True),
            Member("radial_quantile", ("row",), "1", optional=True),
            Member("pit", ("row", "column"), "1", optional=True),
            Member("crps", ("row", "column"), _DATA_UNITS, optional=True),
        ),
    ),
}
OPTIONAL_GROUPS = {"grid", "slices", "slice_planes", "trajectory", "calibration"}
