"""What a report reads from a run folder.

Another program or version may have written `run.json` and `config.toml`. An entry that is missing or of the
wrong type therefore counts as unknown, and every text is shown escaped.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from flowbench.store import Results, Run

#: Options that do not decide what was fitted: the seed, and the name of the data set.
NOT_OPTIONS = ("seed", "data.dataset")
#: What is wrong with a finished run that has no results.
LOST = "results.h5 is missing"


@dataclass(frozen=True, eq=False)
class StoredRecord:
    """One run of any kind: the contents of its folder, but for its results."""

    name: str
    info: Mapping[str, Any]
    options: Mapping[str, str]
    history: tuple[Mapping[str, Any], ...]

    @property
    def model(self) -> str:
        """The model's name in the registry."""
        return self.text("model") or "unknown model"

    @property
    def seed(self) -> int | None:
        """The seed of weights, batches and samples."""
        seed = self.info.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The description of the table: name, source, sha256, licence, description, rows, columns."""
        dataset = self.info.get("dataset")
        return dataset if isinstance(dataset, Mapping) else {}

    def text(self, key: str) -> str:
        """An entry of the run's information as text; empty where it is unknown."""
        value = self.info.get(key)
        return "" if value is None else str(value)

    def series(self, key: str, objective: str | None = None) -> list[tuple[float, float]]:
        """Pairs (training wall seconds, value of `key`) from the training log, finite ones only.

        With `objective`, only those of its phases. The record of step 0 is left out, unless there is no
        other, as for a fit in closed form.
        """
        trained = [each for each in self.history if each.get("step") != 0] or self.history
        records = (each for each in trained if objective is None or each.get("objective") == objective)
        pairs = ((record.get("wall_seconds"), record.get(key)) for record in records)
        return [(float(x), float(y)) for x, y in pairs if _is_finite(x) and _is_finite(y)]


@dataclass(frozen=True, eq=False)
class RunRecord(StoredRecord):
    """One run on the rows of a table; `results` is None if there are none."""

    results: Results | None

    @property
    def has_lost_results(self) -> bool:
        """Whether the run is finished and its results are gone."""
        return self.results is None and self.text("status") == "finished"

    def metric(self, name: str) -> float | None:
        """A metric of the results; None if it is absent or not finite."""
        metric = self.results.metrics.get(name) if self.results else None
        return metric.value if metric and math.isfinite(metric.value) else None


def read_runs(runs: Iterable[Run]) -> list[RunRecord]:
    """Read each run once, in the order given; raises `DamagedFileError` as `Run` does."""
    return [
        RunRecord(**contents(run), results=run.read_results() if run.has_results else None)
        for run in distinct(runs)
    ]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in the order given."""
    return list({run.path.resolve(): run for run in runs}.values())


def contents(run: Run) -> dict[str, Any]:
    """The fields of a `StoredRecord`."""
    return {
        "name": run.name,
        "info": run.info | _status(run),
        "options": _flatten(run.config),
        "history": tuple(run.metrics()),
    }


def _status(run: Run) -> dict[str, str]:
    """The status of a run, if it has one. A killed run's is "killed", where its run.json says "running"."""
    return {"status": status} if (status := run.status) else {}


def _flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested options as {"plan.phases.0.objective.name": "likelihood"}, without `NOT_OPTIONS`."""
    flat: dict[str, str] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, below in value.items():
                visit(below, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            for index, below in enumerate(value):
                visit(below, f"{path}.{index}")
        elif path not in NOT_OPTIONS:
            flat[path] = value if isinstance(value, str) else json.dumps(value, default=str)

    visit(values, "")
    return flat


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
