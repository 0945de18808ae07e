"""Models over several data sets: average ranks, and the least difference of ranks that is significant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowbench.report.grouping import ModelGroup, Section
from flowbench.statistics.paired import CONFIDENCE
from flowbench.statistics.ranks import average_ranks

#: Models are ranked over at least this many data sets.
LEAST_DATASETS = 3


@dataclass(frozen=True)
class Ranking:
    """The average `ranks` by test NLL of `models` over `datasets`, best first; rank 1 is the best.

    Two models whose ranks differ by less than `critical_difference` are not told apart (Nemenyi's test, in
    Demsar 2006). `p_value` is that of Friedman's test that all models are alike, or None for two models.
    `uneven` names the models whose training budget was not the same on all data sets.
    """

    models: tuple[str, ...]
    ranks: tuple[float, ...]
    datasets: tuple[str, ...]
    critical_difference: float
    p_value: float | None
    uneven: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last index of each longest sequence of models that are not told apart."""
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

    If a data set has several sections, by other splits or columns or as draws of a toy, the first one counts.
    A data set on which likelihoods do not rank models is left out.
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
    # A known entropy means a toy. Its sha256 differs with the number of rows that were drawn.
    return section.sha256 or section.name if section.entropy is None else section.name


def _budget(model: ModelGroup) -> tuple[str | None, ...]:
    """Seconds and steps of training; both are None for a fit in closed form."""
    record = model.runs[0].record
    trained = any(each.get("step") for each in record.history)
    return tuple(record.options.get(f"plan.{name}") if trained else None for name in ("seconds", "steps"))
