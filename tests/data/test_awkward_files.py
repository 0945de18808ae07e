"""Awkward files: each is read correctly, or refused with an error that says what to do."""

from pathlib import Path

import numpy as np
import pytest
from awkward import CASES

from flowbench.data import ReadOptions, load_dataset
from flowbench.errors import DataError


@pytest.mark.parametrize("case", CASES)
def test_awkward_file(tmp_path: Path, case: str) -> None:
    expected = CASES[case]
    path = tmp_path / expected.name
    expected.write(path)
    name = f"{path}:{expected.inside}" if expected.inside else str(path)
    reading = ReadOptions(**expected.options)
    if expected.refuses:
        with pytest.raises(DataError) as caught:
            load_dataset(name, columns=expected.columns, reading=reading)
        message = str(caught.value)
        assert message.startswith(f"{path}")
        assert "\n" not in message
        for text in expected.refuses:
            assert text in message
        return
    dataset = load_dataset(name, columns=expected.columns, reading=reading)
    assert dataset.column_names == expected.names
    np.testing.assert_allclose(dataset.rows, expected.rows, rtol=1e-14, atol=0)
    said = "\n".join(dataset.notes)
    for text in (*expected.says, expected.learns):
        assert text in said
    assert bool(said) == bool(expected.says or expected.learns)


def test_there_are_enough() -> None:
    assert len(CASES) >= 120
