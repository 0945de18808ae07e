"""The style of all figures, and their conversion to SVG inside a page."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import seaborn
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

# Placeholders, which the finished SVG replaces by the page's own colours: a figure then follows the page's
# light or dark theme.
INK, MUTED, RULE = "#010203", "#040506", "#070809"
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}

#: Dots of data and of samples: dark enough on white, light enough on black.
DATA, SAMPLES = "#80868d", "#3b82c4"
#: Resolution of what is drawn as pixels inside an SVG.
DPI = 200
MAX_NAME = 18

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b4559b", "#b58900", "#5b7f95")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
#: The number of series that have a line style, a colour and a marker of their own.
TOLD_APART = len(_COLOURS)
_MARKERS = ("o", "s", "^", "D", "v", "P")


_COORDINATES = {"d", "x", "y", "width", "height", "points"}


@dataclass(frozen=True)
class Picture:
    """A figure as an inline SVG with a text for readers who cannot see it."""

    svg: Markup


def series_style(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the `index`-th model: any one of them tells it from the others."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's settings for the figures of a report, restored after the block."""
    settings = {
        **seaborn.axes_style("ticks"),
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.labelcolor": INK,
        "axes.labelsize": 9,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": "none",
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "svg.fonttype": "none",
        "text.color": INK,
        # Names come from the data, where a dollar sign does not begin mathematics.
        "text.parse_math": False,
        "text.usetex": False,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 9,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The font only measures text here; the reader's browser may have the letters that it lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that keeps its labels inside; pyplot is not involved."""
    return Figure(figsize=(width, height), layout="constrained")


def short(name: str, length: int = MAX_NAME) -> str:
    """`name` on one line, without control characters, cut to `length` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def plain_ticks(axis: Any, count: int = 4) -> None:
    """At most `count` round ticks, as plain numbers."""
    axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10]))
    formatter = ScalarFormatter(useOffset=False, useMathText=False)
    formatter.set_powerlimits((-4, 5))
    axis.set_major_formatter(formatter)


def frame(axes: Axes) -> None:
    """Close the box around a panel."""
    axes.spines[["top", "right"]].set_visible(True)


def finish(figure: Figure, alt: str, key: str) -> Picture:
    """The finished figure; `key` is unique in the page and keeps the ids of its parts apart."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", dpi=DPI, metadata=nothing)
    return Picture(_inline(buffer.getvalue(), alt, key))


def _inline(svg: bytes, alt: str, key: str) -> Markup:
    """`svg` as an element of the page: without namespaces, with unique ids, sized by the page."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        identity = attributes.pop("id", None)
        if identity in used:
            attributes["id"] = f"{key}-{identity}"
        element.attrib.clear()
        element.attrib.update(
            {name: _shortened(name, _adapt(value, used, key)) for name, value in attributes.items()}
        )
    width, height = root.attrib.pop("width"), root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.attrib |= {"role": "img", "style": f"--width: {width}; aspect-ratio: {width[:-2]} / {height[:-2]}"}
    # ElementTree escapes text from the data in the figure.
    body = ElementTree.tostring(root, encoding="unicode").removeprefix("<svg")
    return Markup('<svg aria-label="{}"').format(escape(alt)) + Markup(body)


def _adapt(value: str, used: set[str], key: str) -> str:
    """An attribute's value with the page's ids and colours."""
    if value.startswith("#") and value[1:] in used:
        return f"#{key}-{value[1:]}"
    for stand_in, colour in _THEME.items():
        value = value.replace(stand_in, colour)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", value)


def _shortened(name: str, value: str) -> str:
    """Coordinates cut to a hundredth of a point, which is invisible and makes pages smaller."""
    return re.sub(r"(\.\d\d)\d+", r"\1", value) if name in _COORDINATES else value
