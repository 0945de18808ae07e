"""A two-column density tabulated on a regular grid."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Box = Sequence[tuple[float, float]]


def grid_axes(box: Box, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The midpoints `(size,)` along x and along y of `size` x `size` equal cells.

    The cells fill the `box` ((x low, x high), (y low, y high)).
    """
    (x, y) = (low + (high - low) * (np.arange(size) + 0.5) / size for low, high in box)
    return x, y


def tabulate(
    log_prob: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`log_prob` at every point of the grid `x: (nx,)`, `y: (ny,)`: `(nx, ny)`."""
    points = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    return log_prob(points).reshape(len(x), len(y))


def grid_mass(log_prob: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The midpoint rule's integral of exp `log_prob: (nx, ny)` over the grid's cells."""
    return float(np.exp(log_prob).sum() * (x[1] - x[0]) * (y[1] - y[0]))


def data_box(rows: NDArray[np.float64], margin: float = 0.25) -> Box:
    """The range of each column of `rows: (n, d)`, extended on every side by `margin` times its width.

    Missing values, NaN, do not count.
    """
    low, high = np.nanmin(rows, 0), np.nanmax(rows, 0)
    grow = margin * (high - low)
    return tuple(zip((low - grow).tolist(), (high + grow).tolist(), strict=True))
