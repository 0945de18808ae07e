"""A critical-difference diagram: average ranks on a line, with bars below that join equal models."""

from flowbench.report.figures.style import INK, MUTED, Picture, finish, new_figure, series_style, short
from flowbench.report.ranking import Ranking

WIDTH = 6.0
MAX_LABEL = 28


def draw_ranks(ranking: Ranking, *, alt: str, key: str) -> Picture:
    """The models of `ranking` from best to worst, each a dot at its average rank with its name beside it."""
    count = len(ranking.models)
    figure = new_figure(WIDTH, 0.9 + 0.3 * count)
    axes = figure.add_subplot()
    for position, (model, rank) in enumerate(zip(ranking.models, ranking.ranks, strict=True)):
        style = series_style(position)
        axes.plot(
            rank, position, marker=style["marker"], color=style["color"], markersize=6, linestyle="none"
        )
        axes.annotate(
            f"{short(model, MAX_LABEL)}  {rank:.2f}",
            (rank, position),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    for number, (first, last) in enumerate(ranking.groups):
        at = count - 0.4 + 0.25 * number
        axes.plot(
            [ranking.ranks[first], ranking.ranks[last]],
            [at, at],
            color=INK,
            linewidth=3,
            solid_capstyle="butt",
        )
    below = count - 0.1 + 0.25 * len(ranking.groups)
    axes.plot([1, 1 + ranking.critical_difference], [-0.9, -0.9], color=MUTED, linewidth=2)
    axes.annotate(
        f"critical difference {ranking.critical_difference:.2f}",
        (1, -0.9),
        xytext=(0, 4),
        textcoords="offset points",
        color=MUTED,
    )
    axes.set(xlim=(0.8, count + 1.2), ylim=(below, -1.6), xlabel="average rank by test NLL")
    axes.set_xticks(range(1, count + 1))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return finish(figure, alt, key)
