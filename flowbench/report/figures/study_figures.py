"""Charts and densities of a study, drawn from its stored numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from flowbench.report.figures.style import (
    Picture,
    finish,
    frame,
    new_figure,
    plain_ticks,
    series_style,
    short,
)
from flowbench.store.findings import Chart, Image, Series

WIDTH, HEIGHT, SIDE, PLANE = 4.4, 3.1, 1.9, 3.4
COLOUR_MAP = "viridis"
#: Inches between bars at the same place.
ASIDE = 0.06
#: A linear axis of values ends at this quantile of them.
TOP = 0.8


def draw_chart(chart: Chart, *, key: str) -> Picture:
    """A chart with its legend."""
    figure = new_figure(*((PLANE, PLANE) if chart.is_plane else (WIDTH, HEIGHT)))
    draw_on(figure.add_subplot(), chart)
    figure.legend(loc="outside upper left", ncols=2, handlelength=2 if chart.is_plane else 3)
    what = "curves on the plane" if chart.is_plane else f"{chart.ylabel} against {chart.xlabel}"
    return finish(figure, f"{chart.title}: {what}.", key)


def draw_on(axes: Axes, chart: Chart) -> None:
    """The lines of a chart, with bars where there are intervals, without a legend."""
    axes.set(xlabel=chart.xlabel, ylabel=chart.ylabel)
    if chart.is_plane:
        frame(axes)
        for number, series in enumerate(chart.series):
            _draw_line(axes, series, series_style(number))
        axes.set_aspect("equal", adjustable="datalim")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        return
    taken: list[float] = []
    for number, series in enumerate(chart.series):
        style = series_style(number)
        if series.low is None or series.high is None:
            _draw_line(axes, series, style)
            continue
        reach = np.abs(np.stack([series.y - series.low, series.high - series.y]))
        bars = axes.errorbar(
            series.x, series.y, yerr=reach, **style, markersize=5, capsize=3, label=short(series.label)
        )
        # Bars at one place would hide one another.
        inches = ASIDE * max(map(taken.count, series.x))
        aside = ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
        for artist in bars.get_children():
            artist.set_transform(artist.get_transform() + aside)
        taken += series.x.tolist()
    _scale_axes(axes, chart, ends_at_most_values=not taken)
    axes.grid(axis="y")


def _scale_axes(axes: Axes, chart: Chart, *, ends_at_most_values: bool) -> None:
    """Ticks and ends of both axes."""
    for name, axis, scale in (("x", axes.xaxis, axes.set_xscale), ("y", axes.yaxis, axes.set_yscale)):
        if name in chart.logarithmic:
            scale("log")
            values = np.concatenate([getattr(series, name) for series in chart.series])
            # Few decades have room for ticks between them.
            subs = (1, 2, 5) if values.max() < 1e3 * values.min() else (1,)
            axis.set_major_locator(LogLocator(subs=subs, numticks=9))
            axis.set_major_formatter(FuncFormatter(lambda value, _: _brief(value)))
            axis.set_minor_locator(NullLocator())
        else:
            plain_ticks(axis)
    has_dots = any(each.is_scatter for each in chart.series)
    if "y" not in chart.logarithmic and ends_at_most_values and not has_dots:
        _leave_out_the_start(axes, chart)
    places = np.unique(np.concatenate([series.x for series in chart.series]))
    if len(places) <= 8 and (places == places.round()).all():
        axes.xaxis.set_major_locator(FixedLocator(places.tolist()))


def _brief(value: float) -> str:
    """Long numbers would touch one another."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _draw_line(axes: Axes, series: Series, style: dict[str, Any]) -> None:
    """A line, or dots."""
    style |= {"linestyle": "", "marker": "o", "markersize": 2.5} if series.is_scatter else {"marker": ""}
    axes.plot(series.x, series.y, **style, label=short(series.label))


def _leave_out_the_start(axes: Axes, chart: Chart) -> None:
    """End the axis of values where most of them are, since the first ones can be arbitrarily bad."""
    values = np.concatenate([series.y for series in chart.series])
    low, high = values.min(), np.quantile(values, TOP)
    margin = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def draw_images(images: Sequence[Image], *, key: str) -> list[Picture]:
    """Each density in a panel of its own, from 0 to its highest value."""
    pictures = []
    for number, image in enumerate(images):
        figure = new_figure(SIDE, SIDE)
        axes = figure.add_subplot()
        frame(axes)
        extent = (image.x[0], image.x[-1], image.y[0], image.y[-1])
        axes.imshow(image.density.T, origin="lower", extent=extent, cmap=COLOUR_MAP, vmin=0, aspect="auto")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        pictures.append(finish(figure, f"Density: {image.title}.", f"{key}-{number}"))
    return pictures
