"""Rows that are drawn in parts: types, levels and given columns are those of rows drawn at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from flowbench.store import Run
from flowbench.workflows import in_parts
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.fit import fit
from flowbench.workflows.home import Home
from flowbench.workflows.sampling import sample, sample_to

PART = 50
ENDINGS = [".parquet", ".feather", ".csv", ".h5"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def small(path: Path, **overrides: Any) -> RunConfig:
    sizes = {"test_rows": 20, "samples": 20, "grid": 12, "certificates": False}
    return resolve(str(path), "gaussian", overrides={"evaluation": sizes, **overrides})


@pytest.fixture(scope="module")
def mixed(home: Home) -> Run:
    """A run on whole numbers of few bits, dates, decimals and levels."""
    rng = np.random.default_rng(0)
    n = 400
    table = pa.table(
        {
            "kind": rng.choice(["red", "blue"], n),
            "size": rng.normal(100, 12, n).round().clip(max=127).astype(np.int8),
            "when": pa.array(19_000 + rng.integers(0, 400, n), pa.int32()).cast(pa.date32()),
            "price": pa.array(rng.normal(20, 3, n).round(2)).cast(pa.decimal128(8, 2)),
            "x": rng.normal(size=n),
        }
    )
    parquet.write_table(table, home.path / "mixed.parquet")
    return fit(small(home.path / "mixed.parquet", **{"data.dequantise": "none"}), home=home)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_in_parts_is_the_file_of_the_same_rows(
    home: Home, mixed: Run, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts differ in the types that their own values would allow; the file has those of all of them."""
    monkeypatch.setattr(in_parts, "PART_ROWS", PART)
    whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    drawn = sample(mixed, 330, home=home)
    drawn.save(whole, mixed)
    sums, _ = sample_to(parts, mixed, 330, home=home)
    assert sums.rows == 330 and not list(tmp_path.glob("*.parts"))
    if ending == ".csv":
        assert whole.read_bytes() == parts.read_bytes()
    elif ending == ".parquet":
        assert parquet.read_table(parts).equals(parquet.read_table(whole), check_metadata=True)
    elif ending == ".feather":
        assert pd.read_feather(parts).equals(pd.read_feather(whole))
    else:
        import h5py

        with h5py.File(whole) as one, h5py.File(parts) as other:
            assert list(one) == list(other)
            for name in one:
                assert one[name].dtype == other[name].dtype
                np.testing.assert_array_equal(one[name][()], other[name][()])
                assert one[name].attrs["units"] == other[name].attrs["units"]
    # Some parts alone would fit into a narrower type, and some would not.
    sizes = drawn.x[:, drawn.columns.index("size")]
    own = {drawn.types["size"].typed(sizes[k : k + PART]).dtype for k in range(0, 330, PART)}
    assert own == {np.dtype(np.int8), np.dtype(np.int64)}, sizes.max()


def test_each_row_of_givens_keeps_its_draws(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    pd.DataFrame(rng.normal(size=(100, 2)), columns=["y", "t"]).to_csv(home.path / "pairs.csv", index=False)
    run = fit(small(home.path / "pairs.csv", **{"data.given": ["t"]}), home=home)
    times = np.linspace(-1, 1, 30)
    pd.DataFrame({"t": times}).to_csv(tmp_path / "times.csv", index=False)
    monkeypatch.setattr(in_parts, "PART_ROWS", PART)
    drawn = sample(run, 4, given=str(tmp_path / "times.csv"), home=home)
    assert drawn.context is not None
    np.testing.assert_array_equal(drawn.context[:, 0], times.repeat(4))
    assert len(np.unique(drawn.x)) == 120
    sample_to(tmp_path / "out.csv", run, 4, given=str(tmp_path / "times.csv"), home=home)
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "out.csv")["y"], drawn.x[:, 0])
