"""Pictures of time series: what was seen, what is predicted with bands, latent paths, and draws."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from flowbench.report.figures.style import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    Picture,
    finish,
    new_figure,
    plain_ticks,
    series_style,
    short,
)
from flowbench.store.series_results import Curves, DrawnSeries, Floats, Observations

WIDTH, HEIGHT = 2.6, 1.7
#: Columns of values that are drawn below one another.
MOST_COLUMNS = 4
#: Draws in one picture.
MOST_DRAWS = 12


def draw_forecast(
    curves: Curves,
    observations: Observations,
    curve: int,
    *,
    columns: Sequence[str],
    time_name: str,
    alt: str,
    key: str,
) -> Picture:
    """One series: seen and hidden observations, and the prediction with 50% and 90% bands along it."""
    shown = min(len(columns), MOST_COLUMNS)
    figure = new_figure(WIDTH, 0.5 + HEIGHT * shown)
    panels = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    own = observations.of_series == curves.of_series[curve]
    times, cut = observations.time[own], curves.cut[curve]
    for place, axes in enumerate(panels):
        x = curves.time[curve]
        low, lower, upper, high = curves.bands[:, curve, :, place]
        colour = SAMPLES
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.fill_between(x, lower, upper, color=colour, alpha=0.28, linewidth=0)
        axes.plot(x, curves.mean[curve, :, place], color=colour, linewidth=1.4)
        values = observations.value[own, place]
        if observations.truth is not None:
            axes.plot(times, observations.truth[own, place], color=INK, linewidth=0.8, linestyle="--")
        seen = times <= cut
        axes.plot(times[seen], values[seen], "o", color=INK, markersize=3)
        axes.plot(
            times[~seen], values[~seen], "o", markerfacecolor="none", markeredgecolor=MUTED, markersize=3
        )
        if (~seen).any():
            axes.axvline(cut, color=MUTED, linewidth=0.7, linestyle=":")
        axes.set_ylabel(short(columns[place]))
        _limits(axes, values, curves.mean[curve, :, place])
    plain_ticks(panels[-1].xaxis)
    panels[-1].set_xlabel(short(time_name))
    return finish(figure, alt, key)


def _limits(axes: Axes, values: Floats, mean: Floats) -> None:
    """Limits that show the observations and the mean, and of the bands as much as fits beside them."""
    plain_ticks(axes.yaxis)
    every = np.concatenate([values[np.isfinite(values)], mean])
    low, high = every.min(), every.max()
    margin = 0.6 * (high - low) or 0.5
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - margin), min(top, high + margin))


def draw_latent(curves: Curves, curve: int, *, time_name: str, alt: str, key: str) -> Picture:
    """The latent state of one series along its time, a line for each dimension."""
    figure = new_figure(WIDTH, HEIGHT + 0.3)
    axes = figure.add_subplot()
    path = curves.path if curves.path is not None else np.zeros((1, 0, 0))
    for number in range(path.shape[2]):
        style = series_style(number) | {"marker": "", "linewidth": 1.1}
        axes.plot(curves.time[curve], path[curve, :, number], **style)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set(xlabel=short(time_name), ylabel="latent state")
    return finish(figure, alt, key)


def draw_samples(
    samples: DrawnSeries, place: int, *, column: str, time_name: str, alt: str, key: str
) -> Picture:
    """Draws of one column over time."""
    figure = new_figure(WIDTH, HEIGHT + 0.3)
    axes = figure.add_subplot()
    for number in range(min(len(samples.value), MOST_DRAWS)):
        axes.plot(samples.time, samples.value[number, :, place], color=DATA, linewidth=0.7, alpha=0.8)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set(xlabel=short(time_name), ylabel=short(column))
    return finish(figure, alt, key)


def draw_bounds(bounds: Sequence[tuple[str, int, Floats, Floats]], *, alt: str, key: str) -> Picture:
    """The mean bound on the NLL against the number of draws, one (label, series, draws, nll) each."""
    figure = new_figure(4.4, 3.1)
    axes = figure.add_subplot()
    for label, number, draws, nll in bounds:
        axes.plot(draws, nll, **series_style(number), markersize=4, label=short(label))
    axes.set_xscale("log")
    places = np.unique(np.concatenate([draws for _, _, draws, _ in bounds]))
    axes.xaxis.set_major_locator(FixedLocator(places.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="draws", ylabel="bound on the NLL of a series, nats")
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return finish(figure, alt, key)
