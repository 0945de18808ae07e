"""Densities and samples of two columns, side by side with the same limits and colour scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from flowbench.report.figures.style import (
    DATA,
    MUTED,
    SAMPLES,
    Picture,
    finish,
    frame,
    new_figure,
    plain_ticks,
    short,
)
from flowbench.report.grouping import cell_edges
from flowbench.report.numbers import plural
from flowbench.statistics.paired import Floats
from flowbench.store import Grid

COLOUR_MAP = "viridis"
#: The most dots in a panel; more would hide one another.
MAX_DOTS = 2000
WIDTH = 2.6
SMALL_WIDTH = 1.75
#: This share of the cells may be brighter than the colour scale, so that one spike does not darken the rest.
CLIPPED = 0.001
#: The same of a conditional density, which is bright wherever it is narrow.
CLIPPED_GIVEN = 0.01

Limits = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """What all panels of a data set share: column names, limits, and the top of the colour scale."""

    names: tuple[str, str]
    x: Limits
    y: Limits
    brightest: float

    def outside(self, points: Floats) -> int:
        """How many of `points: (n, 2)` lie beyond the limits."""
        low, high = np.array([self.x, self.y]).T
        return int(np.sum(np.any((points < low) | (points > high), axis=1)))


def shared_plane(names: tuple[str, str], grids: Sequence[Grid], *, given: bool = False) -> Plane:
    """The plane of all `grids`, with a colour scale up to the brightest cell.

    If the true density is known, its brightest cell counts, so that no spike of a model stretches the scale.
    Otherwise it is that of the models, without the brightest share of their cells: `CLIPPED`, or
    `CLIPPED_GIVEN` of a density of y given x.
    """
    clipped = CLIPPED_GIVEN if given else CLIPPED
    truths = [_density(grid.true_log_prob) for grid in grids if grid.true_log_prob is not None]
    if truths:
        brightest = max(float(density.max()) for density in truths)
    else:
        brightest = max(float(np.quantile(_density(grid.log_prob), 1 - clipped)) for grid in grids)
    edges = [(cell_edges(grid.x), cell_edges(grid.y)) for grid in grids]
    x, y = ((min(each[axis][0] for each in edges), max(each[axis][1] for each in edges)) for axis in (0, 1))
    return Plane(names, x, y, brightest if np.isfinite(brightest) and brightest > 0 else 1.0)


def draw_density(
    plane: Plane,
    grid: Grid,
    log_prob: Floats,
    *,
    what: str,
    key: str,
    rows: Floats | None = None,
    quantiles: Sequence[float] = (),
) -> Picture:
    """A density on the grid, with `rows: (n, 2)` of data as open dots on top.

    Of a density of y given x, lines follow these `quantiles` of y along x.
    """
    figure, axes = new_panel(plane)
    # The darkest colour of the scale, where the grid ends.
    axes.set_facecolor(colormaps[COLOUR_MAP](0.0))
    axes.imshow(
        _density(log_prob).T,
        origin="lower",
        extent=(*cell_edges(grid.x), *cell_edges(grid.y)),
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=plane.brightest,
        aspect="auto",
        interpolation="bilinear",
    )
    for level, line in zip(quantiles, _quantile_lines(grid, log_prob, quantiles), strict=True):
        width = 1.2 if level == 0.5 else 0.6
        axes.plot(grid.x, line, color="white", linewidth=width, alpha=0.7)
    if rows is not None:
        axes.scatter(
            rows[:MAX_DOTS, 0],
            rows[:MAX_DOTS, 1],
            s=2.2 * _dot_size(len(rows)),
            facecolors="none",
            edgecolors="white",
            linewidths=0.7,
            alpha=0.85,
            rasterized=True,
        )
    return finish(figure, f"Density of {what} over {_plane_name(plane)}.", key)


def draw_dots(plane: Plane, points: Floats, *, what: str, key: str, data: bool = False) -> Picture:
    """`points: (n, 2)` as dots, the first `MAX_DOTS` of them."""
    figure, axes = new_panel(plane)
    shown = points[:MAX_DOTS]
    axes.scatter(
        shown[:, 0],
        shown[:, 1],
        s=_dot_size(len(shown)),
        color=DATA if data else SAMPLES,
        alpha=0.8,
        linewidths=0,
        rasterized=True,
    )
    return finish(figure, f"{plural(len(shown), 'dot')}: {what} over {_plane_name(plane)}.", key)


def draw_colour_bar(plane: Plane, *, key: str) -> Picture:
    """The scale of every density panel."""
    figure = new_figure(3.6, 0.55)
    axes = figure.add_subplot()
    scale = ScalarMappable(Normalize(0, plane.brightest), COLOUR_MAP)
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", extend="max")
    bar.outline.set_edgecolor(MUTED)
    plain_ticks(bar.ax.xaxis, 5)
    return finish(
        figure, f"Colour scale: density from 0, dark, to {plane.brightest:.3g} and above, bright.", key
    )


def new_panel(plane: Plane, panel_width: float = WIDTH, *, named: bool = True) -> tuple[Figure, Axes]:
    """An empty panel in the shape of the plane, with its limits, its ticks and, if `named`, its names."""
    width, height = plane.x[1] - plane.x[0], plane.y[1] - plane.y[0]
    # Columns of similar range keep their proportions; others fill a square.
    ratio = height / width if 0.5 <= height / width <= 2 else 1.0
    figure = new_figure(panel_width, 0.45 + (panel_width - 0.6) * ratio)
    axes = figure.add_subplot()
    frame(axes)
    axes.set(xlim=plane.x, ylim=plane.y)
    if named:
        axes.set(xlabel=short(plane.names[0]), ylabel=short(plane.names[1]))
    # Neither dots nor images may move the limits that all panels share.
    axes.autoscale(False)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    return figure, axes


def _quantile_lines(grid: Grid, log_prob: Floats, quantiles: Sequence[float]) -> list[Floats]:
    """Quantiles of y at each x, `(nx,)` each, from a tabulated density of y given x; NaN where it is 0."""
    mass = np.cumsum(_density(log_prob), axis=1)
    lines = []
    for level in quantiles:
        reached = mass >= level * mass[:, -1:]
        lines.append(np.where(mass[:, -1] > 0, grid.y[reached.argmax(1)], np.nan))
    return lines


def _density(log_prob: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.nan_to_num(np.exp(log_prob), nan=0.0, posinf=np.finfo(np.float64).max)


def _dot_size(count: int) -> float:
    """Area of a dot, in points squared: few dots are large, many are small."""
    return float(np.clip(3000 / max(count, 1), 2.2, 14))


def _plane_name(plane: Plane) -> str:
    return f"{short(plane.names[0])} and {short(plane.names[1])}"
