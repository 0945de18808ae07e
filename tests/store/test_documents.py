"""JSON and TOML documents come back as they were written."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.store.documents import from_json, read_json, read_toml, to_json, write_json, write_toml

SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 2,
)

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(text, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans())
finite = st.one_of(
    text, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4))
    )
    return st.dictionaries(text, values, max_size=5)


@SAME_FOLDER
@given(nested(scalars))
def test_toml_round_trip(tmp_path: Path, values: dict[str, Any]) -> None:
    write_toml(tmp_path / "config.toml", values)
    read = read_toml(tmp_path / "config.toml")
    # As text, because True is not 1 and 1.0 is not 1; sorted, because TOML puts tables last.
    assert json.dumps(read, sort_keys=True) == json.dumps(values, sort_keys=True)


@SAME_FOLDER
@given(nested(finite))
def test_json_round_trip(tmp_path: Path, values: dict[str, Any]) -> None:
    write_json(tmp_path / "run.json", values)
    assert repr(read_json(tmp_path / "run.json")) == repr(values)
    assert "\n" not in to_json(values)
    assert repr(from_json(to_json(values), "line")) == repr(values)


def test_toml_leaves_none_out_at_every_depth(tmp_path: Path) -> None:
    values = {"a": None, "b": {"c": None, "d": 1}, "phases": [{"steps": None, "rate": 1e-3}]}
    write_toml(tmp_path / "config.toml", values)
    assert read_toml(tmp_path / "config.toml") == {"b": {"d": 1}, "phases": [{"rate": 1e-3}]}


def test_toml_takes_tuples_numpy_values_paths_and_infinity(tmp_path: Path) -> None:
    values = {"a": (1, 2), "b": np.float32(0.5), "c": Path("x/y.csv"), "d": math.inf, "e": np.arange(2)}
    write_toml(tmp_path / "config.toml", values)
    assert read_toml(tmp_path / "config.toml") == {
        "a": [1, 2],
        "b": 0.5,
        "c": "x/y.csv",
        "d": math.inf,
        "e": [0, 1],
    }


@pytest.mark.parametrize("value", [{1, 2}, object(), [1, None]])
def test_toml_refuses_what_it_cannot_hold(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be written to .*config\.toml"):
        write_toml(tmp_path / "config.toml", {"a": value})
    assert not list(tmp_path.iterdir())


def test_json_has_no_nan_and_no_numpy(tmp_path: Path) -> None:
    values = {"a": math.nan, "b": [np.float64(math.inf), np.int32(3)], "c": (np.bool_(True),), "d": Path("x")}
    assert from_json(to_json(values), "line") == {"a": None, "b": [None, 3], "c": [True], "d": "x"}


def test_json_survives_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"command": ["fit", b"caf\xe9.csv".decode(errors="surrogateescape")]})
    assert read_json(tmp_path / "run.json") == {"command": ["fit", "caf?.csv"]}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe\xfa", b"[1]", b"null", b"\x00" * 50, b'{"a": ' * 100_000], ids=repr
)
def test_damaged_json_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(damage)
    with pytest.raises(DamagedFileError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [b"a = ", b"\xff\xfe", b"a = 1\na = 2", b"\x00", b"a = " + b"[" * 100_000])
def test_damaged_toml_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(damage)
    with pytest.raises(DamagedFileError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*run\.json: No such file"):
        read_json(tmp_path / "run.json")
