"""The error of solvers against their speed."""

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from flowbench.report.figures.style import INK, Picture, finish, new_figure, series_style
from flowbench.store.rung import Rung

WIDTH, HEIGHT = 9.0, 4.8
#: Biases below this are rounding, and are drawn at this value.
LEAST = 1e-9


def draw_tradeoff(rungs: Sequence[Rung], chosen: Rung | None, error: float, *, alt: str, key: str) -> Picture:
    """The largest bias within its interval against speed, both logarithmic; a line for each family."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    families = list(dict.fromkeys(rung.family for rung in rungs))
    for number, family in enumerate(families):
        solved = [rung for rung in rungs if rung.family == family and rung.rows_per_second]
        if solved:
            speeds = [rung.rows_per_second or 0.0 for rung in solved]
            biases = [max(rung.worst_bias, LEAST) for rung in solved]
            axes.plot(speeds, biases, **series_style(number), markersize=5, label=family)
    axes.axhline(error, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=f"asked for: {error:g} nat")
    if chosen is not None:
        axes.plot(
            chosen.rows_per_second or 0.0,
            max(chosen.worst_bias, LEAST),
            marker="o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=INK,
            linestyle="none",
            label="recommended",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="rows a CPU second (logarithmic)",
        ylabel="NLL off by at most (nats, logarithmic)",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid()
    figure.legend(loc="outside right upper", handlelength=3)
    return finish(figure, alt, key)
