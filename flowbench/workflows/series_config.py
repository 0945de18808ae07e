"""The configuration of a run on irregular time series."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from flowbench.data.read_options import ReadOptions
from flowbench.data.series_reading import SeriesColumns
from flowbench.errors import ConfigurationError
from flowbench.evaluation.series_options import SeriesEvaluationOptions
from flowbench.options import part_of
from flowbench.registry import MODELS, SERIES_MODELS, SERIES_TOYS, TRANSFORMS
from flowbench.workflows.config import DEFAULT_SECONDS, Configuration
from flowbench.workflows.config_values import (
    BUDGETS,
    Values,
    has_budget,
    merge,
    nest,
    number_at,
    parse_setting,
    read_file,
    text_at,
    without_plan,
)

#: The model of series that is fitted unless another is named.
DEFAULT_MODEL = "latent-ode"


class SeriesDataOptions(ReadOptions):
    """`dataset` is a toy's name or the name or path of a long table, one row for each observation.

    `series` names the column that tells the series apart, and `time` that of the times; a toy has neither.
    `columns` hold the values, by default all others. `repeated` says what is done with rows of one series at
    one time. `rows` is how many series of a toy are drawn. `seed` draws a toy's series and the split; runs
    that share it share their test series. How a file is read is that of `ReadOptions`.
    """

    dataset: str
    series: str | None = None
    time: str | None = None
    columns: tuple[str, ...] | None = None
    repeated: Literal["average", "refuse"] = "average"
    rows: PositiveInt | None = None
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.series is None) != (self.time is None):
            there, other = ("series", "time") if self.series else ("time", "series")
            raise ValueError(f"`{there}` is given without `{other}`; series need both columns")
        return self

    @property
    def places(self) -> SeriesColumns | None:
        """The columns of series and times; None for a toy."""
        if self.series is None or self.time is None:
            return None
        return SeriesColumns(self.series, self.time)


class SeriesConfig(Configuration):
    """Everything that decides the outcome of a run on series, apart from the data themselves.

    Each column of values gets the `transforms`.
    """

    data: SeriesDataOptions
    transforms: tuple[part_of(TRANSFORMS, "standardise"), ...] = ({"name": "standardise"},)  # type: ignore[valid-type]
    model: part_of(SERIES_MODELS, DEFAULT_MODEL) = {"name": DEFAULT_MODEL}  # type: ignore[valid-type]
    evaluation: SeriesEvaluationOptions = SeriesEvaluationOptions()

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return str(self.model.name)


def resolve_series(
    dataset: str | None = None,
    model: str | None = None,
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> SeriesConfig:
    """A configuration: the defaults, then `file`, then the arguments and `overrides`, then `settings`.

    As `flowbench.workflows.config.resolve`, for runs on series. Raises `ConfigurationError` for anything
    unknown or impossible, naming it.
    """
    given = read_file(file) if file else {}
    if model and text_at(given, "model", "name") not in (None, model):
        given = without_plan({key: value for key, value in given.items() if key != "model"}, "phases")
    layers = [nest({"data.dataset": dataset, "model.name": model, **(overrides or {})})]
    layers += map(parse_setting, settings)
    if any(has_budget(layer.get("plan")) for layer in layers):
        given = without_plan(given, *BUDGETS)
    for layer in layers:
        given = merge(given, layer)
    if isinstance(given.get("model"), str):
        given["model"] = {"name": given["model"]}
    if text_at(given, "data", "dataset") is None:
        raise ConfigurationError(
            "there is no data set: give its name or path, or a configuration file with `dataset` under [data]"
        )
    chosen = text_at(given, "model", "name") or DEFAULT_MODEL
    if chosen in MODELS.entries:
        raise ConfigurationError(
            f"`{chosen}` models rows, not series; choose one of {', '.join(SERIES_MODELS.names())}"
        )
    values = merge(_defaults(chosen, number_at(given, "plan", "seconds")), given)
    plan = values["plan"]
    if isinstance(plan, Mapping) and plan.get("phases") and not has_budget(plan):
        values["plan"] = {**plan, "seconds": DEFAULT_SECONDS}
    return SeriesConfig(**values)


def _defaults(name: str, seconds: float | None) -> Values:
    model = SERIES_MODELS.get(name)
    return {
        "model": {"name": name, **model.default_options("series", seconds)},
        "plan": model.default_plan("series", seconds),
    }


def is_of_series(
    dataset: str | None, model: str | None, overrides: Mapping[str, Any], file: Path | None = None
) -> bool:
    """Whether what a user asks for is a run on series, and not on the rows of a table.

    It is if a column of series or times is named, if the data set is a toy of series, or if the file is the
    configuration of such a run. Raises `ConfigurationError` for a model of series without a column of series.
    """
    given = read_file(file) if file else {}
    told = [overrides.get("data.series"), overrides.get("data.time")]
    told += [text_at(given, "data", "series"), text_at(given, "data", "time")]
    name = dataset or text_at(given, "data", "dataset")
    if any(told) or name in SERIES_TOYS.entries:
        return True
    if model in SERIES_MODELS.entries:
        raise ConfigurationError(
            f"`{model}` models series; say which column of the table names the series and which holds the "
            f"times, with `--series` and `--time`, or take a toy: {', '.join(SERIES_TOYS.names())}"
        )
    return False
