"""Models over several data sets: average ranks, and how far apart they have to be to mean something."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowbench.report.grouping import ModelGroup, Section
from flowbench.statistics.paired import CONFIDENCE
from flowbench.statistics.ranks import average_ranks

#: Fewer data sets than these rank nothing.
LEAST_DATASETS = 3


@dataclass(frozen=True)
class Ranking:
    """The `models` by their average `ranks` by test NLL over `datasets`, best first; 1 is the best.

    Two models whose ranks differ by less than `critical_difference` are not told apart (Nemenyi's test, in
    Demsar 2006). `p_value` is Friedman's, that all models are alike; None for two. `uneven` are models that
    had not the same budget on all data sets.
    """

    models: tuple[str, ...]
    ranks: tuple[float, ...]
    datasets: tuple[str, ...]
    critical_difference: float
    p_value: float | None
    uneven: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[int, int]]:
        """The longest runs of models, as first and last index, that are not told apart."""
        found: list[tuple[int, int]] = []
        for first in range(len(self.ranks)):
            within = [
                last
                for last in range(first + 1, len(self.ranks))
                if self.ranks[last] - self.ranks[first] < self.critical_difference
            ]
            if within and (not found or within[-1] > found[-1][1]):
                found.append((first, within[-1]))
        return found


def rank_models(sections: Sequence[Section]) -> Ranking | None:
    """Rank the models that all sections have; None for fewer than two, or for few data sets.

    Of a data set that was split or cut in several ways, and of several draws of a toy, the first counts; one
    on which likelihoods rank no models does not.
    """
    first = {_data_set(section): section for section in reversed(sections) if section.objection is None}
    sections = [section for section in sections if section in first.values()]
    models = [{model.label: model for model in section.models} for section in sections]
    shared = [label for label in models[0] if all(label in each for each in models)] if models else []
    if len(sections) < LEAST_DATASETS or len(shared) < 2:
        return None
    found = average_ranks(
        np.array([[each[label].nll.mean for label in shared] for each in models]), CONFIDENCE
    )
    order = np.argsort(found.ranks, kind="stable")
    return Ranking(
        models=tuple(shared[i] for i in order),
        ranks=tuple(float(found.ranks[i]) for i in order),
        datasets=tuple(section.name for section in sections),
        critical_difference=found.critical_difference,
        p_value=found.p_value,
        uneven=tuple(label for label in shared if len({_budget(each[label]) for each in models}) > 1),
    )


def _data_set(section: Section) -> str:
    # Only a toy's entropy is known, and its rows are drawn anew for every size.
    return section.sha256 or section.name if section.entropy is None else section.name


def _budget(model: ModelGroup) -> tuple[str | None, ...]:
    """Seconds and steps; none for a density in closed form."""
    record = model.runs[0].record
    trained = any(each.get("step") for each in record.history)
    return tuple(record.options.get(f"plan.{name}") if trained else None for name in ("seconds", "steps"))
