"""IDX files come back as they were written, and any other file is an error that names it."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flowbench.data import mnist
from flowbench.data.mnist import FILES, LARGEST, Bytes, read_idx, read_mnist
from flowbench.errors import DataError

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)


def idx(array: Bytes) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx")


@pytest.mark.parametrize("name", ["a", "a.gz"])
@given(array=arrays.arrays(np.uint8, SHAPES))
def test_an_array_comes_back(place: Path, name: str, array: Bytes) -> None:
    found = read_idx(write(place / name, idx(array)))
    assert found.dtype == np.uint8 and found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("name", ["b", "b.gz"])
@given(array=arrays.arrays(np.uint8, SHAPES), data=st.data())
def test_a_file_that_is_cut_short_is_an_error(
    place: Path, name: str, array: Bytes, data: st.DataObject
) -> None:
    whole = write(place / name, idx(array)).read_bytes()
    (place / name).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=str(place / name)):
        read_idx(place / name)


@settings(suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", ["c", "c.gz"])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_an_array_or_an_error(place: Path, name: str, content: bytes) -> None:
    """Both behind a valid start, and from the first byte on."""
    for start in (b"", b"\0\0\x08", b"\x1f\x8b\x08"):
        (place / name).write_bytes(start + content)
        try:
            found = read_idx(place / name)
        except DataError as error:
            assert str(place / name) in str(error)
        else:
            assert idx(found) in (start + content, gzip.decompress(start + content) if ".gz" in name else b"")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG", "begins with 89 50 4e 47"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "not an IDX file of unsigned bytes"),
        (b"\0\0\x08\0", "not an IDX file of unsigned bytes"),
        (b"\0\0\x08\xff" + bytes(2000), "number of axes of at most 4"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (b"\0\0\x08\x01" + struct.pack(">I", 5) + b"abcd", "says that it holds 5 bytes, and ends before"),
        (b"\0\0\x08\x01" + struct.pack(">I", 3) + b"abcd", "says that it holds 3 bytes, and goes on"),
        (b"\0\0\x08\x02" + struct.pack(">II", 2**32 - 1, 2**32 - 1), f"more than the {LARGEST:,}"),
    ],
)
@pytest.mark.parametrize("name", ["d", "d.gz"])
def test_the_error_says_what_is_wrong(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_idx(write(tmp_path / name, content))


def test_a_packed_file_that_is_damaged_or_not_packed_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "e.gz", idx(np.arange(200, dtype=np.uint8)))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    for content in (bytes(damaged), b"plain text", path.read_bytes()[:-6]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a whole gzip file"):
            read_idx(path)
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "none")


def test_missing_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    first = next(iter(FILES))
    write(tmp_path / first, idx(np.zeros((2, 28, 28), np.uint8)))
    with pytest.raises(DataError) as caught:
        read_mnist(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path} lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels")
    assert "--data FOLDER" in said and said.count(first) == 1


def test_files_of_another_set_are_refused(tmp_path: Path) -> None:
    for name in FILES:
        write(tmp_path / f"{name}.gz", idx(np.zeros((2, 28, 28), np.uint8)))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is not MNIST's: the sha256"):
        read_mnist(tmp_path)


def test_files_with_the_right_hashes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        name: np.full((n, 28, 28) if "images" in name else n, n, np.uint8)
        for n, name in enumerate(FILES, start=1)
    }
    monkeypatch.setattr(
        mnist, "FILES", {name: hashlib.sha256(idx(array)).hexdigest() for name, array in made.items()}
    )
    for name, array in made.items():
        # Packed or not.
        write(tmp_path / (f"{name}.gz" if "train" in name else name), idx(array))
    found = read_mnist(tmp_path)
    for array, expected in zip(
        (found.train_images, found.train_labels, found.test_images, found.test_labels),
        made.values(),
        strict=True,
    ):
        np.testing.assert_array_equal(array, expected)


def test_mnist_is_read(shared_data: Path) -> None:
    found = read_mnist(shared_data / "mnist")
    assert found.train_images.shape == (60_000, 28, 28) and found.test_images.shape == (10_000, 28, 28)
    # As the publishers count the digits of the test set.
    assert np.bincount(found.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert found.train_images.max() == 255 and len(found.train_labels) == 60_000
