"""Where a continuous flow carries its samples, from the base to the data."""

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap

from flowbench.report.figures.planes import SMALL_WIDTH, Plane, new_panel
from flowbench.report.figures.style import MUTED, Picture, finish
from flowbench.report.numbers import plural
from flowbench.statistics.paired import Floats
from flowbench.store import Trajectory

TIMES = (0.0, 0.2, 0.5, 0.8, 1.0)
MAX_LINES = 40
#: Neither end is lost on a light or on a dark page.
SHADES = ListedColormap(colormaps["viridis"](np.linspace(0.15, 0.85, 256)))
#: Share of the positions in each column that may lie beyond the frame, at either end.
BEYOND = 0.002


def path_plane(names: tuple[str, str], trajectories: list[Trajectory]) -> Plane:
    """A frame around nearly all positions, in the first two columns, of all `trajectories`."""
    positions = np.concatenate([each.position[..., :2].reshape(-1, 2) for each in trajectories])
    positions = positions[np.isfinite(positions).all(axis=1)]
    limits = []
    for column in positions.T:
        low, high = np.quantile(column, [BEYOND, 1 - BEYOND])
        margin = 0.06 * (high - low) or 1.0
        limits.append((float(low - margin), float(high + margin)))
    return Plane(names, limits[0], limits[1], 1.0)


def draw_paths(plane: Plane, trajectory: Trajectory, *, what: str, key: str) -> list[tuple[str, Picture]]:
    """Pairs (title, panel): the particles at a few times, and last the paths of some of them.

    A particle keeps its colour, which tells where along the first column it began.
    """
    colours = _ranks(trajectory.position[0, :, 0])
    panels = []
    for number, index in enumerate(_nearest(trajectory.time)):
        time = trajectory.time[index]
        figure, axes = new_panel(plane, SMALL_WIDTH, named=False)
        x, y = trajectory.position[index, :, :2].T
        axes.scatter(x, y, c=colours, cmap=SHADES, s=6, linewidths=0, rasterized=True)
        alt = f"{plural(len(colours), 'particle')} of {what} at time {time:.2f}."
        panels.append((f"t = {time:.2f}", finish(figure, alt, f"{key}-{number}")))
    return [*panels, ("paths", _draw_lines(plane, trajectory, colours, what, f"{key}-lines"))]


def _draw_lines(plane: Plane, trajectory: Trajectory, colours: Floats, what: str, key: str) -> Picture:
    figure, axes = new_panel(plane, SMALL_WIDTH, named=False)
    lines = trajectory.position[:, :MAX_LINES, :2].transpose(1, 0, 2)
    collection = LineCollection(
        list(lines), array=colours[: len(lines)], cmap=SHADES, linewidths=0.7, alpha=0.7
    )
    collection.set_clim(0, 1)
    axes.add_collection(collection)
    start, end = lines[:, 0], lines[:, -1]
    axes.scatter(start[:, 0], start[:, 1], s=5, facecolors="none", edgecolors=MUTED, linewidths=0.5)
    axes.scatter(
        end[:, 0], end[:, 1], s=5, c=colours[: len(lines)], cmap=SHADES, vmin=0, vmax=1, linewidths=0
    )
    return finish(figure, f"Paths of {plural(len(lines), 'particle')} of {what} from base to data.", key)


def _nearest(time: Floats) -> list[int]:
    return sorted({int(np.argmin(np.abs(time - wanted))) for wanted in TIMES})


def _ranks(values: Floats) -> Floats:
    """Ranks from 0 to 1, so that colours are spread evenly."""
    return np.argsort(np.argsort(values)) / max(len(values) - 1, 1)
