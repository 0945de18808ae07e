"""Figures of conditional densities at the givens of single rows."""

from collections.abc import Sequence

from flowbench.report.figures.single_contexts import Slice, beyond_top, draw_slices
from flowbench.report.figures.style import TOLD_APART, short
from flowbench.report.grouping import Section
from flowbench.report.numbers import listed
from flowbench.report.panels import Gallery, Panel, seeds_shown, shown_runs, told_apart
from flowbench.statistics.paired import Floats

#: The title of a panel names the values of at most this many givens.
MOST_GIVENS = 3


def slice_gallery(section: Section, key: str) -> Gallery | None:
    """The densities of one column at the contexts of three test rows, if there are many givens."""
    found = [
        (number, model.label, run.results.slices)
        for number, (model, run) in enumerate(shown_runs(section))
        if run.results.slices is not None
    ][:TOLD_APART]
    if not found:
        return None
    first = found[0][2]
    panels = []
    for place, value in enumerate(first.value):
        lines = [
            Slice(label, number, slices.y[place], slices.log_prob[place]) for number, label, slices in found
        ]
        picture = draw_slices(
            lines,
            float(value),
            column=section.columns[0],
            alt=f"Density of {section.columns[0]} under each model, given the values of a test row, and the "
            "value of that row.",
            key=f"{key}-{place}",
        )
        panels.append(Panel(_describe_slice(lines, section, first.context[place]), (picture,)))
    caption = (
        f"Each model's density of {section.columns[0]} at the givens of three test rows: those whose "
        f"{section.columns[0]} is low, in the middle and high."
    )
    caption += told_apart(len(section.models)) + seeds_shown(section)
    return Gallery(f"Densities of {section.columns[0]} at single givens", "curves", tuple(panels), caption)


def _describe_slice(lines: Sequence[Slice], section: Section, context: Floats) -> str:
    """The givens of a panel, and whose peaks it does not show."""
    named = [
        f"{short(name)} = {value:.4g}"
        for name, value in zip(section.given[:MOST_GIVENS], context, strict=False)
    ]
    left_out = len(section.given) - len(named)
    more = f" and {left_out} more" if left_out else ""
    cut = beyond_top(lines)
    return ", ".join(named) + more + (f"; higher than the panel: {listed(cut)}" if cut else "")
