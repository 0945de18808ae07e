"""Log-likelihoods of series in data units, with their errors."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data.series_dataset import Floats, TimeSeries
from flowbench.evaluation.series_options import SeriesEvaluationOptions
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.models.series.noise import SeriesNoise

#: Numbers of one solve, at most: draws times series times their times.
MOST_CELLS = 2**19
#: Called with the number of series that are done and the number of all series.
OnSeries = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SeriesLikelihoods:
    """The log-likelihood `log_prob: (n,)` of each of n series given its times, nats, data units.

    If the likelihood is not known exactly, it is the importance-weighted bound of many draws, whose
    `standard_error: (n,)` is that of the draws; None otherwise. `solver_error: (k,)` is by how much the first
    k change at a tenth of the solver's tolerance, and None without a solver. `bounds` maps numbers of draws
    to the bounds that as many give, all of the same draws; the most draws come last.
    """

    log_prob: Floats
    standard_error: Floats | None = None
    solver_error: Floats | None = None
    bounds: dict[int, Floats] = field(default_factory=dict)


def key_of(series: TimeSeries) -> int:
    """A number that depends on the contents of a series alone; it seeds the draws for it."""
    content = np.ascontiguousarray(np.column_stack([series.times, series.values])).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def keys_of(series: Sequence[TimeSeries]) -> NDArray[np.uint64]:
    """The key of each series: `(n,)`."""
    return np.array([key_of(each) for each in series], dtype=np.uint64)


@torch.no_grad()
def score_series(
    model: EncodedSeriesModel,
    series: Sequence[TimeSeries],
    options: SeriesEvaluationOptions,
    *,
    seed: int = 0,
    errors: int = 0,
    on_series: OnSeries = lambda done, total: None,
) -> SeriesLikelihoods:
    """The log-likelihoods of n series, one at least, in float64.

    That of one series does not depend on the others: each has draws of its own, and a solver with steps of
    its own if `options` name one. The first `errors` of them are solved again. Raises `IntegrationError` if a
    solve fails.
    """
    judged = model.for_evaluation(options.integrator)
    draws = 1 if judged.model.is_exact else options.draws
    batch, log_det = judged.encode(series)
    keys = keys_of(series)
    log_prob, error = np.zeros(len(series)), np.zeros(len(series))
    bounds: dict[int, Floats] = {}
    done, nfe = 0, None
    for part, chunk in _chunks(batch, draws):
        found = judged.model.score(chunk, _noise(judged, keys[part], seed), draws)
        log_prob[part] = found.log_prob.numpy()
        nfe = found.nfe
        # Of a single draw it is not known.
        error[part] = np.nan if found.standard_error is None else found.standard_error.numpy()
        for count, bound in found.looser.items():
            bounds.setdefault(count, np.zeros(len(series)))[part] = bound.numpy()
        done += len(part)
        on_series(done, len(series))
    log_prob += log_det.numpy()
    bounds = {count: each + log_det.numpy() for count, each in bounds.items()}
    solver_error = None
    if nfe is not None and errors:
        first = batch[torch.arange(min(errors, len(series)))]
        finer = model.for_evaluation(options.integrator.refined())
        solver_error = np.zeros(len(first))
        for part, chunk in _chunks(first, draws):
            again = finer.model.score(chunk, _noise(finer, keys[part], seed), draws).log_prob.numpy()
            solver_error[part] = np.abs(again + log_det.numpy()[part] - log_prob[part])
    if not judged.model.is_exact:
        bounds[draws] = log_prob
    return SeriesLikelihoods(log_prob, error if bounds else None, solver_error, bounds)


def _noise(model: EncodedSeriesModel, keys: NDArray[np.uint64], seed: int) -> SeriesNoise:
    return SeriesNoise(keys, seed, model.model.like)


def _chunks(batch: SeriesBatch, draws: int) -> Iterator[tuple[NDArray[np.int64], SeriesBatch]]:
    """Parts of a batch that are solved together, and the indices of their series."""
    for group in same_solves(batch):
        places = int(batch.lengths[group].max())
        # The times of the series of a part are all different, at worst.
        size = max(1, int((MOST_CELLS / (draws * places)) ** 0.5))
        for part in torch.split(group, size):
            yield part.numpy(), batch[part]


def same_solves(batch: SeriesBatch, *, of_one_length: bool = False) -> list[Tensor]:
    """Indices of the series whose solves span the same whole numbers, and that are of one length if asked."""
    first, last = batch.times[:, 0].clamp(max=0).floor(), batch.times[:, -1].clamp(min=0).ceil()
    length = batch.lengths if of_one_length else torch.zeros_like(batch.lengths)
    alike = torch.stack([first, last, length.to(first)], 1)
    _, group = torch.unique(alike, dim=0, return_inverse=True)
    return [(group == number).nonzero().squeeze(1) for number in range(int(group.max()) + 1)]
