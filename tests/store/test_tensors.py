"""Arrays in safetensors files: what goes in comes out, and damage is noticed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.store.tensors import read_tensors, write_tensors

dtypes = st.sampled_from(["f4", "f8", "i8", "i4", "u1", "?"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
text = st.text(st.characters(exclude_categories=["Cs"]))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 2,
)
@given(st.dictionaries(text.filter(lambda name: name != "__metadata__"), arrays), st.dictionaries(text, text))
def test_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, tensors, metadata)
    read, described = read_tensors(path)
    assert described == metadata
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert read[name].tobytes() == tensor.tobytes()


def test_views_and_foreign_byte_orders_keep_their_values(tmp_path: Path) -> None:
    a = np.arange(12.0).reshape(3, 4)
    tensors = {"transposed": a.T, "strided": a[::2, ::-1], "big-endian": a.astype(">f8")}
    write_tensors(tmp_path / "m", tensors, {})
    read, _ = read_tensors(tmp_path / "m")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
    np.testing.assert_array_equal(load_file(tmp_path / "m")["transposed"], a.T)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    metadata = {str(i): "v" for i in range(20)}
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"w": np.ones(3), "v": np.zeros(2)}, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="object"):
        write_tensors(tmp_path / "m", {"w": np.array([None])}, {})
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": np.arange(20.0), "b": np.ones((2, 3), np.float32)}, {"columns": "x,y"})
    whole = path.read_bytes()
    damaged = [
        b"",
        b"garbage" * 100,
        whole[:4],
        whole[:100],
        whole[:-1],
        whole + b"\0",
        b"\xff" * 8 + whole[8:],
    ]
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        damaged.append(bytes(changed))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DamagedFileError) as caught:
            read_tensors(path)
        assert str(path) in str(caught.value)


def test_a_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    save_file({"w": np.ones(3)}, tmp_path / "m")
    with pytest.raises(DamagedFileError, match="was not written by flowbench"):
        read_tensors(tmp_path / "m")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_a_type_that_numpy_does_not_have_is_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "m"
    write_tensors(path, {"w": np.ones(4, np.uint8)}, {})
    size = 2 if dtype == "BF16" else 1
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["w"] = {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * size]}
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + bytes(4 * size))
    with pytest.raises(DamagedFileError, match=f"the array `w` is of the type {dtype}"):
        read_tensors(path)
