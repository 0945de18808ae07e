"""Panels of figures under one heading, and which runs they show."""

from dataclasses import dataclass
from typing import Literal

from flowbench.report.figures.style import TOLD_APART, Picture
from flowbench.report.grouping import FittedRun, ModelGroup, Section


@dataclass(frozen=True)
class Panel:
    """A titled picture, or several, one below the other; `note` says what the eye cannot see."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Panels that belong together, under one heading."""

    title: str
    kind: Literal["single", "pairs", "small", "corner", "curves", "series"]
    panels: tuple[Panel, ...]
    caption: str = ""
    scale: Picture | None = None
    scale_text: str = ""


def shown_runs(section: Section) -> list[tuple[ModelGroup, FittedRun]]:
    """Each model with the run that is pictured: the first by seed, not the prettiest."""
    return [(model, model.runs[0]) for model in section.models]


def told_apart(models: int) -> str:
    """A sentence for a caption: how many of so many models a figure shows, if not all."""
    return f" Of {models} models, the {TOLD_APART} of the lowest test NLL." if models > TOLD_APART else ""


def seeds_shown(section: Section) -> str:
    """A sentence for a caption: which run of a model is shown, if it has several."""
    repeated = any(len(model.runs) > 1 for model in section.models)
    return " Of several runs of a model, the one with the lowest seed is shown." if repeated else ""
