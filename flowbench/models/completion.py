"""Rows with missing cells under a density model: filled in, and the likelihood of the other cells."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data.row_hashes import hash_rows, uniform_of_hashes
from flowbench.errors import ConfigurationError
from flowbench.models.density_model import DensityModel
from flowbench.models.incomplete_mixture import Cells, IncompleteMixture
from flowbench.models.rows import Rows

Floats = NDArray[np.float64]
#: The log-densities `(n,)` of completed rows at places; the number tells completions apart.
Score = Callable[[Rows, int], Tensor]

#: Completions over which the likelihood of a row with missing cells is averaged.
COMPLETIONS = 32
#: Completions from which cells are filled in, and the ends of the band of what may be there.
IMPUTATIONS, BAND = 128, (0.05, 0.95)
#: Standard errors of that mean that its error covers.
SURE = 2.6
#: The first set of random numbers of a row that completions use; lower ones are of places and stand-ins.
_FIRST_SET = 1 << 24


@dataclass(frozen=True)
class Completed:
    """Completed rows, data units, at places in cells, with values or stand-ins in every cell.

    `log_q: (n,)`, nats, is the log-density in data units at which missing cells were drawn.
    """

    rows: Rows
    log_q: Tensor


def imputer_of(model: DensityModel) -> IncompleteMixture:
    """The mixture that fills missing cells; raises `ConfigurationError` for a run that has none."""
    if model.imputer is None:
        raise ConfigurationError("the run was not fitted with `--missing model`, and fills in no cells")
    return model.imputer


def cells_of(model: DensityModel, rows: Rows) -> Cells:
    """Rows at places, data units, NaN where missing, as the numbers and places of levels of the mixture."""
    x, encoder = rows.x, model.encoder
    missing, absent = x.isnan(), encoder.absent(x)
    z = encoder.to_model(torch.where(missing | absent, _ordinary(model), x))[0]
    z = torch.where(missing | absent, math.nan, z)
    places = np.zeros((len(x), 0), dtype=np.int64)
    if model.mass is not None and rows.context is not None:
        own = model.of_mass(rows.context)
        places = np.where(own.isnan().numpy(), -1, model.mass.levels.place(own))
    return Cells(z.numpy(), places, absent.numpy())


def complete(model: DensityModel, rows: Rows, uniform: Floats, *, wider: bool = False) -> Completed:
    """Fill in the missing cells, NaN, of rows at places, data units, by draws given the other cells.

    `uniform: (n, draws)` are random numbers in (0, 1); `IncompleteMixture.complete` says more. A cell with an
    atom keeps it.
    """
    done, log_q = imputer_of(model).complete(cells_of(model, rows), uniform, wider=wider)
    missing = rows.x.isnan()
    drawn = model.encoder.to_data(torch.from_numpy(np.nan_to_num(done.z)))[0]
    x = torch.where(missing, drawn, rows.x)
    context = rows.context
    if model.mass is not None and context is not None:
        own = model.of_mass(context)
        sizes = np.array(model.mass.levels.sizes)
        values = model.mass.levels.at(np.minimum(done.places, sizes - 1))
        context = model.put_mass(context, torch.where(own.isnan(), values, own))
    slopes = model.encoder.to_model_by_column(torch.where(missing, x, _ordinary(model)))[1]
    return Completed(Rows(x, context), torch.from_numpy(log_q) + torch.where(missing, slopes, 0.0).sum(1))


def filled(model: DensityModel, rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows at places whose missing cells are drawn, as a model learns from them, atoms among them."""
    done = complete(model, rows, rng.random((len(rows), imputer_of(model).draws)))
    x = torch.where(rows.x.isnan(), model.put_atoms(done.rows.x, done.rows.context), done.rows.x)
    return done.rows.at(x)


@torch.no_grad()
def completions(model: DensityModel, rows: Rows, score: Score, count: int) -> Iterator[tuple[Rows, Tensor]]:
    """`count` completions of n rows of the table at places, each with log-weights `(n,)`, nats.

    A weight is how likely the completed row is under the model, by how likely its missing cells were drawn
    (importance sampling). The mean weight is the likelihood of the cells that are there. All follow from the
    row alone, whatever rows are beside it.
    """
    missing, ordinary = rows.x.isnan(), _ordinary(model)
    known = torch.where(missing, ordinary, rows.x)
    held = model.encoder.absent(rows.x)
    hashes = hash_rows(np.nan_to_num(np.hstack([known.numpy(), *_context(rows)]), nan=-1.0))
    for draw in range(count):
        placed = torch.where(missing, math.nan, model.encoder.spread(known, draw, count))
        # An atom is told by its state, and its stand-in is no number of the mixture.
        seen = torch.where(held, rows.x, placed)
        uniform = uniform_of_hashes(hashes, _FIRST_SET + draw, imputer_of(model).draws)
        done = complete(model, Rows(seen, rows.context), uniform, wider=True)
        whole = done.rows.at(torch.where(held, placed, done.rows.x))
        log_weight = score(whole, draw) - model.encoder.log_stand_in(whole.x, held) - done.log_q
        log_mass = model.log_mass(whole.context)
        yield whole, log_weight if log_mass is None else log_weight + log_mass


def observed_log_prob(model: DensityModel, rows: Rows, score: Score) -> tuple[Tensor, Tensor]:
    """Log-likelihoods `(n,)` of the cells that are there in `rows` of the table, and their errors, nats.

    Each is the logarithm of a mean weight of `completions`. The error covers the scatter of the mean.
    """
    each = torch.stack([weight for _, weight in completions(model, rows, score, COMPLETIONS)])
    most = each.amax(0)
    # Where no completion has a density, such as outside the support, that is certain.
    nowhere = most.isneginf()
    relative = (each - most.masked_fill(nowhere, 0.0)).exp()
    mean = relative.mean(0)
    error = SURE * relative.std(0) / mean / math.sqrt(COMPLETIONS)
    return most + mean.log().masked_fill(nowhere, 0.0), error.masked_fill(nowhere, 0.0)


@dataclass(frozen=True)
class Imputed:
    """Missing cells of n rows, filled in; the other cells are as they were.

    `x: (n, d)`, data units, has means in missing cells, and `low` and `high: (n, d)` the ends of the central
    90% of what may be there; all three are the value itself where a cell is there. `context: (n, c)` has the
    most probable categories, and `probability: (n, c)` how probable they are, 1 where a cell is there.
    """

    x: Floats
    low: Floats
    high: Floats
    context: Floats | None
    probability: Floats | None


def impute(model: DensityModel, rows: Rows, score: Score) -> Imputed:
    """Fill in the missing cells, NaN, of `rows` of the table by `IMPUTATIONS` weighted completions.

    Where nothing is missing but states of atoms, these are those of the completed values.
    """
    drawn = list(completions(model, rows, score, IMPUTATIONS))
    each = torch.stack([weight for _, weight in drawn])
    # A row outside the support has no density with any completion; these count alike then.
    each = torch.where(each.amax(0).isneginf(), 0.0, each)
    weights = torch.softmax(each, 0).numpy()
    values = np.stack([model.restore(whole.x, whole.context).numpy() for whole, _ in drawn])
    x, gone = rows.x.numpy(), rows.x.isnan().numpy()
    low, high, mean = x.copy(), x.copy(), x.copy()
    mean[gone] = np.einsum("kn,knd->nd", weights, values)[gone]
    for row, column in zip(*np.nonzero(gone), strict=True):
        order = np.argsort(values[:, row, column])
        below = np.cumsum(weights[order, row])
        ends = np.searchsorted(below, BAND).clip(max=len(order) - 1)
        low[row, column], high[row, column] = values[order[ends], row, column]
    if rows.context is None:
        return Imputed(mean, low, high, None, None)
    context = rows.context.numpy().copy()
    probability = np.ones_like(context)
    chosen = np.stack([whole.context.numpy() for whole, _ in drawn if whole.context is not None])
    for row, column in zip(*np.nonzero(np.isnan(context)), strict=True):
        levels, which = np.unique(chosen[:, row, column], return_inverse=True)
        shares = np.bincount(which.reshape(-1), weights[:, row])
        context[row, column], probability[row, column] = levels[shares.argmax()], shares.max()
    return Imputed(mean, low, high, context, probability)


def _context(rows: Rows) -> list[Floats]:
    return [] if rows.context is None else [rows.context.numpy()]


def _ordinary(model: DensityModel) -> Tensor:
    """An ordinary row `(d,)`, data units: the middle of each column."""
    zero = torch.zeros(1, len(model.columns), dtype=torch.float64)
    return model.encoder.to_data(zero)[0][0]
