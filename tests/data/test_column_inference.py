"""What a column is taken for, by its values alone."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from flowbench.data import ColumnSchema, ReadOptions, Support, check_table
from flowbench.data.cells import Cells, cells_of_array, cells_of_arrow
from flowbench.data.column_inference import infer_column, infer_support
from flowbench.data.column_values import values_of
from flowbench.data.schema import POSITIVE, REAL

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.standard_normal(1000)


def infer(values: Any, name: str = "x") -> ColumnSchema:
    cells = cells_of_array(np.asarray(values))
    return infer_column(name, cells, values_of(cells))


def infer_arrow(array: pa.Array, name: str = "x") -> ColumnSchema:
    cells = cells_of_arrow(pa.chunked_array([array]), typed=True)
    return infer_column(name, cells, values_of(cells))


KINDS: dict[str, tuple[Any, str]] = {
    "normal": (NORMAL, "continuous"),
    "rounded": (np.round(NORMAL, 1), "continuous"),
    "whole and far apart": (np.rint(1e6 * NORMAL), "continuous"),
    "whole with negative ones": (np.rint(20 * NORMAL), "continuous"),
    "multiples of 25": (25 * np.rint(10 * np.abs(NORMAL) + 50), "continuous"),
    "Poisson": (RANDOM.poisson(20.0, 1000), "count"),
    "Poisson with missing cells": (np.where(NORMAL > 1, np.nan, RANDOM.poisson(20.0, 1000)), "count"),
    "few whole numbers, evenly spaced": (RANDOM.integers(1, 8, 1000), "count"),
    "few numbers, evenly spaced": (np.tile([0.5, 1.0, 1.5, 2.0], 250), "continuous"),
    "few whole numbers": (np.tile([1, 2, 3, 5], 250), "ordinal"),
    "few numbers": (RANDOM.choice([0.5, 1.0, 2.5, 10.0], 1000), "ordinal"),
    "few numbers, one of them once": (RANDOM.permutation([*[3.0] * 40, *[4.0] * 40, 5.0]), "ordinal"),
    "seven numbers, each once": ([1.5, 2.25, 3, 7.125, 8, 9, 20.5], "continuous"),
    "zeros and ones": (RANDOM.integers(0, 2, 50), "boolean"),
    "ones and twos": (RANDOM.integers(1, 3, 50), "ordinal"),
    "one number": ([3.0] * 20, "constant"),
    "one number and missing cells": ([3.0, np.nan, 3.0, 3.0], "constant"),
    "nothing": ([np.nan] * 20, "constant"),
    "an index": (RANDOM.permutation(np.arange(50)), "identifier"),
    "a short index": (np.arange(6), "continuous"),
    "days": (np.arange("2020-01-01", "2020-04-01", dtype="datetime64[D]"), "date"),
    "names": ([f"n{i}" for i in range(30)], "identifier"),
    "rare words": ([f"{'ab'[i % 2]}{chr(97 + i % 20)}" for i in range(40)], "identifier"),
    "nine names": ([f"n{i}" for i in range(9)], "categorical"),
    "words": (RANDOM.choice(["red", "green", "blue"], 100), "categorical"),
    "two words": (RANDOM.choice(["m", "f"], 100), "categorical"),
    "yes and no": (RANDOM.choice(["Yes", "no"], 100), "boolean"),
    "t and f": (RANDOM.choice(["t", "f"], 100), "boolean"),
    "one word": (["a"] * 30, "constant"),
    "true and false": (NORMAL > 0, "boolean"),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case: str) -> None:
    values, kind = KINDS[case]
    found = infer(values)
    assert found.kind == kind
    assert found.because


def test_names_of_identifiers_count_only_with_whole_numbers() -> None:
    codes = RANDOM.permutation(100_000)[:200]
    assert infer(codes, "patient_id").kind == "identifier"
    assert infer(codes, "price").kind == "continuous"
    assert infer(NORMAL, "patient_id").kind == "continuous"
    # One that repeats names groups of rows.
    assert infer(np.repeat(codes, 3), "patient_id").kind == "identifier"
    assert infer(np.repeat([f"p{code}" for code in codes], 3), "patient_id").kind == "identifier"
    assert infer(np.repeat(codes, 3), "paid").kind != "identifier"


def test_levels_are_counted_and_sorted() -> None:
    found = infer(["b", "a", "b", "c ", "", "b"])
    assert [(each.value, each.count) for each in found.levels] == [("a", 1), ("b", 3), ("c", 1)]
    assert (found.missing, found.distinct) == (1, 3)
    found = infer([10.0, 2.0, 2.0, np.nan] * 10)
    assert [(each.value, each.count) for each in found.levels] == [(2.0, 20), (10.0, 10)]
    assert found.missing_share == 0.25


def test_an_ordered_dictionary_gives_the_order() -> None:
    indices = pa.array([0, 2, None, 0], pa.int8())
    sizes = pa.array(["small", "middle", "large"])
    ordered = infer_arrow(pa.DictionaryArray.from_arrays(indices, sizes, ordered=True))
    assert ordered.kind == "ordinal"
    assert [(each.value, each.count) for each in ordered.levels] == [
        ("small", 2),
        ("middle", 0),
        ("large", 1),
    ]
    plain = infer_arrow(pa.DictionaryArray.from_arrays(indices, sizes))
    assert plain.kind == "categorical"
    assert [each.value for each in plain.levels] == ["large", "small"]
    numbers = infer_arrow(pa.DictionaryArray.from_arrays(indices, pa.array([30, 10, 20])))
    assert numbers.kind == "categorical"
    assert [(each.value, each.count) for each in numbers.levels] == [(20.0, 1), (30.0, 2)]


def test_arrow_booleans_and_times() -> None:
    found = infer_arrow(pa.array([True, False, None, True]))
    assert found.kind == "boolean"
    assert [(each.value, each.count) for each in found.levels] == [("false", 1), ("true", 2)]
    seconds = pa.array(RANDOM.integers(0, 86400, 500), pa.int32()).cast(pa.time32("s"))
    assert infer_arrow(seconds).kind == "time"
    assert infer_arrow(seconds).support == Support(0, 86400)
    days = pa.array(RANDOM.integers(0, 20000, 500), pa.int32()).cast(pa.date32())
    assert (infer_arrow(days).kind, infer_arrow(days).unit) == ("date", "days since 1970-01-01")


@pytest.mark.parametrize(
    ("values", "support"),
    [
        (NORMAL, "real"),
        (np.exp(NORMAL), "positive"),
        (100 + NORMAL, "real"),
        (RANDOM.beta(0.8, 0.8, 1000), "(0, 1)"),
        (100 * RANDOM.beta(0.8, 0.8, 1000), "(0, 100)"),
        (np.cos(np.pi * RANDOM.random(1000)), "(-1, 1)"),
        (360 * RANDOM.random(1000), "(0, 360)"),
        # Far from one end, beyond an end, and in other units.
        (0.5 * RANDOM.beta(0.8, 0.8, 1000), "positive"),
        (np.append(RANDOM.beta(0.8, 0.8, 1000), 1.01), "positive"),
        (2.54 * RANDOM.beta(0.8, 0.8, 1000), "positive"),
        (np.append(np.exp(NORMAL), -0.1), "real"),
        # On the bound, but no atom.
        (np.append(np.exp(NORMAL), [0.0, 0.0]), "real"),
    ],
)
def test_supports(values: np.ndarray, support: str) -> None:
    found = infer(values)
    assert (found.kind, str(found.support)) == ("continuous", support)


def test_a_bound_may_be_an_atom() -> None:
    amounts = np.where(RANDOM.random(2000) < 0.4, 0.0, RANDOM.lognormal(size=2000))
    found = infer(amounts)
    assert found.support.name == "positive"
    (atom,) = found.atoms
    assert (atom.value, atom.share) == (0.0, float((amounts == 0).mean()))
    shares = np.clip(RANDOM.beta(0.7, 0.7, 4000), 0.02, 0.98)
    shares = np.where(shares == 0.02, 0.0, np.where(shares == 0.98, 1.0, shares))
    found = infer(shares)
    assert str(found.support) == "(0, 1)"
    assert {each.value for each in found.atoms} == {0.0, 1.0}


def test_tails_against_distributions_whose_quantiles_are_known() -> None:
    from scipy import stats

    grid = (np.arange(20_000) + 0.5) / 20_000
    laws: list[tuple[Any, str]] = [
        (stats.norm, "light"), (stats.uniform, "light"), (stats.expon, "light"),
        (stats.t(3), "heavy"), (stats.lognorm(1), "heavy"), (stats.cauchy, "heavy"),
    ]  # fmt: skip
    for law, tails in laws:
        outer = law.ppf(0.99) - law.ppf(0.01)
        inner = law.ppf(0.75) - law.ppf(0.25)
        found = infer(law.ppf(grid))
        assert found.tails == tails
        (ratio,) = re.findall(r"(\S+) times as wide", found.because[-1])
        normal = stats.norm.ppf(0.99) / stats.norm.ppf(0.75)
        assert float(ratio) == pytest.approx(outer / inner / normal, rel=0.01)
    assert infer(NORMAL[:50]).tails is None


def test_spacing_is_that_of_values_that_repeat() -> None:
    assert infer(np.round(NORMAL, 1)).spacing == 0.1
    assert infer(NORMAL).spacing is None
    assert infer(RANDOM.poisson(20.0, 1000)).spacing == 1
    assert infer(25 * np.rint(10 * NORMAL)).spacing == 25


def test_what_is_amiss_is_said() -> None:
    def said(cells: Cells) -> str:
        return "; ".join(infer_column("x", cells, values_of(cells)).because)

    assert "-999 in row 8 stands apart" in said(Cells(np.insert(np.abs(NORMAL), 7, -999)))
    assert "1 cells are infinite, the first in row 3" in said(Cells(np.insert(NORMAL, 2, np.inf)))
    text = pa.chunked_array([pa.array(["1.5", "2.5", "many", *map(str, NORMAL)])])
    assert "1 cells are no numbers, such as `many` in row 3" in said(cells_of_arrow(text))
    dates = pa.chunked_array([pa.array(["03/04/2020", "05/06/2020"] * 20)])
    assert "could have the day first or the month" in said(cells_of_arrow(dates))
    assert "differ only in case: `Red`, `red`" in said(cells_of_array(np.array(["Red", "red", "blue"])))


def test_digits_beyond_float64_are_told_apart() -> None:
    codes = pa.array([2**60 + i for i in range(50)])
    assert infer_arrow(codes).kind == "identifier"
    assert infer_arrow(codes).distinct == 50


columns = st.sampled_from([values for values, _ in KINDS.values()])


@given(values=columns, seed=st.integers(0, 2**31))
@settings(max_examples=settings().max_examples // 2)
def test_the_order_of_rows_does_not_matter(values: Any, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(np.asarray(values))
    assert infer(shuffled) == infer(values)


@given(
    draw=st.sampled_from(["standard_normal", "standard_exponential", "standard_cauchy", "random"]),
    seed=st.integers(0, 2**31),
    power=st.integers(-30, 30),
)
def test_units_do_not_change_a_continuous_column(draw: str, seed: int, power: int) -> None:
    values = getattr(np.random.default_rng(seed), draw)(300)
    found, scaled = infer(values), infer(np.ldexp(values, power))
    assert found.kind == scaled.kind == "continuous"
    assert (found.tails, found.distinct, found.atoms) == (scaled.tails, scaled.distinct, scaled.atoms)
    # An interval such as (0, 1) has a unit; that 0 is a bound has none.
    assert (found.support.low == 0) == (scaled.support.low == 0) or found.support.name == "bounded"


@given(share=st.floats(0, 0.9), seed=st.integers(0, 2**31))
@settings(max_examples=settings().max_examples // 2)
def test_missing_cells_decide_nothing(share: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for values in (
        NORMAL,
        RANDOM.poisson(20.0, 1000).astype(float),
        RANDOM.integers(0, 5, 1000).astype(float),
    ):
        padded = generator.permutation(np.append(values, np.full(int(1000 * share / (1 - share)), np.nan)))
        found, whole = infer(padded), infer(values)
        assert (found.kind, found.support, found.atoms) == (whole.kind, whole.support, whole.atoms)
        assert (found.spacing, found.levels, found.tails) == (whole.spacing, whole.levels, whole.tails)


REAL_TABLES = {
    "penguins": {
        "species": "categorical", "island": "categorical", "bill_length_mm": "continuous",
        "bill_depth_mm": "continuous", "flipper_length_mm": "count", "body_mass_g": "continuous",
        "sex": "categorical", "year": "ordinal",
    },
    "faithful": {"eruptions": "continuous", "waiting": "count"},
    "cd4": {"subject": "count", "month": "continuous", "cd4": "count"},
    "pbcseq": {
        "id": "identifier", "futime": "count", "status": "ordinal", "trt": "boolean", "age": "continuous",
        "sex": "categorical", "day": "count", "ascites": "boolean", "hepato": "boolean",
        "spiders": "boolean", "edema": "ordinal", "bili": "continuous", "chol": "count",
        "albumin": "continuous", "alk.phos": "count", "ast": "continuous", "platelet": "count",
        "protime": "continuous", "stage": "count",
    },
}  # fmt: skip


def as_parquet(source: Path, folder: Path) -> Path:
    from pyarrow import csv

    parquet.write_table(csv.read_csv(source), folder / "table.parquet")
    return folder / "table.parquet"


def as_hdf5(source: Path, folder: Path) -> Path:
    import h5py
    import pandas as pd

    frame = pd.read_csv(source)
    with h5py.File(folder / "table.h5", "w", track_order=True) as file:
        for name, values in frame.items():
            data = (
                values.to_numpy() if values.dtype.kind in "if" else values.fillna("").astype(bytes).to_numpy()
            )
            file[str(name)] = data.astype("S16") if data.dtype == object else data
    return folder / "table.h5"


def as_it_is(source: Path, folder: Path) -> Path:
    return source


@pytest.mark.parametrize("name", REAL_TABLES)
@pytest.mark.parametrize("form", [as_it_is, as_parquet, as_hdf5], ids=lambda form: form.__name__)
def test_real_tables(name: str, form: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    reading = ReadOptions(missing_values=("NA",))
    found = check_table(str(form(DATASETS / f"{name}.csv", tmp_path)), reading=reading)
    assert {each.name: each.kind for each in found.columns} == REAL_TABLES[name]
    original = check_table(str(DATASETS / f"{name}.csv"))
    for mine, its in zip(found.columns, original.columns, strict=True):
        assert (mine.missing, mine.distinct, mine.levels) == (its.missing, its.distinct, its.levels)
        assert (mine.support, mine.atoms, mine.spacing) == (its.support, its.atoms, its.spacing)
    assert found.repeated_rows == original.repeated_rows


def test_pbcseq_has_a_positive_column_and_a_mass_at_0() -> None:
    found = check_table(str(DATASETS / "pbcseq.csv"))
    assert found.column("bili").support.name == "positive"
    assert found.column("bili").tails == "heavy"
    (atom,) = found.column("day").atoms
    assert (atom.value, round(atom.share * found.rows)) == (0.0, 312)
    assert found.column("chol").missing == 821


@pytest.mark.parametrize(
    ("numbers", "support"),
    [
        (np.random.default_rng(0).exponential(size=500), POSITIVE),
        (np.random.default_rng(0).beta(1, 1, 500), Support(0, 1)),
        (np.random.default_rng(0).normal(size=500), REAL),
        (np.random.default_rng(0).normal(170, 8, 500), REAL),
        (np.random.default_rng(0).poisson(3, 500).astype(float), Support(-0.5)),
        (np.random.default_rng(0).poisson(500, 500).astype(float), REAL),
        # Rounded to halves, with some at 0 and none below.
        (np.random.default_rng(0).exponential(3, size=500).round() / 2, Support(-0.25)),
        # Values on an end have a probability mass there, so that the end is no bound of a density.
        (np.random.default_rng(0).exponential(size=500) * (np.arange(500) % 5 > 0), REAL),
        (np.clip(np.random.default_rng(0).normal(0.5, 0.3, 500), 0, 1), REAL),
    ],
)
def test_the_ends_of_a_column_that_is_learnt(numbers: np.ndarray, support: Support) -> None:
    assert infer_support(numbers)[0] == support
    assert infer_support(numbers[::-1])[0] == support


def test_the_largest_numbers_are_described_as_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.8, 0.8, 400), rng.integers(-4, 5, 400) / 8
    for factor in (1.0, 2.0**1023):
        path = tmp_path / f"{factor}.parquet"
        pd.DataFrame({"a": a, "b": b, "c": (a + b) / 2}).mul(factor).to_parquet(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = check_table(str(path))
        assert [each.tails for each in found.columns] == ["light"] * 3
        assert [set(each.columns) for each in found.relations] == [{"a", "b", "c"}]
