"""What drawn rows are judged by, and the tables whose likelihoods are known."""

import importlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import dblquad
from sklearn.metrics import pairwise_distances

if TYPE_CHECKING:
    from benchmarks.known_tables import SHARES, TABLES
    from benchmarks.mixed import SOURCES, judge, split
else:
    # A source distribution holds the tests without the benchmarks.
    known_tables = pytest.importorskip("benchmarks.known_tables")
    mixed = importlib.import_module("benchmarks.mixed")
    SHARES, TABLES = known_tables.SHARES, known_tables.TABLES
    SOURCES, judge, split = mixed.SOURCES, mixed.judge, mixed.split


def rows_of(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    return pd.DataFrame({"x": rng.normal(size=n) + (level == "a") * 3 + shift, "level": level})


def test_rows_of_one_distribution_are_not_told_apart() -> None:
    found = judge(rows_of(2000, 0), rows_of(1000, 1), rows_of(1000, 2), 0)
    assert found["C2ST"] == pytest.approx(0.5, abs=0.05)
    assert found["nearer"] == pytest.approx(0.5, abs=0.05)
    # 99% of the Kolmogorov-Smirnov distances of two samples of 1,000 are below 0.073.
    assert found["columns"] < 0.073
    assert found["pairs"] < 0.1
    assert found["copies"] == found["lost"] == 0


def test_what_is_wrong_with_rows_is_seen() -> None:
    learnt, held_out = rows_of(2000, 0), rows_of(1000, 1)
    shifted = judge(learnt, held_out, rows_of(1000, 2, shift=1.0), 0)
    assert shifted["C2ST"] > 0.65
    assert shifted["columns"] > 0.1
    apart = held_out.assign(level=np.random.default_rng(3).permutation(held_out["level"]))
    unlinked = judge(learnt, held_out, apart, 0)
    assert unlinked["columns"] == 0
    assert unlinked["pairs"] > 0.3
    assert unlinked["C2ST"] > 0.62
    copied = judge(learnt, held_out, learnt.iloc[:1000], 0)
    assert copied["copies"] == 1
    assert copied["nearer"] > 0.7
    gaps = rows_of(1000, 2)
    gaps.loc[:99, "x"] = np.nan
    assert judge(learnt, held_out, gaps, 0)["lost"] == pytest.approx(0.1)


def test_distances_of_columns_and_pairs_are_total_variation() -> None:
    learnt = pd.DataFrame({"u": ["a"] * 5 + ["b"] * 5, "v": ["s", "t"] * 5})
    held_out = pd.DataFrame({"u": ["a", "a", "b", "b"] * 5, "v": ["s", "t", "s", "t"] * 5})
    drawn = pd.DataFrame({"u": ["a", "a", "a", "b"], "v": ["s", "s", "t", "t"]})
    found = judge(learnt, held_out, pd.concat([drawn] * 5), 0)
    assert found["columns"] == pytest.approx((0.25 + 0) / 2)
    # The cells (a, s), (a, t), (b, s), (b, t) have shares 1/4 each, and 2/4, 1/4, 0, 1/4.
    assert found["pairs"] == pytest.approx(0.25)


def test_a_level_that_differs_counts_as_one_standard_deviation() -> None:
    learnt, held_out, drawn = rows_of(60, 0), rows_of(60, 1), rows_of(200, 2)
    scale = learnt["x"].std(ddof=0)
    to = {
        name: (pairwise_distances(drawn[["x"]] / scale, part[["x"]] / scale) ** 2
               + (drawn["level"].to_numpy()[:, None] != part["level"].to_numpy())).min(1)
        for name, part in (("learnt", learnt), ("held out", held_out))
    }  # fmt: skip
    nearer = (to["learnt"] < to["held out"]) + 0.5 * (to["learnt"] == to["held out"])
    assert judge(learnt, held_out, drawn, 0)["nearer"] == pytest.approx(nearer.mean())


def test_a_split_holds_every_row_once() -> None:
    table = rows_of(90, 0)
    learnt, held_out = split(table, 1)
    assert (len(learnt), len(held_out)) == (60, 30)
    both = pd.concat([learnt, held_out]).sort_values(["x"])
    pd.testing.assert_frame_equal(both.reset_index(drop=True), table.sort_values("x").reset_index(drop=True))
    assert not split(table, 2)[0].equals(learnt)


def test_levels_come_before_the_eleventh_column() -> None:
    """ForestDiffusion tells levels apart by names of columns, which breaks from the eleventh on."""
    assert all(len(source.columns) <= 11 for source in SOURCES.values())


@pytest.mark.parametrize("name", ["bounded", "periodic"])
def test_a_known_density_adds_up_to_one(name: str) -> None:
    table = TABLES[name]
    first, second = table.sample(1, np.random.default_rng(0)).columns
    ends = {"bounded": ((0, 40), (0, 1)), "periodic": ((0, 360), (-4, 4))}[name]

    def density(b: float, a: float) -> float:
        return float(np.exp(table.log_prob(pd.DataFrame({first: [a], second: [b]})))[0])

    whole, _ = dblquad(density, *ends[0], *ends[1], epsabs=1e-4, epsrel=1e-4)
    assert whole == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["zero-inflated", "censored"])
def test_a_known_table_with_atoms_adds_up_to_one(name: str) -> None:
    table = TABLES[name]
    (column, (value, share)), *_ = table.atoms.items()
    ends = {"zero-inflated": (1e-9, 60.0), "censored": (-250.0, 100.0)}[name]
    x = np.linspace(-6, 6, 241)
    y = np.linspace(*ends, 24_002)[1:-1]
    mass = np.exp(table.log_prob(pd.DataFrame({"x": x, column: value})))
    beside = [
        np.exp(table.log_prob(pd.DataFrame({"x": each, column: y}))).sum() * (y[1] - y[0]) for each in x
    ]
    assert mass.sum() * 0.05 == pytest.approx(share, abs=1e-6)
    assert np.sum(beside) * 0.05 == pytest.approx(1 - share, abs=2e-3)


@pytest.mark.parametrize("name", list(TABLES))
def test_draws_have_the_shares_of_the_truth(name: str) -> None:
    table = TABLES[name]
    rows = table.sample(20_000, np.random.default_rng(1))
    for column, (low, high) in table.support.items():
        assert rows[column].between(low, high).all()
    for column, (value, share) in table.atoms.items():
        assert (rows[column] == value).mean() == pytest.approx(share, abs=4 * (share / 20_000) ** 0.5)
    if name == "mixed":
        counts = rows[["kind", "member"]].value_counts(normalize=True)
        assert all(counts[pair] == pytest.approx(share, abs=0.015) for pair, share in SHARES.items())
