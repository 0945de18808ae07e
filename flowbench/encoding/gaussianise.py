"""The marginal Gaussianiser: a transform that makes each column close to standard normal."""

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from flowbench import options
from flowbench.encoding.rational_quadratic import Spline
from flowbench.encoding.reach import Reach
from flowbench.encoding.standardise import mean_and_scale
from flowbench.encoding.transform import Transform
from flowbench.statistics.gaussian_mixtures import fit_components, most_components
from flowbench.statistics.weighting import effective_size, mean_of, standard_error_of

Floats = NDArray[np.float64]

#: Training rows beyond each outer knot, if there are enough rows: they determine the slope of the tail.
TAIL_ROWS = 10
#: Training rows that a piece has at least; with fewer, a spline would fit noise.
ROWS_A_PIECE = 50
#: A column without pieces is standardised up to this many standard deviations, and bent beyond.
STRAIGHT = 3.0
#: Knots closer than this share of their range are merged, which bounds the slope at ties.
MERGED = 1e-5
#: The number of pieces is chosen by held-out likelihood on at most this many rows, in this many folds.
COMPARED_ROWS, FOLDS = 50_000, 5
#: Numbers of components, and the largest number of rows, of the mixtures that decide whether columns stay
#: straight.
COMPONENTS, MIXTURE_ROWS = (1, 2, 4, 8), 10_000


class GaussianiseOptions(options.PartOptions):
    """`max_pieces` is the largest number of equal-mass pieces of a column's distribution."""

    name: Literal["gaussianise"] = "gaussianise"
    max_pieces: int = Field(256, ge=4, le=4096)


class Gaussianise(Transform):
    """z = g(x) for each column, with g increasing and z close to standard normal.

    This is a normal-quantile transform as in Gaussianisation (Chen and Gopinath 2000; Meng et al. 2020). g
    interpolates the normal quantiles of the empirical distribution by a monotone rational-quadratic spline.
    Its knots have equal mass between them, and ever smaller masses in the tails. Its slope is continuous.
    Beyond the outer knots the slope starts at the value that gives the rows there the mean excess of a normal
    tail. From there g bends into a logarithm, so that a row far out loses tens of nats and not thousands.

    Equal values share the middle of their step of the empirical distribution, so the mass of a tie is spread
    towards its neighbours. The number of pieces is the smallest whose held-out log-likelihood is within two
    standard errors of the best. It is measured on a fifth of the training rows, or by cross-validation on all
    of them if they are fewer than 5,000. With 0 pieces the column is standardised, and bent beyond three
    standard deviations. Rows that have weights count by these throughout, and numbers of rows are effective
    ones (`flowbench.statistics.weighting.effective_size`).

    Bending columns one by one can destroy a joint shape, such as a few clusters. So a Gaussian mixture is
    fitted to the columns both ways. If it predicts held-out rows better by two standard errors with all
    columns straight, they stay straight.

    Values extremely far from the others are first replaced by a logarithm of their distance, as in
    `flowbench.encoding.reach`.
    """

    Options: ClassVar[type[options.PartOptions]] = GaussianiseOptions
    options: GaussianiseOptions
    knots: Tensor
    images: Tensor
    slopes: Tensor
    last: Tensor

    def __init__(self, columns: tuple[str, ...], options: GaussianiseOptions) -> None:
        super().__init__(columns, options)
        # `Reach` changes values far from all training rows; the tails of the spline cover the others.
        self.reach = Reach(len(columns))
        # Room for the finest division: its inner knots, and both tails halved down to the precision of
        # float64.
        shape = (len(columns), options.max_pieces + 2 * 64)
        identity = torch.arange(shape[1], dtype=torch.float64).expand(shape)
        self.register_buffer("knots", identity.clone())
        self.register_buffer("images", identity.clone())
        self.register_buffer("slopes", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("last", torch.ones(len(columns), dtype=torch.int64))

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Choose each column's knots from `x: (n, d)`; raises `DataError` for a column without spread."""
        x = self.reach.fit(x, weights)
        mean, scale = mean_and_scale(x, self.columns, weights)
        columns = ((x - mean) / scale).T.cpu().numpy()
        counts = None if weights is None else weights.cpu().numpy()
        pieces = [_choose_pieces(column, self.options.max_pieces, counts) for column in columns]
        if _are_better_straight(columns, pieces, counts):
            pieces = [0] * len(columns)
        for number, (column, count) in enumerate(zip(columns, pieces, strict=True)):
            spline = _fit_spline(column, count, counts).padded(self.knots.shape[1])
            self.knots[number] = mean[number] + scale[number] * spline.knots[0]
            self.images[number] = spline.images[0]
            self.slopes[number] = spline.slopes[0] / scale[number]
            self.last[number] = spline.last[0]

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussianise `x: (n, d)`; returns `z: (n, d)` and log(dz/dx): `(n, d)`."""
        near, log_nearing = self.reach.to_near(x)
        z, log_slope = self._spline().forward(near)
        return z, log_slope + log_nearing

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_model` for `z: (n, d)`; returns `x: (n, d)` and log(dx/dz): `(n, d)`."""
        near, log_slope = self._spline().inverse(z)
        x, log_nearing = self.reach.to_far(near)
        return x, log_slope + log_nearing

    def _spline(self) -> Spline:
        return Spline(self.knots, self.images, self.slopes, self.last)


def _choose_pieces(column: Floats, largest: int, weights: Floats | None) -> int:
    """The number of pieces for a standardised `column: (n,)`, by held-out likelihood."""
    every = -(-len(column) // COMPARED_ROWS)
    rows, weights = column[::every], None if weights is None else weights[::every]
    candidates = [0]
    while (pieces := max(4, 2 * candidates[-1])) <= min(largest, _size(rows, weights) // ROWS_A_PIECE):
        candidates.append(pieces)
    folds = np.arange(len(rows)) % FOLDS
    # One fold is enough where it is large.
    held_out = range(FOLDS if len(rows) < 5000 else 1)
    judged = None if weights is None else np.concatenate([weights[folds == k] for k in held_out])
    scores = np.stack(
        [
            np.concatenate(
                [
                    _log_density(
                        rows[folds == k],
                        rows[folds != k],
                        pieces,
                        None if weights is None else weights[folds != k],
                    )
                    for k in held_out
                ]
            )
            for pieces in candidates
        ]
    )
    best = int(np.argmax([mean_of(score, judged) for score in scores]))
    for number, pieces in enumerate(candidates[:best]):
        if not _leads(scores[best] - scores[number], judged):
            return pieces
    return candidates[best]


def _leads(lead: Floats, weights: Floats | None) -> bool:
    """Whether the mean of `lead: (n,)`, of rows with `weights: (n,)`, is above 0 by two standard errors."""
    mean = mean_of(lead, weights)
    if weights is None:
        return bool(mean > 2 * lead.std() / np.sqrt(len(lead)))
    return mean > 2 * standard_error_of(lead, weights)


def _size(rows: Floats, weights: Floats | None) -> float:
    """The number of `rows: (n,)`; with `weights: (n,)` the effective one."""
    return len(rows) if weights is None else effective_size(weights)


def _are_better_straight(columns: Floats, pieces: list[int], weights: Floats | None) -> bool:
    """Whether a mixture predicts `columns: (d, n)` better if none is divided into its `pieces`."""
    if len(columns) == 1 or not any(pieces):
        return False
    every = -(-columns.shape[1] // MIXTURE_ROWS)
    columns, weights = columns[:, ::every], None if weights is None else weights[::every]
    bent, straight = (_joint_log_density(columns, counts, weights) for counts in (pieces, [0] * len(pieces)))
    return _leads(straight - bent, None if weights is None else weights[::FOLDS])


def _joint_log_density(columns: Floats, pieces: list[int], weights: Floats | None) -> Floats:
    """Log-densities of every fifth row of `columns: (d, n)`, by the best mixture fitted to the other rows.

    The columns are first transformed by splines with these `pieces`. The best mixture is the one with the
    highest mean on the same rows; that favours neither side of a comparison.
    """
    held_out = np.arange(columns.shape[1]) % FOLDS == 0
    images, log_det = np.empty_like(columns), np.zeros(columns.shape[1])
    # There are fewer rows here than those that the pieces were chosen for.
    seen, judged = (None if weights is None else weights[part] for part in (~held_out, held_out))
    finest = int(_size(columns[0, ~held_out], seen) // ROWS_A_PIECE)
    for column, count, image in zip(columns, pieces, images, strict=True):
        z, log_slope = _fit_spline(column[~held_out], min(count, finest), seen).forward(
            torch.from_numpy(column)[:, None]
        )
        image[:] = z.squeeze(1).numpy()
        log_det += log_slope.squeeze(1).numpy()
    rows = images.T[~held_out]
    most = most_components(_size(rows[:, 0], seen), rows.shape[1])
    fits = [
        fit_components(rows, count, threads=torch.get_num_threads(), weights=seen)
        for count in COMPONENTS
        if count <= most
    ]
    scores = [fit.score_samples(images.T[held_out]) + log_det[held_out] for fit in fits]
    return max(scores, key=lambda score: mean_of(score, judged))


def _log_density(rows: Floats, fitted: Floats, pieces: int, weights: Floats | None) -> Floats:
    """The log-density of `rows: (m,)` under a standard normal behind the spline of the rows `fitted`."""
    z, log_slope = _fit_spline(fitted, pieces, weights).forward(torch.from_numpy(rows)[:, None])
    log_density: Floats = (log_slope - 0.5 * z.square()).squeeze(1).numpy()
    return log_density


def _fit_spline(column: Floats, pieces: int, weights: Floats | None = None) -> Spline:
    """The spline of a `column: (n,)`; without pieces, a line by its mean and standard deviation.

    Values count by their `weights: (n,)`, equal ones if None.
    """
    from scipy.special import ndtri

    mean = mean_of(column, weights)
    straight = _straight(mean, mean_of((column - mean) ** 2, weights) ** 0.5)
    if not pieces:
        return straight
    values, counts = _counted(column, weights)
    below = (np.cumsum(counts) - counts / 2) / counts.sum()
    levels = _levels(pieces, TAIL_ROWS / _size(column, weights), below[0], below[-1])
    knots = np.interp(levels, below, values)
    kept = _apart(knots, MERGED * (knots[-1] - knots[0]))
    knots, images = knots[kept], ndtri(levels[kept])
    if len(knots) < 3:
        return straight
    secants = np.diff(images) / np.diff(knots)
    inner = np.sqrt(secants[:-1] * secants[1:])
    lower = _tail_slope(knots[0] - column, -images[0], secants[0], weights)
    upper = _tail_slope(column - knots[-1], images[-1], secants[-1], weights)
    slopes = np.concatenate([[lower], inner, [upper]])
    at, to, steep = (torch.from_numpy(part)[None] for part in (knots, images, slopes))
    return Spline(at, to, steep, torch.tensor([len(knots) - 1]))


def _counted(column: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """The distinct values of a `column: (n,)`, in order, and the sum of the weights of each."""
    if weights is None:
        values, counts = np.unique(column, return_counts=True)
        return values, counts.astype(np.float64)
    values, place = np.unique(column, return_inverse=True)
    return values, np.bincount(place, weights).astype(np.float64)


def _straight(mean: float, scale: float) -> Spline:
    images = torch.tensor([[-STRAIGHT, 0.0, STRAIGHT]], dtype=torch.float64)
    scale = scale or 1.0
    last = torch.tensor([2])
    return Spline(mean + scale * images, images, torch.full_like(images, 1 / scale), last)


def _levels(pieces: int, tail: float, lowest: float, highest: float) -> Floats:
    """Increasing levels of the distribution: equal masses, then halved repeatedly towards both tails."""
    equal = np.arange(1, pieces) / pieces
    halved = 0.5 ** np.arange(1, 53) / pieces
    halved = halved[halved > tail]
    levels = np.concatenate([halved, equal, 1 - halved, [tail, 1 - tail]])
    return np.unique(np.clip(levels, max(lowest, tail), min(highest, 1 - tail)))


def _apart(knots: Floats, gap: float) -> list[int]:
    """Indices of the sorted `knots` to keep, so that each is more than `gap` above the one before."""
    kept = [0]
    for index in range(1, len(knots)):
        if knots[index] - knots[kept[-1]] > gap:
            kept.append(index)
    return kept


def _tail_slope(excess: Floats, end: float, secant: float, weights: Floats | None) -> float:
    """The slope with which the map goes on beyond an outermost knot, which it takes to `end`.

    `excess: (n,)` is the signed distance of each value beyond the knot, negative inside. The slope takes the
    mean excess of the values beyond to that of a standard normal. It is limited to between a tenth of
    `secant`, the slope of the piece inside the knot, and ten times that.
    """
    from scipy.special import log_ndtr

    beyond = excess > 0
    # E[z - end | z > end] of a standard normal.
    expected = np.exp(-0.5 * end**2 - log_ndtr(-end)) / np.sqrt(2 * np.pi) - end
    own = None if weights is None else weights[beyond]
    slope = expected / mean_of(excess[beyond], own) if beyond.any() else secant
    return float(np.clip(slope, 0.1 * secant, 10 * secant))
