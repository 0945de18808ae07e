"""A probability mass function of categorical columns: counts, smoothed towards fewer conditions."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.encoding.one_hot import Levels
from flowbench.errors import ConfigurationError
from flowbench.models.growing import GrowingBuffers

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A column depends on at most so many columns before it.
MOST_PARENTS = 6
#: These are chosen on at most so many rows.
MOST_ROWS = 100_000
#: A further one has to raise the leave-one-out log-likelihood by so many of the gain's standard errors.
SURE = 2.0
#: Candidate strengths of the smoothing, in rows.
STRENGTHS = 2.0 ** np.arange(-4, 13)
#: The most combinations of missing values whose probabilities are added up.
MOST_ADDED = 10_000
#: Numbers of a table of probabilities that are held at once.
_AT_ONCE = 2**22
#: The largest number of cells of a table over all parents.
_MOST_CELLS = 2**62


class ProbabilityMass(GrowingBuffers):
    """p(a) = p(a_1) p(a_2 | a_1) ... p(a_m | a_1, ..., a_(m-1)) of m categorical columns.

    Each factor is a smoothed share of train rows. A column depends on some of the columns before it, its
    parents, in an order. Given the first r parents its levels have the probabilities
    p_r = (count + s_r p_(r-1)) / (rows + s_r), with the counts among the train rows that agree in these
    parents, and p_(r-1) given one parent less. Below the counts without parents stands the uniform
    distribution. This is the smoothing of MacKay and Bauman Peto (1995). Parents and strengths s_r are those
    with the highest leave-one-out log-likelihood, chosen one after another.

    Each column has a further level, "any other", which stands for all values that no train row holds. Its
    probability comes from the uniform distribution alone. With it, the probabilities of all cells sum to 1.

    Values `x: (n, m)` are float64, with the columns of `levels` in their order.
    """

    entries: Tensor
    counts: Tensor
    parents: Tensor
    strengths: Tensor

    def __init__(self, levels: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.levels = Levels(levels)
        m = len(self.levels.columns)
        if not m:
            raise ConfigurationError("a probability mass function needs a categorical column")
        self.growing = ("entries", "counts")
        # Of each count: column, number of parents, code of their levels, level.
        self.register_buffer("entries", torch.zeros(0, 4, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("parents", torch.full((m, MOST_PARENTS), -1, dtype=torch.int64))
        self.register_buffer("strengths", torch.ones(m, MOST_PARENTS + 1, dtype=torch.float64))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the m columns."""
        return self.levels.columns

    @property
    def cells(self) -> int:
        """The number of combinations of levels, "any other" among them."""
        cells = 1
        for size in self.levels.sizes:
            cells *= size + 1
        return cells

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Choose parents and strengths, and count, by train rows `x: (n, m)`.

        A row of weight 2 in `weights: (n,)` counts as two. They are scaled to add up to the effective number
        of rows (Kish 1965).
        """
        places = self.levels.place(x)
        counted = np.ones(len(places)) if weights is None else weights.double().cpu().numpy()
        counted = counted * (counted.sum() / (counted**2).sum())
        few = places[:MOST_ROWS]
        self.parents.fill_(-1)
        for column in range(len(self.columns)):
            chosen, strengths = self._choose(few, counted[:MOST_ROWS], column)
            self.parents[column, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
            self.strengths[column, : len(strengths)] = torch.tensor(strengths, dtype=torch.float64)
        found = [self._count(places, counted, column, depth) for column, depth in self._tables()]
        self.register_buffer("entries", torch.from_numpy(np.concatenate([each for each, _ in found])))
        self.register_buffer("counts", torch.from_numpy(np.concatenate([each for _, each in found])))

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probabilities `(n,)`, float64, nats, of rows `x: (n, m)`.

        That of a row with missing values, NaN, is of those that are there: the probabilities of all values
        that the others may have are added up. If these are more than `MOST_ADDED`, it is NaN.
        """
        places, there = self.levels.place(x), ~x.isnan().numpy()
        log_prob = np.empty(len(places))
        distinct, which = np.unique(there, axis=0, return_inverse=True)
        for number, pattern in enumerate(distinct):
            rows = np.flatnonzero(which.reshape(-1) == number)
            log_prob[rows] = self._log_marginal(places[rows], pattern)
        return torch.from_numpy(log_prob)

    def _log_marginal(self, places: Integers, there: NDArray[np.bool_]) -> Floats:
        """The log-probabilities `(n,)` of the levels at `places: (n, m)` in the columns that are `there`."""
        needed = self._with_parents(there)
        added = [column for column in needed if not there[column]]
        cells = math.prod(self.levels.sizes[column] + 1 for column in added)
        if cells > MOST_ADDED:
            return np.full(len(places), np.nan)
        each = np.empty((cells, len(places)))
        values = itertools.product(*(range(self.levels.sizes[column] + 1) for column in added))
        for number, combination in enumerate(values):
            whole = places.copy()
            whole[:, added] = combination
            each[number] = self._log_joint(whole, needed)
        most = each.max(0)
        return np.asarray(most + np.log(np.exp(each - most).sum(0)))

    def _log_joint(self, places: Integers, columns: Sequence[int]) -> Floats:
        """The log-probabilities `(n,)` of levels at `places: (n, m)` in `columns`, parents among them."""
        log_prob = np.zeros(len(places))
        for column in columns:
            for rows in self._parts(len(places), column):
                table, which = self._table(places[rows], column)
                log_prob[rows] += np.log(table[which, places[rows, column]])
        return log_prob

    def _with_parents(self, there: NDArray[np.bool_]) -> list[int]:
        """The columns that are `there`, and those that they depend on, directly or not, in order."""
        needed = there.copy()
        for column in reversed(range(len(needed))):
            if needed[column]:
                needed[self.parents[column][self.parents[column] >= 0].numpy()] = True
        return np.flatnonzero(needed).tolist()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` rows `(n, m)`; "any other" is never drawn, as it stands for no value."""
        places = np.zeros((n, len(self.columns)), dtype=np.int64)
        for column, size in enumerate(self.levels.sizes):
            uniform = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
            for rows in self._parts(n, column):
                table, which = self._table(places[rows], column)
                below = np.cumsum(table[:, :size], axis=1)
                below /= below[:, -1:]
                drawn = (uniform[rows, None] >= below[which]).sum(1)
                places[rows, column] = drawn.clip(max=size - 1)
        return self.levels.at(places)

    def enumerate(self) -> Tensor:
        """Values `(cells, m)` of every cell; "any other" is infinite. There should be few cells."""
        grids = np.meshgrid(*[np.append(each, np.inf) for each in self.levels.values], indexing="ij")
        return torch.from_numpy(np.stack([each.reshape(-1) for each in grids], 1))

    def _parts(self, n: int, column: int) -> list[slice]:
        """`n` rows in parts whose tables of the probabilities of a column are not too large."""
        size = max(1, _AT_ONCE // (self.levels.sizes[column] + 1))
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def _tables(self) -> list[tuple[int, int]]:
        """Each column with each number of its parents, from 0."""
        numbers = (self.parents >= 0).sum(1).tolist()
        return [(column, depth) for column, most in enumerate(numbers) for depth in range(most + 1)]

    def _code(self, places: Integers, parents: Sequence[int]) -> Integers:
        """A number `(n,)` for the levels of the `parents` at `places: (n, m)`."""
        code = np.zeros(len(places), dtype=np.int64)
        for parent in parents:
            code = code * (self.levels.sizes[parent] + 1) + places[:, parent]
        return code

    def _count(self, places: Integers, counted: Floats, column: int, depth: int) -> tuple[Integers, Floats]:
        """Entries `(k, 4)` and counts `(k,)` of the train rows at `places: (n, m)`, by code, then level.

        Each row counts as much as `counted: (n,)` says.
        """
        code = self._code(places, self.parents[column, :depth].tolist())
        pairs, which = np.unique(np.stack([code, places[:, column]], 1), axis=0, return_inverse=True)
        counts: Floats = np.bincount(which.reshape(-1), counted, len(pairs)).astype(np.float64)
        entries = np.empty((len(pairs), 4), dtype=np.int64)
        entries[:, 0], entries[:, 1], entries[:, 2:] = column, depth, pairs
        return entries, counts

    def _table(self, places: Integers, column: int) -> tuple[Floats, Integers]:
        """The probabilities `(k, levels + 1)` of a column, and which of the k each row at `places` has."""
        parents = self.parents[column][self.parents[column] >= 0].tolist()
        distinct, which = np.unique(places[:, parents], axis=0, return_inverse=True)
        levels = self.levels.sizes[column] + 1
        table = np.full((len(distinct), levels), 1 / levels)
        rows = np.zeros((len(distinct), places.shape[1]), dtype=np.int64)
        rows[:, parents] = distinct
        for depth in range(len(parents) + 1):
            counted = self._counted(column, depth, self._code(rows, parents[:depth]), levels)
            strength = float(self.strengths[column, depth])
            table = (counted + strength * table) / (counted.sum(1, keepdims=True) + strength)
        return table, which.reshape(-1)

    def _counted(self, column: int, depth: int, codes: Integers, levels: int) -> Floats:
        """The counts `(k, levels)` of a column's levels among rows whose first parents have these `codes`."""
        entries, counts = self.entries.numpy(), self.counts.numpy()
        mine = (entries[:, 0] == column) & (entries[:, 1] == depth)
        own, level, count = entries[mine, 2], entries[mine, 3], counts[mine]
        first, last = np.searchsorted(own, codes, "left"), np.searchsorted(own, codes, "right")
        lengths = last - first
        row = np.repeat(np.arange(len(codes)), lengths)
        place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place += np.repeat(first, lengths)
        counted = np.zeros((len(codes), levels))
        counted[row, level[place]] = count[place]
        return counted

    def _choose(self, places: Integers, counted: Floats, column: int) -> tuple[list[int], list[float]]:
        """The parents of a column, in order, and the strength of the smoothing at each number of them."""
        left_out, strength = _smooth(
            places[:, column],
            np.zeros(len(places), dtype=np.int64),
            np.full(len(places), 1 / (self.levels.sizes[column] + 1)),
            counted,
        )
        chosen, strengths, cells = list[int](), [strength], 1
        while len(chosen) < MOST_PARENTS:
            tried = {}
            for parent in range(column):
                if parent in chosen or cells * (self.levels.sizes[parent] + 1) > _MOST_CELLS:
                    continue
                code = self._code(places, [*chosen, parent])
                tried[parent] = _smooth(places[:, column], code, left_out, counted)
            best = max(tried, key=lambda parent: counted @ np.log(tried[parent][0]), default=None)
            if best is None or not _is_sure(np.log(tried[best][0] / left_out), counted):
                return chosen, strengths
            left_out, strength = tried[best]
            chosen.append(best)
            strengths.append(strength)
            cells *= self.levels.sizes[best] + 1
        return chosen, strengths


def _is_sure(gain: Floats, counted: Floats) -> bool:
    """Whether the mean of a `gain: (n,)` of rows that count as `counted: (n,)` is above zero beyond doubt."""
    mean = counted @ gain / counted.sum()
    return bool(mean > SURE * np.sqrt(counted**2 @ (gain - mean) ** 2) / counted.sum())


def _smooth(level: Integers, code: Integers, below: Floats, counted: Floats) -> tuple[Floats, float]:
    """Leave-one-out probabilities `(n,)` of the `level: (n,)` of rows, given a `code: (n,)`.

    They are smoothed towards `below: (n,)`, the leave-one-out probabilities given one condition less, with
    the best of the `STRENGTHS`, which is returned too. Each row counts as `counted: (n,)` says.
    """
    of_code = np.unique(code, return_inverse=True)[1].reshape(-1)
    pairs = of_code * (int(level.max(initial=0)) + 1) + level
    of_pair = np.unique(pairs, return_inverse=True)[1].reshape(-1)
    # Rounding must not make a count of other rows negative.
    others, alike = (
        (np.bincount(which, counted)[which] - counted).clip(min=0) for which in (of_code, of_pair)
    )
    found = [(alike + strength * below) / (others + strength) for strength in STRENGTHS]
    best = int(np.argmax([counted @ np.log(each) for each in found]))
    return found[best], float(STRENGTHS[best])
