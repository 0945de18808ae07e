"""Writing and reading `results.h5` of runs on series, after a table of its layout.

Every axis has a dimension scale, as in `results_layout`. Test series are counted by their ids, in `series`.
"""

import io
from pathlib import Path

import h5py
import numpy as np

from flowbench.store.documents import from_json, to_json
from flowbench.store.hdf5 import (
    LIBRARY_VERSIONS,
    SCHEMA_VERSION,
    read_group,
    read_metrics,
    write_attribute,
    write_group,
    write_image,
    write_metrics,
    write_names,
)
from flowbench.store.results_layout import Layout, Member
from flowbench.store.safe_hdf5 import open_untrusted
from flowbench.store.series_results import (
    Curves,
    DrawnSeries,
    HeldOut,
    Observations,
    ScoredSeries,
    SeriesResults,
)

_DATA_UNITS = "data units"


def _counted(name: str, along: tuple[str, int], *, optional: bool = False) -> Member:
    """The scale of a dimension that only counts from 0."""
    return Member(name, (name,), "1", np.int64, optional, along)


_HELD_OUT = Layout(
    HeldOut,
    (
        _counted("observation", ("value", 0)),
        _counted("band", ("bands", 0)),
        Member("of_series", ("observation",), "1", np.int64),
        Member("time", ("observation",), _DATA_UNITS),
        Member("value", ("observation", "column"), _DATA_UNITS),
        Member("mean", ("observation", "column"), _DATA_UNITS),
        Member("bands", ("band", "observation", "column"), _DATA_UNITS),
        Member("log_prob", ("observation", "column"), "nats"),
        Member("crps", ("observation", "column"), _DATA_UNITS),
    ),
)
_LAYOUTS = {
    "log_likelihood": Layout(
        ScoredSeries,
        (
            Member("draws", ("draws",), "1", np.int64, optional=True),
            _counted("resolved", ("solver_error", 0), optional=True),
            Member("log_prob", ("series",), "nats"),
            Member("observations", ("series",), "1", np.int64),
            Member("cells", ("series",), "1", np.int64),
            Member("standard_error", ("series",), "nats", optional=True),
            Member("solver_error", ("resolved",), "nats", optional=True),
            Member("true_log_prob", ("series",), "nats", optional=True),
            Member("bound", ("draws", "series"), "nats", optional=True),
        ),
    ),
    "interpolation": _HELD_OUT,
    "extrapolation": _HELD_OUT,
    "curves": Layout(
        Curves,
        (
            _counted("curve", ("time", 0)),
            _counted("point", ("time", 1)),
            _counted("band", ("bands", 0)),
            _counted("latent", ("path", 2), optional=True),
            Member("of_series", ("curve",), "1", np.int64),
            Member("time", ("curve", "point"), _DATA_UNITS),
            Member("mean", ("curve", "point", "column"), _DATA_UNITS),
            Member("bands", ("band", "curve", "point", "column"), _DATA_UNITS),
            Member("cut", ("curve",), _DATA_UNITS),
            Member("path", ("curve", "point", "latent"), "1", optional=True),
        ),
    ),
    "observations": Layout(
        Observations,
        (
            _counted("observation", ("value", 0)),
            Member("of_series", ("observation",), "1", np.int64),
            Member("time", ("observation",), _DATA_UNITS),
            Member("value", ("observation", "column"), _DATA_UNITS),
            Member("truth", ("observation", "column"), _DATA_UNITS, optional=True),
        ),
    ),
    "samples": Layout(
        DrawnSeries,
        (
            Member("time", ("time",), _DATA_UNITS),
            _counted("sample", ("value", 0)),
            Member("value", ("sample", "time", "column"), _DATA_UNITS),
        ),
    ),
}
_NAMES = {"log_likelihood": "scored"}
#: What the attribute `kind` of the file says.
KIND = "series"


def write_series_results(path: Path, results: SeriesResults) -> None:
    """Write `results` to `path`, atomically; raises `ConfigurationError` if arrays disagree in shape."""
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBRARY_VERSIONS) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        write_attribute(file, "kind", KIND)
        write_attribute(file, "provenance", to_json(results.provenance))
        scales = {
            "column": write_names(file, "column", results.columns),
            "series": write_names(file, "series", results.ids),
        }
        for name, layout in _LAYOUTS.items():
            part = getattr(results, _NAMES.get(name, name))
            if part is not None:
                write_group(file.create_group(name), layout, vars(part), scales)
        write_metrics(file.create_group("metrics"), results.metrics)
    write_image(path, image, verify=read_series_results)


def read_series_results(path: Path) -> SeriesResults:
    """Read `path` as untrusted input; raises `DamagedFileError` that names the file and the member."""
    with open_untrusted(path) as file:
        version = file.integer("", "schema_version")
        if version != SCHEMA_VERSION:
            file.refuse("schema_version", f"is {version}; this flowbench reads version {SCHEMA_VERSION}")
        if not file.has("", "kind") or file.text("", "kind") != KIND:
            file.refuse("kind", f"must be `{KIND}`: the file holds no results on series")
        groups = set(file.members())
        for name in sorted(groups - {"column", "series", "metrics", *_LAYOUTS}):
            file.refuse(name, "is not part of the layout")
        columns, ids = file.texts("column"), file.texts("series")
        sizes = {"column": len(columns), "series": len(ids)}
        parts = {
            _NAMES.get(name, name): read_group(file, name, layout, sizes)
            for name, layout in _LAYOUTS.items()
            if name in groups or name == "log_likelihood"
        }
        return SeriesResults(
            columns=columns,
            ids=ids,
            metrics=read_metrics(file),
            provenance=from_json(file.text("", "provenance"), f"{path}: `provenance`"),
            **parts,
        )
