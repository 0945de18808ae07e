"""Batches of series, and the noise that each series has of its own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from small_series import ragged

from flowbench.errors import ConfigurationError
from flowbench.models.series.batch import SeriesBatch, union_of_times
from flowbench.models.series.noise import SeriesNoise


def check(batch: SeriesBatch, series: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The batch holds these series, and zeros where nothing was observed."""
    assert batch.lengths.tolist() == [len(times) for times, _ in series]
    assert batch.times.shape[1] == int(batch.lengths.max())
    assert torch.equal(batch.values[~batch.observed], torch.zeros(int((~batch.observed).sum())).double())
    assert torch.equal(batch.present.sum(1), batch.lengths)
    assert batch.cells.tolist() == [int((~cells.isnan()).sum()) for _, cells in series]
    for row, (times, cells) in enumerate(series):
        m = len(times)
        assert torch.equal(batch.times[row, :m], times)
        assert (batch.times[row, m:] == times[-1]).all()
        assert torch.equal(batch.values[row, :m], cells.nan_to_num(0.0))
        assert torch.equal(batch.observed[row, :m], ~cells.isnan())
        assert not batch.observed[row, m:].any()


def test_a_batch_holds_its_series() -> None:
    series = ragged(3)
    batch = SeriesBatch.of(series)
    check(batch, series)
    assert (len(batch), batch.features) == (6, 3)
    check(batch[torch.tensor([3, 0])], [series[3], series[0]])
    check(batch[2:3], series[2:3])
    parts = batch.split(4)
    check(parts[0], series[:4])
    check(parts[1], series[4:])
    single = batch.each(torch.Tensor.float)
    assert single.times.dtype == single.values.dtype == torch.float32
    assert single.to("cpu").lengths is batch.lengths


@given(st.lists(st.integers(1, 12), min_size=6, max_size=6))
def test_series_are_cut_off(lengths: list[int]) -> None:
    series = ragged()
    cut = SeriesBatch.of(series).up_to(torch.tensor(lengths))
    check(cut, [(times[:m], cells[:m]) for (times, cells), m in zip(series, lengths, strict=True)])


@given(st.integers(0, 2**31), st.data())
def test_only_some_observations_are_kept(seed: int, data: st.DataObject) -> None:
    series = ragged(seed % 5)
    lengths = [len(times) for times, _ in series]
    chosen = [
        sorted(data.draw(st.sets(st.integers(0, m - 1), min_size=1, max_size=m), label="places"))
        for m in lengths
    ]
    batch = SeriesBatch.of(series)
    kept = torch.zeros(batch.present.shape, dtype=torch.bool)
    for row, places in enumerate(chosen):
        kept[row, places] = True
    # Places beyond the end of a series are no observations.
    kept |= ~batch.present
    check(
        batch.only(kept),
        [(times[own], cells[own]) for (times, cells), own in zip(series, chosen, strict=True)],
    )


@pytest.mark.parametrize(("share", "within"), [(0.4, 1.0), (1.0, 0.5), (0.4, 0.6)])
def test_a_part_of_each_series(share: float, within: float) -> None:
    """Of the first observations, each is as likely as the others."""
    series = ragged()
    batch = SeriesBatch.of(series)
    early = [max(1, round(within * len(times))) for times, _ in series]
    lengths = [max(1, round(share * m)) for m in early]
    generator = torch.Generator().manual_seed(0)
    counts = [torch.zeros(m) for m in early]
    for _ in range(400):
        part = batch.part(share, within, generator)
        assert part.lengths.tolist() == lengths
        for row, (times, _) in enumerate(series):
            own = part.times[row, : lengths[row]]
            assert (own.diff() > 0).all()
            counts[row] += torch.isin(times[: early[row]], own)
    for count, m in zip(counts, lengths, strict=True):
        # None of the later ones.
        assert count.sum() == 400 * m
        chance = m / len(count)
        assert ((count / 400 - chance).abs() <= 4.5 * math.sqrt(chance * (1 - chance) / 400)).all()


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a batch needs a series"):
        SeriesBatch.of([])
    with pytest.raises(ConfigurationError, match="every series an observation"):
        SeriesBatch.of([(torch.zeros(0), torch.zeros(0, 2))])
    batch = SeriesBatch.of(ragged())
    with pytest.raises(ConfigurationError, match="not of one batch"):
        SeriesBatch(batch.times[:, 1:], batch.values, batch.observed, batch.lengths)


def test_the_union_of_times() -> None:
    batch = SeriesBatch.of(ragged() + ragged()[:2])
    union, places = union_of_times(batch.times, batch.present)
    assert places is not None
    assert (union.diff() > 0).all()
    held = batch.times[batch.present]
    assert set(union.tolist()) == set(held.tolist())
    assert torch.equal(union[places][batch.present], held)
    assert not places[~batch.present].any()


def test_noise_of_a_series_is_its_own() -> None:
    like = torch.zeros((), dtype=torch.float64)
    keys = np.array([5, 2**64 - 1, 5], dtype=np.uint64)
    noise = SeriesNoise(keys, 0, like)
    first, second = noise.normal(4, 2), noise.normal(3)
    assert (first.shape, second.shape, first.dtype) == ((3, 4, 2), (3, 3), torch.float64)
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    alone = SeriesNoise(keys[1:2], 0, like)
    assert torch.equal(alone.normal(4, 2)[0], first[1]) and torch.equal(alone.normal(3)[0], second[1])
    assert not torch.equal(SeriesNoise(keys, 1, like).normal(4, 2), first)
    many = SeriesNoise(np.arange(500, dtype=np.uint64), 0, like).normal(4)
    assert kstest(many.flatten().numpy(), "norm").pvalue > 1e-3
    assert math.isclose(float(many.T.corrcoef()[0, 1]), 0, abs_tol=0.2)
