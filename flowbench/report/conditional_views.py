"""Figures of conditional densities at the givens of single rows."""

from collections.abc import Sequence

from flowbench.report.figures.planes import draw_density, shared_plane
from flowbench.report.figures.single_contexts import Slice, beyond_top, draw_slices
from flowbench.report.figures.style import TOLD_APART, short
from flowbench.report.grouping import Section
from flowbench.report.numbers import listed, plural
from flowbench.report.panels import Gallery, Panel, seeds_shown, shown_runs, told_apart
from flowbench.statistics.paired import Floats
from flowbench.store import Grid

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
        panels.append(Panel(_name_givens(section, first.context[place]), (picture,), _describe_cut(lines)))
    caption = f"Each model's density of {section.columns[0]}, {_which_rows(section, len(first.value))}."
    caption += told_apart(len(section.models)) + seeds_shown(section)
    return Gallery(f"Densities of {section.columns[0]} at single givens", "curves", tuple(panels), caption)


def slice_plane_gallery(section: Section, key: str) -> Gallery | None:
    """The densities of two columns at the contexts of three test rows."""
    found = [
        (model.label, run.results.slice_planes)
        for model, run in shown_runs(section)
        if run.results.slice_planes is not None
    ]
    if not found:
        return None
    first = found[0][1]
    names = section.columns[0], section.columns[1]
    places = range(len(first.value))
    grids = {
        (label, k): Grid(each.x[k], each.y[k], each.log_prob[k]) for label, each in found for k in places
    }
    planes = [shared_plane(names, [grids[label, k] for label, _ in found]) for k in places]
    panels = []
    for number, (label, _) in enumerate(found):
        pictures = [
            draw_density(
                plane,
                grids[label, k],
                grids[label, k].log_prob,
                what=f"{label}, given {_name_givens(section, first.context[k])},",
                key=f"{key}-{number}-{k}",
                rows=first.value[[k]],
            )
            for k, plane in enumerate(planes)
        ]
        panels.append(Panel(label, tuple(pictures)))
    given = [
        f"{_name_givens(section, context)} (up to {plane.brightest:.3g})"
        for context, plane in zip(first.context, planes, strict=True)
    ]
    caption = (
        f"Each model's density of {names[0]} and {names[1]}, {_which_rows(section, len(given))}. In this "
        f"order: {'; '.join(given)}. Colours run from 0 to the density in brackets and above, per unit of "
        "both columns, and are the same for all models. The circle is the row's own value."
    )
    title = f"Densities of {names[0]} and {names[1]} at single givens"
    return Gallery(title, "pairs", tuple(panels), caption + seeds_shown(section))


def _which_rows(section: Section, rows: int) -> str:
    where = (
        f"those whose {section.columns[0]} is low, in the middle and high" if rows == 3 else "all there are"
    )
    return f"at the givens of {plural(rows, 'test row')}: {where}"


def _name_givens(section: Section, context: Floats) -> str:
    """The names and values of the givens, but for those beyond `MOST_GIVENS`."""
    named = [
        f"{short(name)} = {section.value_text(name, float(value))}"
        for name, value in zip(section.given[:MOST_GIVENS], context, strict=False)
    ]
    left_out = len(section.given) - len(named)
    more = f" and {left_out} more" if left_out else ""
    return ", ".join(named) + more


def _describe_cut(lines: Sequence[Slice]) -> str:
    """Whose peaks a panel does not show."""
    cut = beyond_top(lines)
    return f"higher than the panel: {listed(cut)}" if cut else ""
