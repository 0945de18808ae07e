"""results.h5: what goes in comes out, other tools can read it, and its storage is as promised."""

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowbench.errors import ConfigurationError
from flowbench.store import (
    Calibration,
    Certificate,
    Grid,
    Metric,
    Results,
    RowSplit,
    Samples,
    ScoredRows,
    SlicePlanes,
    Slices,
    Trajectory,
)
from flowbench.store.hdf5 import MAX_CHUNK_BYTES, chunk_shape, read_results, write_results

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
json_values = st.one_of(text, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none())
metric_names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,10}", fullmatch=True)


def floats(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays("f8", shape, elements=st.floats(width=64))


def integers(n: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays("i8", n)


@st.composite
def results(draw: Any) -> Results:
    n, m, d, nx, ny, k, p = (draw(st.integers(0, 6)) for _ in range(7))
    return Results(
        columns=tuple(draw(st.lists(text, min_size=d, max_size=d))),
        scored=ScoredRows(
            draw(integers(n)), draw(floats(n, d)), draw(floats(n)), draw(st.none() | floats(n))
        ),
        samples=Samples(draw(floats(m, d)), draw(floats(m))),
        split=RowSplit(draw(integers(n)), draw(integers(m)), draw(integers(k))),
        metrics=draw(st.dictionaries(metric_names, st.builds(Metric, st.floats(), text), max_size=4)),
        grid=draw(
            st.none() | st.builds(Grid, floats(nx), floats(ny), floats(nx, ny), st.none() | floats(nx, ny))
        ),
        trajectory=draw(st.none() | st.builds(Trajectory, floats(k), floats(k, p, d))),
        provenance=draw(st.dictionaries(text, json_values | st.lists(json_values, max_size=3), max_size=4)),
    )


def assert_same(a: Any, b: Any) -> None:
    if dataclasses.is_dataclass(a):
        assert type(a) is type(b)
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert repr(a) == repr(b)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 2,
)
@given(results())
def test_round_trip(tmp_path: Path, original: Results) -> None:
    write_results(tmp_path / "results.h5", original)
    assert_same(read_results(tmp_path / "results.h5"), original)


@pytest.fixture
def example() -> Results:
    draw = np.random.default_rng(0).normal
    return Results(
        columns=("eruptions", "Wartezeit für x"),
        scored=ScoredRows(np.array([7, 3, 9]), draw(size=(3, 2)), draw(size=3), draw(size=3), draw(size=3)),
        samples=Samples(draw(size=(6, 2)), draw(size=6), draw(size=6)),
        split=RowSplit(np.arange(8), np.arange(2), np.array([7, 3, 9])),
        metrics={"nll_nats": Metric(2.5, "nats"), "wall_seconds": Metric(math.inf, "seconds")},
        grid=Grid(np.arange(4.0), np.arange(5.0), draw(size=(4, 5)), draw(size=(4, 5))),
        trajectory=Trajectory(np.linspace(0, 1, 3), draw(size=(3, 4, 2))),
        calibration=Calibration(np.array([7, 3, 9]), draw(size=3), draw(size=(3, 2)), draw(size=3)),
        certificates={"round_trip": Certificate(2e-6, 1e-3, "1", True, "rows come back")},
        provenance={"sha256": "ab", "seeds": [1, 2]},
    )


def test_slices_of_a_conditional_density_come_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).normal
    original = Results(
        columns=("y",),
        given=("a", "b"),
        scored=ScoredRows(np.arange(3), draw(size=(3, 1)), draw(size=3), context=draw(size=(3, 2))),
        samples=Samples(draw(size=(6, 1)), draw(size=6), context=draw(size=(6, 2))),
        split=RowSplit(np.arange(8), np.arange(2), np.arange(3)),
        metrics={},
        slices=Slices(draw(size=(2, 2)), draw(size=2), draw(size=(2, 5)), draw(size=(2, 5))),
    )
    path = tmp_path / "results.h5"
    write_results(path, original)
    assert_same(read_results(path), original)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        slices = tree["slices"]
        assert slices["log_prob"].dims == slices["y"].dims == ("slice", "point")
        assert slices["context"].dims == ("slice", "given")
        assert list(np.asarray(slices["given"])) == ["a", "b"]


def test_planes_of_a_conditional_density_come_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).normal
    planes = SlicePlanes(*(draw(size=size) for size in [(3, 2), (3, 2), (3, 4), (3, 5), (3, 4, 5)]))
    original = Results(
        columns=("y", "z"),
        given=("a", "b"),
        scored=ScoredRows(np.arange(3), draw(size=(3, 2)), draw(size=3), context=draw(size=(3, 2))),
        samples=Samples(draw(size=(6, 2)), draw(size=6), context=draw(size=(6, 2))),
        split=RowSplit(np.arange(8), np.arange(2), np.arange(3)),
        metrics={},
        slice_planes=planes,
    )
    path = tmp_path / "results.h5"
    write_results(path, original)
    assert_same(read_results(path), original)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["slice_planes"]["log_prob"].dims == ("slice", "x_point", "y_point")


DIMENSIONS = {
    "log_likelihood": {
        "row": ("row",), "x": ("row", "column"), "log_prob": ("row",), "true_log_prob": ("row",),
        "log_prob_error": ("row",),
    },
    "samples": {
        "sample": ("sample",), "x": ("sample", "column"), "log_prob": ("sample",),
        "log_prob_error": ("sample",),
    },
    "split": {"train": ("train",), "validation": ("validation",), "test": ("test",)},
    "grid": {"x": ("x",), "y": ("y",), "log_prob": ("x", "y"), "true_log_prob": ("x", "y")},
    "trajectory": {
        "time": ("time",), "particle": ("particle",), "position": ("time", "particle", "column")
    },
    "calibration": {
        "row": ("row",), "density_rank": ("row",), "column_quantile": ("row", "column"),
        "radial_quantile": ("row",),
    },
    "metrics": {"nll_nats": (), "wall_seconds": ()},
    "certificates": {"round_trip": ()},
}  # fmt: skip


def test_xarray_opens_every_group_with_its_dimensions(tmp_path: Path, example: Results) -> None:
    path = tmp_path / "results.h5"
    write_results(path, example)
    for group, dimensions in DIMENSIONS.items():
        with xr.open_dataset(path, engine="h5netcdf", group=group) as dataset:
            assert {name: variable.dims for name, variable in dataset.variables.items()} == dimensions
            assert all("units" in variable.attrs for variable in dataset.variables.values())
    with xr.open_dataset(path, engine="h5netcdf", group="log_likelihood") as dataset:
        np.testing.assert_array_equal(dataset.row, example.scored.row)
        np.testing.assert_array_equal(dataset.log_prob, example.scored.log_prob)
        assert dataset.log_prob.units == "nats"
    with xr.open_dataset(path, engine="h5netcdf", group="metrics") as dataset:
        assert float(dataset.nll_nats) == 2.5
        assert dataset.wall_seconds.units == "seconds"


def test_xarray_shows_the_columns_and_the_provenance(tmp_path: Path, example: Results) -> None:
    write_results(tmp_path / "results.h5", example)
    with xr.open_datatree(tmp_path / "results.h5", engine="h5netcdf") as tree:
        assert tree.attrs["schema_version"] == 1
        assert '"sha256": "ab"' in tree.attrs["provenance"]
        x = tree["samples"].x.sel(column="Wartezeit für x")
        np.testing.assert_array_equal(x, example.samples.x[:, 1])


def test_arrays_are_compressed_checked_and_chunked(tmp_path: Path, example: Results) -> None:
    n = 300_000
    large = dataclasses.replace(example, samples=Samples(np.ones((n, 2)), np.ones(n)))
    write_results(tmp_path / "results.h5", large)
    assert (tmp_path / "results.h5").stat().st_size < 1_000_000

    def check(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset) and member.ndim > 0 and name != "column":
            assert (member.compression, member.shuffle, member.fletcher32) == ("gzip", True, True)
            size = math.prod(member.chunks) * 8
            assert 64 * 1024 <= size <= MAX_CHUNK_BYTES or member.chunks == member.shape

    with h5py.File(tmp_path / "results.h5") as file:
        file.visititems(check)


@given(hnp.array_shapes(max_dims=4, max_side=3000))
def test_chunks_of_large_arrays_are_between_64_kib_and_1_mib(shape: tuple[int, ...]) -> None:
    chunk = chunk_shape(shape, 8)
    size = math.prod(chunk) * 8
    assert all(1 <= part <= whole for part, whole in zip(chunk, shape, strict=True))
    assert size <= MAX_CHUNK_BYTES
    assert chunk == shape or size >= 64 * 1024


def test_the_same_results_give_the_same_bytes(tmp_path: Path, example: Results) -> None:
    write_results(tmp_path / "a.h5", example)
    write_results(tmp_path / "b.h5", example)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()

    # The two may fall into one second, so equal bytes alone do not show that no time is stored.
    def check(name: str, member: Any) -> None:
        assert not member.id.get_create_plist().get_obj_track_times(), name

    with h5py.File(tmp_path / "a.h5") as file:
        file.visititems(check)


def test_long_provenance_is_kept(tmp_path: Path, example: Results) -> None:
    long = dataclasses.replace(example, provenance={"log": "x" * 300_000})
    write_results(tmp_path / "results.h5", long)
    assert read_results(tmp_path / "results.h5").provenance == long.provenance


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"samples": Samples(np.ones((3, 2)), np.ones(4))}, r"`samples/log_prob` has the shape \(4,\)"),
        ({"samples": Samples(np.ones((3, 3)), np.ones(3))}, r"`samples/x` has the shape \(3, 3\)"),
        ({"samples": Samples(np.ones((3, 2)), np.ones((3, 1)))}, "`samples/log_prob`"),
        ({"scored": ScoredRows(np.arange(3), np.ones((3, 2)), cast(Any, None))}, "`log_likelihood/log_prob`"),
        ({"grid": Grid(np.ones(2), np.ones(3), np.ones((3, 2)))}, "`grid/log_prob`"),
        ({"columns": ("only one",)}, "`log_likelihood/x`"),
        ({"columns": ("a", "b\0")}, "zero byte"),
        ({"columns": ("a", "\udc80")}, "not valid Unicode"),
        ({"metrics": {"a/b": Metric(1.0, "1")}}, "a metric cannot be called `a/b`"),
        ({"metrics": {"": Metric(1.0, "1")}}, "a metric cannot be called"),
        ({"provenance": {"a": object()}}, "stored as JSON"),
    ],
)
def test_results_that_disagree_are_refused_and_nothing_is_written(
    tmp_path: Path, example: Results, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        write_results(tmp_path / "results.h5", dataclasses.replace(example, **change))
    assert not list(tmp_path.iterdir())
