"""Groups of runs that may be compared: by data set and identical test rows, then by model and options."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError
from flowbench.report.labels import label_configurations
from flowbench.report.level_names import categorical_of, level_names
from flowbench.report.records import RunRecord
from flowbench.report.table_cautions import Objection, find_objection, typed
from flowbench.statistics.paired import (
    Estimate,
    Floats,
    PairedDifference,
    adjust,
    compare_paired,
    estimate_mean,
    spread,
)
from flowbench.store import Certificate, Results

Integers = NDArray[np.int64]


def cell_edges(centres: Floats) -> tuple[float, float]:
    """The outer edges of the evenly spaced cells around `centres: (k,)`."""
    half = (centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2
    return float(centres[0] - half), float(centres[-1] + half)


@dataclass(frozen=True, eq=False)
class FittedRun:
    """A run with results; its test rows are in ascending order of their ids.

    `x: (n, d)` data units; `log_prob: (n,)` and `true_log_prob: (n,)` or None, nats, data units;
    `context: (n, c)`, the givens of a conditional model, data units, or None. `weight: (n,)` is how much each
    row counts, or None if all count alike.
    """

    record: RunRecord
    results: Results
    row: Integers
    x: Floats
    log_prob: Floats
    true_log_prob: Floats | None
    context: Floats | None = None
    weight: Floats | None = None

    @cached_property
    def nll(self) -> Estimate:
        """Test NLL with the standard error over rows."""
        return estimate_mean(-self.log_prob, self.weight)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of data set, columns, givens, cells, test rows and weights: equal ones can be paired."""
        digest = hashlib.sha256()
        dataset = self.record.dataset
        lattices = json.dumps(dataset.get("lattices", {}), sort_keys=True)
        for name in (dataset.get("name", ""), dataset.get("sha256", ""), lattices, *self.results.columns):
            digest.update(str(name).encode(errors="backslashreplace") + b"\0")
        digest.update(self.row.tobytes())
        digest.update(self.x.tobytes())
        for given in self.results.given:
            digest.update(b"given " + given.encode(errors="backslashreplace") + b"\0")
        if self.context is not None:
            digest.update(self.context.tobytes())
        for name in categorical_of(dataset):
            digest.update(b"mass of " + name.encode(errors="backslashreplace") + b"\0")
        if self.weight is not None:
            digest.update(b"weights " + (self.weight / self.weight.max()).tobytes())
        return digest.hexdigest()

    @property
    def samples(self) -> Floats:
        """The samples `(m, c + d)`, behind the given numbers that they were drawn for, if there are any."""
        drawn = self.results.samples
        return together(drawn.x, drawn.context, self.results.given, level_names(self.record.dataset))

    @cached_property
    def on_grid(self) -> NDArray[np.bool_] | None:
        """Whether each sample lies on the grid: `(m,)`; None if there is no grid."""
        grid = self.results.grid
        if grid is None:
            return None
        low, high = np.array([cell_edges(grid.x), cell_edges(grid.y)]).T
        samples = self.samples
        return np.asarray(np.all((samples >= low) & (samples <= high), axis=1))

    @property
    def configuration(self) -> tuple[str, str]:
        """The model and its options: equal for two runs that differ only in their seeds."""
        return self.record.model, repr(sorted(self.record.options.items()))


@dataclass(frozen=True, eq=False)
class ModelGroup:
    """Runs of one model that have the same options and different seeds.

    The log-likelihood of each row is first averaged over the runs. So a standard error reflects only the
    choice of test rows. `nll_spread` is the standard deviation of the NLL over the seeds.
    """

    label: str
    runs: tuple[FittedRun, ...]

    @cached_property
    def log_prob(self) -> Floats:
        """Log-likelihood of each test row, averaged over the runs: `(n,)`, nats, data units."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.mean([run.log_prob for run in self.runs], axis=0))

    @cached_property
    def nll(self) -> Estimate:
        """Test NLL averaged over the runs, with the standard error over rows."""
        return estimate_mean(-self.log_prob, self.weight)

    @property
    def weight(self) -> Floats | None:
        """How much each test row counts, `(n,)`; None if all count alike."""
        return self.runs[0].weight

    @cached_property
    def nll_spread(self) -> float | None:
        """Standard deviation of the test NLL over the runs; None for a single run."""
        return spread([run.nll.mean for run in self.runs])

    def nll_above(self, other: "ModelGroup") -> list[float]:
        """Test NLL minus that of `other`, for each seed that both were fitted with."""
        theirs = {run.record.seed: run.nll.mean for run in other.runs}
        return [run.nll.mean - theirs[run.record.seed] for run in self.runs if run.record.seed in theirs]

    @cached_property
    def kl(self) -> Estimate | None:
        """KL(truth || model) in nats, estimated on the test rows; None if the truth is unknown."""
        truth = self.runs[0].true_log_prob
        if truth is None:
            return None
        with np.errstate(invalid="ignore"):
            return estimate_mean(truth - self.log_prob, self.weight)

    @cached_property
    def impossible_rows(self) -> int:
        """Test rows whose log-likelihood is not a finite number in at least one run."""
        return int(np.sum(~np.isfinite(self.log_prob)))

    @cached_property
    def samples_on_grid(self) -> Estimate | None:
        """Share of the samples of all runs that lie on the grid; None without a grid or samples."""
        inside = [run.on_grid for run in self.runs if run.on_grid is not None]
        together = np.concatenate(inside).astype(np.float64) if inside else np.empty(0)
        return estimate_mean(together) if together.size else None

    @cached_property
    def failed_certificates(self) -> dict[str, str]:
        """Certificates that failed in a run, by name, with the text of the first such run."""
        return self._certificates_that(lambda each: each.failed)

    @cached_property
    def unsettled_certificates(self) -> dict[str, str]:
        """Certificates that are undecided in a run, by name, with the text of the first such run."""
        return self._certificates_that(lambda each: not each.settled)

    def certificate(self, name: str) -> Certificate | None:
        """The worst of the runs' certificates of this name: failed, undecided, or closest to its bound."""
        found = [each for run in self.runs if (each := run.results.certificates.get(name))]
        return max(
            found,
            key=lambda each: (each.failed, not each.settled, each.value / (each.bound or math.inf)),
            default=None,
        )

    def mean_metric(self, name: str) -> float | None:
        """The mean of a metric over the runs that have it."""
        values = self._values(name)
        return math.fsum(values) / len(values) if values else None

    def max_metric(self, name: str) -> float | None:
        """The largest value of a metric over the runs that have it."""
        return max(self._values(name), default=None)

    def _certificates_that(self, hold: Callable[[Certificate], bool]) -> dict[str, str]:
        """Certificates for which `hold` is true in a run, by name, with the text of the first such run."""
        found: dict[str, str] = {}
        for run in self.runs:
            for name, each in run.results.certificates.items():
                if hold(each):
                    found.setdefault(name, each.text)
        return found

    def _values(self, name: str) -> list[float]:
        return [value for run in self.runs if (value := run.record.metric(name)) is not None]


@dataclass(frozen=True, eq=False)
class Section:
    """Models scored on the same rows of one data set, best first.

    `x: (n, d)` are these rows, in data units. A run in `superseded` is left out, because there is a newer
    one with the same model, options and seed. `given` are the columns that conditional models are given, and
    `context: (n, c)` their values, data units.
    """

    columns: tuple[str, ...]
    x: Floats
    models: tuple[ModelGroup, ...]
    superseded: tuple[RunRecord, ...]
    given: tuple[str, ...] = ()
    context: Floats | None = None

    @property
    def whole_names(self) -> tuple[str, ...]:
        """The names of all columns of numbers, the given ones first."""
        return (*(name for name in self.given if name not in self.levels), *self.columns)

    @property
    def whole_rows(self) -> Floats:
        """The test rows `(n, c + d)` without missing cells, all columns of numbers, the given ones first."""
        rows = together(self.x, self.context, self.given, self.levels)
        return rows[~np.isnan(rows).any(1)]

    @cached_property
    def levels(self) -> dict[str, dict[float, str]]:
        """The names of the levels of categorical given columns, by column and value."""
        return level_names(self.record.dataset)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Those of the given columns whose probability mass the models have."""
        return tuple(name for name in categorical_of(self.record.dataset) if name in self.given)

    def value_text(self, given: str, value: float) -> str:
        """A value of a given column: the name of its level, if it has levels."""
        return self.levels.get(given, {}).get(value, f"{value:.4g}")

    @property
    def best(self) -> ModelGroup:
        """The model with the lowest test NLL."""
        return self.models[0]

    @property
    def record(self) -> RunRecord:
        """The run from which the description of the data set is taken."""
        return self.best.runs[0].record

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.record.dataset.get("name", "unnamed data"))

    @property
    def weights(self) -> str:
        """The name of the column that weights the rows; empty if all count alike."""
        return str(self.record.options.get("data.weights", "")) if self.best.weight is not None else ""

    @property
    def sha256(self) -> str:
        """The sha256 of the data set; empty if it is unknown."""
        return str(self.record.dataset.get("sha256", ""))

    @cached_property
    def entropy(self) -> float | None:
        """Entropy of the true density in nats, below which no expected NLL lies; None if it is unknown."""
        return next(
            (value for each in self.models if (value := each.mean_metric("entropy")) is not None), None
        )

    @property
    def pitfalls(self) -> object:
        """What is wrong with the table, from a run that looked for atoms: older runs did not."""
        known = [run.record.info.get("pitfalls") for model in self.models for run in model.runs]
        return next((each for each in known if "atoms" in typed(dict, each)), known[0])

    @cached_property
    def objection(self) -> Objection | None:
        """The reason for which likelihoods do not rank models on this table; None if they do."""
        return find_objection(self.pitfalls, self.record.dataset, len(self.x))

    @cached_property
    def differences(self) -> tuple[PairedDifference | None, ...]:
        """For each model its NLL minus that of the best, paired over rows; None for the best itself."""
        found = {pair: self._compare(*pair) for pair in combinations(range(len(self.models)), 2)}
        known = {pair: each for pair, each in found.items() if each is not None}
        adjusted = dict(zip(known, adjust([each.p_value for each in known.values()]), strict=True))
        differences: list[PairedDifference | None] = [None]
        for number, model in enumerate(self.models[1:], start=1):
            pair = (0, number)
            seeds = spread(model.nll_above(self.best))
            each = known.get(pair)
            differences.append(each and replace(each, p_adjusted=adjusted[pair], seed_spread=seeds))
        return tuple(differences)

    def _compare(self, first: int, second: int) -> PairedDifference | None:
        """How much worse the `second` model is than the `first`, with a bootstrap if that is the best one."""
        worse, better = -self.models[second].log_prob, -self.models[first].log_prob
        return compare_paired(worse, better, resample=first == 0, weights=self.best.weight)


def group_runs(records: Iterable[RunRecord]) -> tuple[Section, ...]:
    """Group the records that have results; sections come in the order in which their first runs do.

    Raises `DataError` if a run holds no scored rows.
    """
    groups: dict[str, list[FittedRun]] = defaultdict(list)
    for record in records:
        if record.results is not None:
            run = _fitted(record, record.results)
            groups[run.fingerprint].append(run)
    return tuple(_section(group) for group in groups.values())


def _fitted(record: RunRecord, results: Results) -> FittedRun:
    scored = results.scored
    order = np.argsort(scored.row, kind="stable")
    truth = None if scored.true_log_prob is None else scored.true_log_prob[order]
    context = None if scored.context is None else scored.context[order]
    weight = None if scored.weight is None else scored.weight[order]
    if weight is not None and not (np.isfinite(weight) & (weight > 0)).all():
        raise DataError(f"the run `{record.name}` has test rows whose weights are not positive; fit it anew")
    return FittedRun(
        record, results, scored.row[order], scored.x[order], scored.log_prob[order], truth, context, weight
    )


def together(x: Floats, context: Floats | None, given: Sequence[str], levelled: Collection[str]) -> Floats:
    """Rows `(n, c + d)`: `x: (n, d)` behind its `context: (n, c)` of `given` columns but those `levelled`."""
    if context is None:
        return x
    return np.hstack([context[:, [i for i, name in enumerate(given) if name not in levelled]], x])


def _section(runs: Sequence[FittedRun]) -> Section:
    kept = _newest_per_seed(runs)
    by_options: dict[tuple[str, str], list[FittedRun]] = defaultdict(list)
    for run in kept:
        by_options[run.configuration].append(run)
    labels = label_configurations([group[0].record for group in by_options.values()])
    models = [
        ModelGroup(label, tuple(sorted(group, key=_seed_order)))
        for label, group in zip(labels, by_options.values(), strict=True)
    ]
    models.sort(key=lambda model: (not model.nll.is_finite, model.nll.mean if model.nll.is_finite else 0.0))
    superseded = tuple(run.record for run in runs if run not in kept)
    first = runs[0]
    return Section(
        first.results.columns, first.x, tuple(models), superseded, first.results.given, first.context
    )


def _newest_per_seed(runs: Sequence[FittedRun]) -> list[FittedRun]:
    # A repeat with the same seed is no new draw. Counted as one, it would make the spread too small.
    newest: dict[tuple[tuple[str, str], int | None], FittedRun] = {}
    for run in runs:
        key = (run.configuration, run.record.seed)
        if key not in newest or run.record.text("started") > newest[key].record.text("started"):
            newest[key] = run
    return list(newest.values())


def _seed_order(run: FittedRun) -> tuple[int, str]:
    return (-1 if run.record.seed is None else run.record.seed, run.record.name)
