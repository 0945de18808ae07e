"""Frames that an old pandas pickled are read as data; nothing that a pickle says is run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_benchmarks import pickled_frame

from flowbench.data.frame_pickle import read_frame
from flowbench.errors import DataError


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_columns_come_back_with_their_names_types_and_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "b": generator.normal(size=40),
        "n": generator.integers(-9, 9, 40),
        "a": generator.normal(size=40),
        "big": generator.normal(size=40).astype(">f4"),
    }
    found = read_frame(written(tmp_path / "f.pickle", pickled_frame(columns)))
    assert list(found) == list(columns)
    for name, values in columns.items():
        assert found[name].dtype.kind == values.dtype.kind
        np.testing.assert_array_equal(found[name], values)


def test_the_pickle_is_like_those_of_python_2() -> None:
    # Python's own reader gets as far as the modules that are gone.
    with pytest.raises(ModuleNotFoundError, match=r"pandas\.indexes|pandas\.core\.internals|numpy\.core"):
        pickle.loads(pickled_frame({"a": np.arange(3.0)}), encoding="latin-1")


def test_nothing_is_called(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    attack = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    with pytest.raises(DataError, match="something else than a data frame"):
        read_frame(written(tmp_path / "f.pickle", attack))
    assert not mark.exists()


def test_a_frame_of_foreign_things_is_refused(tmp_path: Path) -> None:
    content = pickled_frame({"a": np.arange(5.0)}).replace(b"_reconstruct", b"_reconstrukt")
    with pytest.raises(DataError, match=r"something else where an array is expected"):
        read_frame(written(tmp_path / "f.pickle", content))


@pytest.mark.parametrize("values", [np.array(["x", "y"], dtype=object), np.array([1 + 2j, 3])])
def test_columns_that_are_no_numbers_are_refused(tmp_path: Path, values: Any) -> None:
    with pytest.raises(DataError, match=r"f\.pickle: the frame holds values of type"):
        read_frame(written(tmp_path / "f.pickle", pickled_frame({"a": values})))


def test_damage_anywhere_is_a_data_error_or_harmless(tmp_path: Path) -> None:
    content = pickled_frame({"a": np.arange(5.0), "b": np.arange(5)})
    generator = np.random.default_rng(1)
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] = generator.integers(256)
        for damaged in (bytes(broken), content[:place]):
            try:
                found = read_frame(written(tmp_path / "f.pickle", damaged))
            except DataError as error:
                assert "f.pickle" in str(error)
            else:
                assert all(isinstance(values, np.ndarray) for values in found.values())
