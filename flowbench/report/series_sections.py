"""What a report on runs on time series compares: models on the same test series."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flowbench.report.records import StoredRecord, contents, distinct
from flowbench.statistics.paired import PairedDifference, adjust, compare_paired
from flowbench.store import Run
from flowbench.store.series_results import Floats, HeldOut, SeriesResults


@dataclass(frozen=True, eq=False)
class SeriesRecord(StoredRecord):
    """One run on time series; `results` is None if there are none."""

    results: SeriesResults | None


@dataclass(frozen=True, eq=False)
class SeriesGroup:
    """The runs of one model with the same options; their figures are averaged."""

    label: str
    records: tuple[SeriesRecord, ...]

    @property
    def results(self) -> list[SeriesResults]:
        """The results of each run."""
        return [each.results for each in self.records if each.results is not None]

    @property
    def first(self) -> SeriesResults:
        """The results of the first run."""
        return self.results[0]

    @cached_property
    def nll(self) -> Floats:
        """The NLL of each test series, `(s,)`, nats, the mean over runs."""
        return np.asarray(-np.mean([each.scored.log_prob for each in self.results], axis=0))

    @property
    def is_bound(self) -> bool:
        """Whether the NLL is an upper bound."""
        return self.first.scored.standard_error is not None

    def metric(self, name: str) -> float | None:
        """The mean of a metric over runs; None where a run does not have it."""
        found = [each.metrics[name].value for each in self.results if name in each.metrics]
        return float(np.mean(found)) if len(found) == len(self.results) else None

    def squared_errors(self, name: str, scale: Floats) -> Floats | None:
        """The mean squared error of the held-out values of each test series, in variances of the columns.

        `(s,)`, NaN for a series of which nothing was held out; None without such predictions.
        """
        parts: list[Floats] = []
        for results in self.results:
            part: HeldOut | None = getattr(results, name)
            if part is None:
                return None
            errors = ((part.mean - part.value) / scale) ** 2
            held = ~np.isnan(errors)
            sums, counts = np.zeros(len(results.ids)), np.zeros(len(results.ids))
            np.add.at(sums, part.of_series, np.where(held, errors, 0.0).sum(1))
            np.add.at(counts, part.of_series, held.sum(1))
            with np.errstate(invalid="ignore"):
                parts.append(np.where(counts > 0, sums / counts, np.nan))
        return np.asarray(np.mean(parts, axis=0))


@dataclass(frozen=True, eq=False)
class SeriesSection:
    """Models on the same test series of one data set, the best NLL first."""

    name: str
    groups: tuple[SeriesGroup, ...]

    @property
    def record(self) -> SeriesRecord:
        """The first run of the best model."""
        return self.groups[0].records[0]

    @property
    def results(self) -> SeriesResults:
        """The results of that run."""
        return self.groups[0].first

    @cached_property
    def differences(self) -> list[PairedDifference | None]:
        """The NLL of each model above that of the best one, paired over series; None for the best."""
        return _paired(self.groups[0].nll, [group.nll for group in self.groups])

    @cached_property
    def scale(self) -> Floats:
        """The spread by which errors are divided: that of the held-out values of each column, `(d,)`."""
        part = self.results.extrapolation or self.results.interpolation
        if part is None:
            return np.ones(len(self.results.columns))
        spread = np.nanstd(part.value, axis=0)
        return np.asarray(np.where(np.isfinite(spread) & (spread > 0), spread, 1.0))

    def held_out_alike(self, name: str) -> bool:
        """Whether the same values were held out of every run."""
        parts = [getattr(results, name) for group in self.groups for results in group.results]
        first = parts[0]
        if first is None:
            return all(part is None for part in parts)
        return all(
            part is not None
            and np.array_equal(part.of_series, first.of_series)
            and np.array_equal(part.time, first.time)
            and np.array_equal(part.value, first.value, equal_nan=True)
            for part in parts
        )

    def error_differences(self, name: str) -> list[PairedDifference | None]:
        """The mean squared error of each model above that of the best by NLL, paired over series."""
        if not self.held_out_alike(name):
            return [None] * len(self.groups)
        errors = [group.squared_errors(name, self.scale) for group in self.groups]
        known = [each for each in errors if each is not None]
        if len(known) < len(errors):
            return [None] * len(errors)
        whole = np.all([np.isfinite(each) for each in known], axis=0)
        return _paired(known[0][whole], [each[whole] for each in known])


def _paired(best: Floats, values: Sequence[Floats]) -> list[PairedDifference | None]:
    found = [None if each is best else compare_paired(each, best) for each in values]
    found[0] = None
    resolved = [each for each in found if each is not None]
    adjusted = iter(adjust([each.p_value for each in resolved]))
    return [
        None if each is None else PairedDifference(**{**vars(each), "p_adjusted": next(adjusted)})
        for each in found
    ]


def read_series_runs(runs: Sequence[Run]) -> list[SeriesRecord]:
    """Read each run once; raises `DamagedFileError` as `Run` does."""
    return [
        SeriesRecord(**contents(run), results=run.read_series_results() if run.has_results else None)
        for run in distinct(runs)
    ]


def group_series_runs(records: Sequence[SeriesRecord]) -> list[SeriesSection]:
    """The sections of a report: one for each data set and set of test series, in the order of the runs."""
    cuts: dict[tuple[Any, ...], list[SeriesRecord]] = {}
    for record in records:
        if record.results is not None:
            cut = (record.dataset.get("sha256"), record.results.columns, record.results.ids)
            cuts.setdefault(cut, []).append(record)
    return [_section(part) for part in cuts.values()]


def _section(records: Sequence[SeriesRecord]) -> SeriesSection:
    alike: dict[tuple[Any, ...], list[SeriesRecord]] = {}
    for record in records:
        alike.setdefault((record.model, *sorted(record.options.items())), []).append(record)
    names = [key[0] for key in alike]
    groups = []
    for key, own in alike.items():
        label = key[0] if names.count(key[0]) == 1 else f"{key[0]} ({own[0].name})"
        groups.append(SeriesGroup(label, tuple(own)))
    groups.sort(key=lambda group: float(group.nll.mean()))
    return SeriesSection(str(records[0].dataset.get("name", "series")), tuple(groups))
