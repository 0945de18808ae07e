"""A results file that is damaged or made to do harm is refused by name, before its data are read."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.store import Metric, Results, RowSplit, Samples, ScoredRows, safe_hdf5
from flowbench.store.hdf5 import read_results, write_results

RESULTS = Results(
    columns=("x", "y"),
    scored=ScoredRows(np.arange(4), np.ones((4, 2)), np.ones(4)),
    samples=Samples(np.ones((3, 2)), np.ones(3)),
    split=RowSplit(np.arange(8), np.arange(2), np.arange(4)),
    metrics={"nll_nats": Metric(1.0, "nats")},
)
FLOAT = np.dtype("f8")
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_results(tmp_path / "results.h5", RESULTS)
    return tmp_path / "results.h5"


def replacing(member: str, **new: object) -> Callable[[h5py.File], None]:
    """A change that puts another dataset in the place of `member`."""

    def change(file: h5py.File) -> None:
        del file[member]
        file.create_dataset(member, **new)

    return change


def linking(member: str, link: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[member]
        file[member] = link

    return change


def virtual(file: h5py.File) -> None:
    del file["samples/log_prob"]
    layout = h5py.VirtualLayout((3,), FLOAT)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "secret", (3,))
    file.create_virtual_dataset("samples/log_prob", layout)


def named_type(file: h5py.File) -> None:
    del file["samples/log_prob"]
    file["samples/log_prob"] = FLOAT


def group_for_dataset(file: h5py.File) -> None:
    del file["samples/log_prob"]
    file.create_group("samples/log_prob")


def unknown_filter(file: h5py.File) -> None:
    del file["samples/log_prob"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((3,))
    properties.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(
        file["samples"].id, b"log_prob", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((3,)), properties
    )


def removing_attribute(member: str, name: str) -> Callable[[h5py.File], None]:
    return lambda file: file[member].attrs.__delitem__(name)


def attribute(member: str, name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[member].attrs.__setitem__(name, value)


def removing(member: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(member)


ONES = np.ones(3)
CHANGES: dict[str, tuple[str, Callable[[h5py.File], None]]] = {
    # Pointing elsewhere.
    "soft link": ("samples/log_prob", linking("samples/log_prob", h5py.SoftLink("/samples/sample"))),
    "dangling soft link": ("samples/x", linking("samples/x", h5py.SoftLink("/nowhere"))),
    "soft link for a group": ("samples", linking("samples", h5py.SoftLink("/split"))),
    "external link": ("samples/x", linking("samples/x", h5py.ExternalLink("secret.h5", "/x"))),
    "external link for a group": ("samples", linking("samples", h5py.ExternalLink("secret.h5", "/"))),
    "external link for a metric": (
        "metrics/nll_nats",
        linking("metrics/nll_nats", h5py.ExternalLink("/etc/passwd", "/")),
    ),
    "external storage": (
        "samples/log_prob",
        replacing("samples/log_prob", shape=(3,), dtype=FLOAT, external=[("/etc/passwd", 0, 24)]),
    ),
    "virtual dataset": ("samples/log_prob", virtual),
    # Types.
    "text for numbers": ("samples/log_prob", replacing("samples/log_prob", data=["a", "b", "c"])),
    "ragged": ("samples/log_prob", replacing("samples/log_prob", shape=(3,), dtype=h5py.vlen_dtype(FLOAT))),
    "references": ("samples/log_prob", replacing("samples/log_prob", shape=(3,), dtype=h5py.ref_dtype)),
    "regions": ("samples/log_prob", replacing("samples/log_prob", shape=(3,), dtype=h5py.regionref_dtype)),
    "opaque": ("samples/log_prob", replacing("samples/log_prob", data=np.zeros(3, "V8"))),
    "compound": ("samples/log_prob", replacing("samples/log_prob", data=np.zeros(3, [("a", "f8")]))),
    "enumeration": ("split/test", replacing("split/test", shape=(3,), dtype=h5py.enum_dtype({"a": 1}, "i8"))),
    "complex": ("samples/log_prob", replacing("samples/log_prob", data=ONES.astype(complex))),
    "integers for floats": ("samples/log_prob", replacing("samples/log_prob", data=np.arange(3))),
    "float32": ("samples/log_prob", replacing("samples/log_prob", data=ONES.astype("f4"))),
    "unsigned rows": ("split/test", replacing("split/test", data=np.arange(3, dtype="u8"))),
    "names of variable length": ("column", replacing("column", data=["x", "y"], dtype=h5py.string_dtype())),
    "column names that are numbers": ("column", replacing("column", data=np.arange(2))),
    # Sizes and storage.
    "petabytes": (
        "log_likelihood/row",
        replacing("log_likelihood/row", shape=(10**15,), dtype="i8", chunks=(1000,)),
    ),
    "petabytes of names": ("column", replacing("column", shape=(10**12,), dtype="S1000", chunks=(1000,))),
    "huge chunks": (
        "split/train",
        replacing("split/train", shape=(2**23,), dtype="i8", chunks=(2**23,), compression="gzip"),
    ),
    "another filter": ("samples/log_prob", replacing("samples/log_prob", data=ONES, compression="lzf")),
    "a filter that needs a plug-in": ("samples/log_prob", unknown_filter),
    # Layout.
    "no values": ("samples/log_prob", replacing("samples/log_prob", data=h5py.Empty("f8"))),
    "another length": ("samples/log_prob", replacing("samples/log_prob", data=np.ones(4))),
    "another number of axes": ("samples/log_prob", replacing("samples/log_prob", data=np.ones((3, 1)))),
    "another number of columns": ("samples/x", replacing("samples/x", data=np.ones((3, 3)))),
    "a table of names": ("column", replacing("column", data=np.array([[b"x", b"y"]]))),
    "a vector for a metric": ("metrics/nll_nats", replacing("metrics/nll_nats", data=ONES)),
    "no dataset": ("samples/log_prob", removing("samples/log_prob")),
    "no group": ("samples", removing("samples")),
    "no metrics": ("metrics", removing("metrics")),
    "no columns": ("column", removing("column")),
    "an unknown dataset": ("samples/more", lambda file: file["samples"].create_dataset("more", data=ONES)),
    "an unknown group": ("extra", lambda file: file.create_group("extra")),
    "a dataset for a group": ("samples", replacing("samples", data=ONES)),
    "a group for a dataset": ("samples/log_prob", group_for_dataset),
    "a named type for a dataset": ("samples/log_prob", named_type),
    # Attributes.
    "no schema version": ("/", removing_attribute("/", "schema_version")),
    "a later schema version": ("schema_version", attribute("/", "schema_version", 2)),
    "a schema version in words": ("/", attribute("/", "schema_version", np.bytes_("one"))),
    "several schema versions": ("/", attribute("/", "schema_version", [1, 1])),
    "no provenance": ("/", removing_attribute("/", "provenance")),
    "provenance that is not JSON": ("provenance", attribute("/", "provenance", np.bytes_("{"))),
    "provenance that is no object": ("provenance", attribute("/", "provenance", np.bytes_("[1]"))),
    "units of variable length": ("metrics/nll_nats", attribute("metrics/nll_nats", "units", "nats")),
    "units that are references": (
        "metrics/nll_nats",
        lambda file: file["metrics/nll_nats"].attrs.create("units", file.ref, dtype=h5py.ref_dtype),
    ),
    "no units": ("metrics/nll_nats", removing_attribute("metrics/nll_nats", "units")),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_breaks_the_rules_is_refused_by_name(path: Path, kind: str) -> None:
    member, change = CHANGES[kind]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DamagedFileError) as caught:
        read_results(path)
    assert f"{path}: `{member}`" in str(caught.value)


def test_the_bound_is_on_all_members_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_hdf5, "MAX_BYTES", 200)
    with pytest.raises(DamagedFileError, match="`samples/x` declares too much"):
        read_results(path)
    monkeypatch.setattr(safe_hdf5, "MAX_BYTES", 1000)
    read_results(path)


def test_a_linked_file_is_not_even_opened(path: Path) -> None:
    with h5py.File(path.with_name("secret.h5"), "w") as secret:
        secret["x"] = np.full((3, 2), 42.0)
    with h5py.File(path, "r+") as file:
        linking("samples/x", h5py.ExternalLink("secret.h5", "/x"))(file)
        np.testing.assert_array_equal(file["samples/x"], 42.0)  # the plain way follows the link
    with pytest.raises(DamagedFileError, match="soft or external link"):
        read_results(path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, SIGNATURE, SIGNATURE + b"\xff" * 4000])
def test_what_is_no_hdf5_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


def test_every_truncated_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_results(path)


def test_a_changed_byte_is_refused_or_changes_nothing(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= chance.randrange(1, 256)
        path.write_bytes(changed)
        try:
            assert repr(read_results(path)) == repr(RESULTS)
        except DamagedFileError:
            refused += 1
    assert refused > 200


def test_a_damaged_member_is_named(path: Path) -> None:
    with h5py.File(path) as file:
        where = file["log_likelihood/x"].id.get_chunk_info(0).byte_offset
    changed = bytearray(path.read_bytes())
    changed[where + 4] ^= 0xFF
    path.write_bytes(changed)
    with pytest.raises(DamagedFileError, match="`log_likelihood/x` cannot be read"):
        read_results(path)


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_results(tmp_path / "results.h5")


def test_optional_members_may_be_absent(path: Path) -> None:
    results = read_results(path)
    assert results.grid is None
    assert results.trajectory is None
    assert results.scored.true_log_prob is None
    assert json.dumps(results.provenance) == "{}"
