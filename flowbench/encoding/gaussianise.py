"""The marginal Gaussianiser: every column becomes close to standard normal by itself."""

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

Floats = NDArray[np.float64]

#: Train rows beyond each outer knot, where they can be had: enough to set the straight line there.
TAIL_ROWS = 10
#: Pieces that fewer train rows than these set would fit their noise.
ROWS_A_PIECE = 50
#: Standard deviations up to which a column without pieces is only standardised.
STRAIGHT = 3.0
#: Knots closer than this part of their range are merged, which bounds the slope at ties.
MERGED = 1e-5
#: Held-out likelihood compares numbers of pieces on at most this many rows, in this many folds.
COMPARED_ROWS, FOLDS = 50_000, 5
#: Mixtures with these numbers of components tell, on at most these rows, whether to leave columns straight.
COMPONENTS, MIXTURE_ROWS = (1, 2, 4, 8), 10_000


class GaussianiseOptions(options.PartOptions):
    """`max_pieces` of equal mass that a column's distribution is divided into, at most."""

    name: Literal["gaussianise"] = "gaussianise"
    max_pieces: int = Field(256, ge=4, le=4096)


class Gaussianise(Transform):
    """z = g(x) for each column, with g increasing and z close to standard normal.

    g interpolates the normal quantiles of the empirical distribution by a monotone rational-quadratic
    spline, with knots of equal mass and ever smaller masses in the tails; its slope is continuous. It leaves
    the outer knots at the slope that gives the rows there the mean excess of a normal tail, and bends into
    a logarithm, so that a row far out costs its likelihood tens of nats and not thousands.

    Equal values share the middle of their step of the empirical distribution, so mass on a tie is spread to
    its neighbours. The number of pieces is the smallest whose held-out likelihood, on a fifth of the train
    rows or, of fewer than 5,000, cross-validated on all, is within two standard errors of the best; with none
    (0) the column is standardised, and bent beyond three standard deviations. Columns that are bent one by
    one can lose a shape that they have together, such as that of a few clouds: where a Gaussian mixture
    predicts held-out rows better by two standard errors with all columns straight, they stay so.

    Of values absurdly far from the others a logarithm takes their place before all this, as
    `flowbench.encoding.reach` has it.

    A normal-quantile transform as in Gaussianisation (Chen and Gopinath 2000; Meng et al. 2020).
    """

    Options: ClassVar[type[options.PartOptions]] = GaussianiseOptions
    options: GaussianiseOptions
    knots: Tensor
    images: Tensor
    slopes: Tensor
    last: Tensor

    def __init__(self, columns: tuple[str, ...], options: GaussianiseOptions) -> None:
        super().__init__(columns, options)
        # The bent tails hold rows beyond the train rows.
        self.reach = Reach(len(columns))
        # Room for the finest division: its inner knots, and both tails halved down to a double's precision.
        shape = (len(columns), options.max_pieces + 2 * 64)
        identity = torch.arange(shape[1], dtype=torch.float64).expand(shape)
        self.register_buffer("knots", identity.clone())
        self.register_buffer("images", identity.clone())
        self.register_buffer("slopes", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("last", torch.ones(len(columns), dtype=torch.int64))

    def fit(self, x: Tensor) -> None:
        """Choose each column's knots from `x: (n, d)`; a column without spread is a `DataError`."""
        x = self.reach.fit(x)
        mean, scale = mean_and_scale(x, self.columns)
        columns = ((x - mean) / scale).T.cpu().numpy()
        pieces = [_choose_pieces(column, self.options.max_pieces) for column in columns]
        if _are_better_straight(columns, pieces):
            pieces = [0] * len(columns)
        for number, (column, count) in enumerate(zip(columns, pieces, strict=True)):
            spline = _fit_spline(column, count).padded(self.knots.shape[1])
            self.knots[number] = mean[number] + scale[number] * spline.knots[0]
            self.images[number] = spline.images[0]
            self.slopes[number] = spline.slopes[0] / scale[number]
            self.last[number] = spline.last[0]

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussianise `x: (n, d)`; returns `z: (n, d)` and log|det dz/dx|: `(n,)`."""
        near, log_nearing = self.reach.to_near(x)
        z, log_slope = self._spline().forward(near)
        return z, (log_slope + log_nearing).sum(1)

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_model` for `z: (n, d)`; returns `x: (n, d)` and log|det dx/dz|: `(n,)`."""
        near, log_slope = self._spline().inverse(z)
        x, log_nearing = self.reach.to_far(near)
        return x, (log_slope + log_nearing).sum(1)

    def _spline(self) -> Spline:
        return Spline(self.knots, self.images, self.slopes, self.last)


def _choose_pieces(column: Floats, largest: int) -> int:
    """The number of pieces for a standardised `column: (n,)`, by held-out likelihood."""
    rows = column[:: -(-len(column) // COMPARED_ROWS)]
    candidates = [0]
    while (pieces := max(4, 2 * candidates[-1])) <= min(largest, len(rows) // ROWS_A_PIECE):
        candidates.append(pieces)
    folds = np.arange(len(rows)) % FOLDS
    # One fold is enough where it is large.
    held_out = range(FOLDS if len(rows) < 5000 else 1)
    scores = np.stack(
        [
            np.concatenate([_log_density(rows[folds == k], rows[folds != k], pieces) for k in held_out])
            for pieces in candidates
        ]
    )
    best = int(scores.mean(1).argmax())
    for number, pieces in enumerate(candidates[:best]):
        lead = scores[best] - scores[number]
        if lead.mean() <= 2 * lead.std() / np.sqrt(len(lead)):
            return pieces
    return candidates[best]


def _are_better_straight(columns: Floats, pieces: list[int]) -> bool:
    """Whether a mixture predicts `columns: (d, n)` better if none is divided into its `pieces`."""
    if len(columns) == 1 or not any(pieces):
        return False
    columns = columns[:, :: -(-columns.shape[1] // MIXTURE_ROWS)]
    bent, straight = (_joint_log_density(columns, counts) for counts in (pieces, [0] * len(pieces)))
    lead = straight - bent
    return bool(lead.mean() > 2 * lead.std() / np.sqrt(len(lead)))


def _joint_log_density(columns: Floats, pieces: list[int]) -> Floats:
    """Log-densities of every fifth row of `columns: (d, n)`, by the best mixture of the others.

    Behind splines of so many `pieces`. The best is the one that suits the same rows, for either side of a
    comparison.
    """
    held_out = np.arange(columns.shape[1]) % FOLDS == 0
    images, log_det = np.empty_like(columns), np.zeros(columns.shape[1])
    # As many pieces as there are rows for here: the pieces were chosen for more.
    finest = int((~held_out).sum()) // ROWS_A_PIECE
    for column, count, image in zip(columns, pieces, images, strict=True):
        z, log_slope = _fit_spline(column[~held_out], min(count, finest)).forward(
            torch.from_numpy(column)[:, None]
        )
        image[:] = z.squeeze(1).numpy()
        log_det += log_slope.squeeze(1).numpy()
    rows = images.T[~held_out]
    most = most_components(*rows.shape)
    fits = [
        fit_components(rows, count, threads=torch.get_num_threads()) for count in COMPONENTS if count <= most
    ]
    scores = [fit.score_samples(images.T[held_out]) + log_det[held_out] for fit in fits]
    return max(scores, key=np.mean)


def _log_density(rows: Floats, fitted: Floats, pieces: int) -> Floats:
    """The log-density of `rows: (m,)` under a standard normal behind the spline of the rows `fitted`."""
    z, log_slope = _fit_spline(fitted, pieces).forward(torch.from_numpy(rows)[:, None])
    log_density: Floats = (log_slope - 0.5 * z.square()).squeeze(1).numpy()
    return log_density


def _fit_spline(column: Floats, pieces: int) -> Spline:
    """The spline of a `column: (n,)`; without pieces, the straight line of its mean and spread."""
    from scipy.special import ndtri

    straight = _straight(float(column.mean()), float(column.std()))
    if not pieces:
        return straight
    values, counts = np.unique(column, return_counts=True)
    below = (np.cumsum(counts) - counts / 2) / len(column)
    levels = _levels(pieces, TAIL_ROWS / len(column), below[0], below[-1])
    knots = np.interp(levels, below, values)
    kept = _apart(knots, MERGED * (knots[-1] - knots[0]))
    knots, images = knots[kept], ndtri(levels[kept])
    if len(knots) < 3:
        return straight
    secants = np.diff(images) / np.diff(knots)
    inner = np.sqrt(secants[:-1] * secants[1:])
    lower = _tail_slope(knots[0] - column, -images[0], secants[0])
    upper = _tail_slope(column - knots[-1], images[-1], secants[-1])
    slopes = np.concatenate([[lower], inner, [upper]])
    at, to, steep = (torch.from_numpy(part)[None] for part in (knots, images, slopes))
    return Spline(at, to, steep, torch.tensor([len(knots) - 1]))


def _straight(mean: float, scale: float) -> Spline:
    images = torch.tensor([[-STRAIGHT, 0.0, STRAIGHT]], dtype=torch.float64)
    scale = scale or 1.0
    last = torch.tensor([2])
    return Spline(mean + scale * images, images, torch.full_like(images, 1 / scale), last)


def _levels(pieces: int, tail: float, lowest: float, highest: float) -> Floats:
    """Increasing levels of the distribution: equal masses, halved again and again towards either tail."""
    equal = np.arange(1, pieces) / pieces
    halved = 0.5 ** np.arange(1, 53) / pieces
    halved = halved[halved > tail]
    levels = np.concatenate([halved, equal, 1 - halved, [tail, 1 - tail]])
    return np.unique(np.clip(levels, max(lowest, tail), min(highest, 1 - tail)))


def _apart(knots: Floats, gap: float) -> list[int]:
    """Which of the sorted `knots` to keep so that each lies more than `gap` above the one before."""
    kept = [0]
    for index in range(1, len(knots)):
        if knots[index] - knots[kept[-1]] > gap:
            kept.append(index)
    return kept


def _tail_slope(excess: Floats, end: float, secant: float) -> float:
    """The slope beyond an outer knot whose image is `end`, from how far the rows there lie beyond it."""
    from scipy.special import log_ndtr

    beyond = excess[excess > 0]
    # E[z - end | z > end] of a standard normal.
    expected = np.exp(-0.5 * end**2 - log_ndtr(-end)) / np.sqrt(2 * np.pi) - end
    slope = expected / beyond.mean() if len(beyond) else secant
    return float(np.clip(slope, 0.1 * secant, 10 * secant))
