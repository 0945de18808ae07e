"""The whole configuration of a run: defaults, a TOML file and the command line, in rising order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from flowbench.data.read_options import ReadOptions
from flowbench.encoding.atoms import parse_atoms
from flowbench.encoding.circle import parse_periods
from flowbench.encoding.dequantiser import parse_spacings
from flowbench.encoding.support_map import parse_supports
from flowbench.errors import ConfigurationError, UnknownNameError
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.options import Options, part_of
from flowbench.registry import MODELS, TOYS, TRANSFORMS
from flowbench.training.plan import TrainingPlan
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

#: A newcomer gets a good answer within a minute.
DEFAULT_SECONDS = 60.0


class DataOptions(ReadOptions):
    """`dataset` is a name or a path; `columns` selects some of a table's.

    `rows` is how many rows to draw: of a toy's density, or of a table's rows, at random.

    `given` names columns whose values the density is given: then the density of the others is learnt at each
    value of these, p(others | given), and nothing of their own. They are read beside the `columns`.

    How a table's file is read is that of `ReadOptions`.
    `dequantise` spreads columns of evenly spaced values, such as whole numbers, over the cells that these
    stand for (`flowbench.encoding.dequantiser.Dequantiser`): "auto" those of which most values repeat, "none"
    no columns, "age=1,height=0.1" these, with their spacings. `support` says which values a column can have
    (`flowbench.encoding.support_map.SupportMap`): "auto" those between ends that the values of a table come
    close to, such as 0 (`flowbench.data.column_inference.infer_support`), "none" all numbers, and
    "mass=0:,share=0:1" those between these ends. Ends are no values, but those of a dequantised column are,
    unless they stand in parentheses, as in "mass=(0:)".
    `atoms` are values with a probability of their own (`flowbench.encoding.atoms.Atoms`): "auto" those that
    many more rows hold than others (`flowbench.data.repeats.find_atoms`), "none" no values, "rain=0,price=0"
    these. Each of these three may begin with "auto": "auto,rain=0,price=none" has those of `rain`, none of
    `price`, and finds those of other columns. `periodic` are columns that begin anew where they end
    (`flowbench.encoding.circle.Circle`): "auto" those that unit or name and values show
    (`flowbench.data.periods.infer_period`), "none" no columns, and "hour=24,phase=-180:180" these, with their
    periods.
    `seed` draws the rows, every data set's split and places in cells; runs that share it share their test
    rows.
    """

    dataset: str
    columns: tuple[str, ...] | None = None
    given: tuple[str, ...] = ()
    rows: PositiveInt | None = None
    dequantise: str = "auto"
    support: str = "auto"
    atoms: str = "auto"
    periodic: str = "auto"
    seed: NonNegativeInt = 0

    @field_validator("given")
    @classmethod
    def _names_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"names one column twice; got {', '.join(names)}")
        return names

    @field_validator("dequantise")
    @classmethod
    def _says_how(cls, text: str) -> str:
        parse_spacings(text)
        return text

    @field_validator("atoms")
    @classmethod
    def _says_which(cls, text: str) -> str:
        parse_atoms(text)
        return text

    @field_validator("periodic")
    @classmethod
    def _says_how_long(cls, text: str) -> str:
        if text not in ("auto", "none"):
            parse_periods(text)
        return text

    @field_validator("support")
    @classmethod
    def _says_where(cls, text: str) -> str:
        parse_supports(text)
        return text


class SplitOptions(Options):
    """Fractions of the rows that train, choose and test the model; they add up to 1."""

    train: float = Field(default=0.8, gt=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            total = self.train + self.validation + self.test
            raise ValueError(f"`train`, `validation` and `test` must add up to 1; they make {total:g}")
        return self


class Configuration(Options):
    """What the configurations of all kinds of runs have: the split, the budget and the machine.

    `seed` draws initial weights, batches and samples. `threads` is torch's number of CPU threads: one is the
    fastest for small networks, above all on a machine that does other work too.
    """

    split: SplitOptions = SplitOptions()
    plan: TrainingPlan
    seed: NonNegativeInt = 0
    threads: int = Field(default=1, ge=1, le=256)
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")

    def to_values(self) -> Values:
        """Plain values, without unset ones, from which the class makes an equal configuration."""
        return self.model_dump(mode="json", exclude_none=True)


class RunConfig(Configuration):
    """Everything that decides the outcome of a run on a table, apart from the data themselves.

    `background` mixes a Gaussian mixture of the train rows and a standard normal into the flow's density, at
    shares that the validation rows choose (`flowbench.models.background.Background`).
    """

    data: DataOptions
    transforms: tuple[part_of(TRANSFORMS, "standardise"), ...] = ({"name": "standardise"},)  # type: ignore[valid-type]
    flow: part_of(MODELS, "cnf") = {"name": "cnf"}  # type: ignore[valid-type]
    background: bool = False
    evaluation: EvaluationOptions = EvaluationOptions()

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return str(self.flow.name)


def resolve(
    dataset: str | None = None,
    model: str | None = None,
    *,
    preset: str = "default",
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> RunConfig:
    """A configuration: the preset, then `file`, then `dataset`, `model` and `overrides`, then `settings`.

    A `file` of another model's run gives what does not belong to the model: neither phases nor background.
    Its budget gives way whole to one of `overrides` or `settings`, in steps or in seconds. `settings` are
    "part.option=value" strings with TOML values (bare words are strings). A `file` may name the data set and
    the model in place of the arguments. Raises `ConfigurationError` for anything unknown or impossible,
    naming it.
    """
    given = read_file(file) if file else {}
    told = given.get("flow") if isinstance(given.get("flow"), str) else text_at(given, "flow", "name")
    if model and told and model != told:
        given = _without_model(given)
    layers = [nest({"data.dataset": dataset, "flow.name": model, **(overrides or {})})]
    layers += map(parse_setting, settings)
    if any(has_budget(layer.get("plan")) for layer in layers):
        # The file's seconds must not cut short steps that are asked for.
        given = without_plan(given, *BUDGETS)
    for layer in layers:
        given = merge(given, layer)
    if isinstance(given.get("flow"), str):
        given["flow"] = {"name": given["flow"]}
    name = text_at(given, "data", "dataset")
    if name is None:
        raise ConfigurationError(
            "there is no data set: give its name or path, or a configuration file with `dataset` under [data]"
        )
    chosen = text_at(given, "flow", "name") or "cnf"
    seconds = number_at(given, "plan", "seconds")
    values = merge(preset_values(preset, chosen, seconds, toy=name in TOYS.entries), given)
    plan = values["plan"]
    if isinstance(plan, Mapping) and plan.get("phases") and not has_budget(plan):
        values["plan"] = {**plan, "seconds": DEFAULT_SECONDS}
    return RunConfig(**values)


def _without_model(given: Values) -> Values:
    """A file's values without those of its model: another has phases and a background of its own."""
    return without_plan({key: value for key, value in given.items() if key != "background"}, "phases")


class Evaluated(Protocol):
    """A configuration with options of its evaluation, by which it can be made anew from plain values."""

    def to_values(self) -> Values: ...

    @property
    def evaluation(self) -> Any: ...


EvaluatedT = TypeVar("EvaluatedT", bound=Evaluated)


def with_evaluation(config: EvaluatedT, settings: Sequence[str]) -> EvaluatedT:
    """The `config` with "evaluation.option=value" `settings` on top of its evaluation.

    Raises `ConfigurationError` for those of another part, and for anything unknown or impossible.
    """
    if not settings:
        return config
    values = config.to_values()
    for setting in settings:
        given = parse_setting(setting)
        if set(given) != {"evaluation"}:
            raise ConfigurationError(
                "of a fitted run, `--set` takes the evaluation's options alone, such as "
                f"evaluation.integrator.rtol=1e-7; got `{setting}`"
            )
        part = given["evaluation"].get("integrator") if isinstance(given["evaluation"], Mapping) else None
        if isinstance(part, Mapping) and "name" in part and len(part) > 1:
            # A solver that is given whole, with its name, keeps nothing of the run's.
            values["evaluation"] = {**values["evaluation"], "integrator": {}}
        values = merge(values, given)
    return type(config)(**values)


def preset_values(preset: str, model: str, seconds: float | None, *, toy: bool) -> Values:
    """The configuration that `preset` stands for, for a model, a budget and a kind of data."""
    flow = MODELS.get(model)
    kind = "toy" if toy else "table"
    if preset == "default":
        # Columns of real tables have heavy tails and sharp edges, which every model is better off without;
        # the toys' columns are smooth, and bending them bends the toys' shapes.
        return {
            "transforms": ["standardise" if toy else "gaussianise"],
            "flow": {"name": model, **flow.default_options(kind, seconds)},
            "background": flow.default_background,
            "plan": flow.default_plan(kind, seconds),
        }
    if preset not in flow.presets:
        names = ", ".join(("default", *flow.presets))
        raise UnknownNameError(f"unknown preset `{preset}` for model `{model}`; available: {names}")
    values: Values = flow.presets[preset](kind)
    return values
