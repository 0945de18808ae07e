"""The whole configuration of a run: defaults, a TOML file and the command line, in rising order."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from flowbench.data.read_options import ReadOptions
from flowbench.encoding.dequantiser import parse_spacings
from flowbench.errors import ConfigurationError, UnknownNameError
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.options import Options, part_of
from flowbench.registry import MODELS, TOYS, TRANSFORMS
from flowbench.training.plan import TrainingPlan

Values = dict[str, Any]

#: A newcomer gets a good answer within a minute.
DEFAULT_SECONDS = 60.0

#: Options of the plan that end training, whichever comes first.
BUDGETS = ("steps", "seconds")


class DataOptions(ReadOptions):
    """`dataset` is a name or a path; `columns` selects some of a table's; `rows` is a toy's size.

    `given` names columns whose values the density is given: then the density of the others is learnt at each
    value of these, p(others | given), and nothing of their own. They are read beside the `columns`.

    How a table's file is read is that of `ReadOptions`.
    `dequantise` spreads columns of evenly spaced values, such as whole numbers, over the cells that these
    stand for (`flowbench.encoding.dequantiser.Dequantiser`): "auto" those of which most values repeat, "none"
    no columns, "age=1,height=0.1" these, with their spacings. `seed` draws a toy's rows, every data set's
    split and places in cells; runs that share it share their test rows.
    """

    dataset: str
    columns: tuple[str, ...] | None = None
    given: tuple[str, ...] = ()
    rows: PositiveInt | None = None
    dequantise: str = "auto"
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
        if text not in ("auto", "none"):
            parse_spacings(text)
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


class RunConfig(Options):
    """Everything that decides the outcome of a run, apart from the data themselves.

    `background` mixes a Gaussian mixture of the train rows and a standard normal into the flow's density, at
    shares that the validation rows choose (`flowbench.models.background.Background`). `seed` draws initial
    weights, batches and samples. `threads` is torch's number of CPU threads: one is the fastest for small
    networks, above all on a machine that does other work too.
    """

    data: DataOptions
    split: SplitOptions = SplitOptions()
    transforms: tuple[part_of(TRANSFORMS, "standardise"), ...] = ({"name": "standardise"},)  # type: ignore[valid-type]
    flow: part_of(MODELS, "cnf") = {"name": "cnf"}  # type: ignore[valid-type]
    background: bool = False
    plan: TrainingPlan
    evaluation: EvaluationOptions = EvaluationOptions()
    seed: NonNegativeInt = 0
    threads: int = Field(default=1, ge=1, le=256)
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")

    def to_values(self) -> Values:
        """Plain values, without unset ones, from which `RunConfig` makes an equal configuration."""
        return self.model_dump(mode="json", exclude_none=True)


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
    told = given.get("flow") if isinstance(given.get("flow"), str) else _text(given, "flow", "name")
    if model and told and model != told:
        given = _without_model(given)
    layers = [_nest({"data.dataset": dataset, "flow.name": model, **(overrides or {})})]
    layers += map(parse_setting, settings)
    if any(_has_budget(layer.get("plan")) for layer in layers):
        # The file's seconds must not cut short steps that are asked for.
        given = _without_plan(given, *BUDGETS)
    for layer in layers:
        given = _merge(given, layer)
    if isinstance(given.get("flow"), str):
        given["flow"] = {"name": given["flow"]}
    name = _text(given, "data", "dataset")
    if name is None:
        raise ConfigurationError(
            "there is no data set: give its name or path, or a configuration file with `dataset` under [data]"
        )
    chosen = _text(given, "flow", "name") or "cnf"
    seconds = _number(given, "plan", "seconds")
    values = _merge(preset_values(preset, chosen, seconds, toy=name in TOYS.entries), given)
    plan = values["plan"]
    if isinstance(plan, Mapping) and plan.get("phases") and not _has_budget(plan):
        values["plan"] = {**plan, "seconds": DEFAULT_SECONDS}
    return RunConfig(**values)


def _without_model(given: Values) -> Values:
    """A file's values without those of its model: another has phases and a background of its own."""
    return _without_plan({key: value for key, value in given.items() if key != "background"}, "phases")


def _without_plan(given: Values, *options: str) -> Values:
    """A file's values without these options of its plan."""
    if isinstance(given.get("plan"), Mapping):
        plan = {key: value for key, value in given["plan"].items() if key not in options}
        return {**given, "plan": plan}
    return given


def _has_budget(plan: Any) -> bool:
    return isinstance(plan, Mapping) and any(plan.get(key) is not None for key in BUDGETS)


def evaluation_with(config: RunConfig, settings: Sequence[str]) -> EvaluationOptions:
    """The evaluation of `config` with "evaluation.option=value" `settings` on top of it.

    Raises `ConfigurationError` for those of another part, and for anything unknown or impossible.
    """
    if not settings:
        return config.evaluation
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
        values = _merge(values, given)
    return RunConfig(**values).evaluation


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


def read_file(path: Path) -> Values:
    """A TOML configuration file; raises `ConfigurationError` if it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None


def parse_setting(text: str) -> Values:
    """ "flow.field.width=128" as {"flow": {"field": {"width": 128}}}."""
    key, separator, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise ConfigurationError(f"`--set` takes part.option=value, such as flow.layers=16; got `{text}`")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        parsed = value.strip()
        if parsed[:1] in _OPENING:
            raise ConfigurationError(f"`--set {text}`: the value is not valid TOML: {error}") from None
    return _nest({".".join(parts): parsed})


#: What no bare word begins with: a table, a list, and strings.
_OPENING = ("{", "[", '"', "'")


def _nest(flat: Mapping[str, Any]) -> Values:
    """Dotted keys as nested tables; keys whose value is None are left out."""
    nested: Values = {}
    for key, value in flat.items():
        if value is not None:
            *parents, last = key.split(".")
            branch: Values = {last: value}
            for parent in reversed(parents):
                branch = {parent: branch}
            nested = _merge(nested, branch)
    return nested


def _text(values: Values, table: str, key: str) -> str | None:
    """The text at `table.key`; None where there is none, or where something else is in its place."""
    found = _value(values, table, key)
    return found if isinstance(found, str) else None


def _number(values: Values, table: str, key: str) -> float | None:
    """The number at `table.key`; None where there is none, or where something else is in its place."""
    found = _value(values, table, key)
    return found if isinstance(found, int | float) else None


def _value(values: Values, table: str, key: str) -> Any:
    found = values.get(table)
    return found.get(key) if isinstance(found, Mapping) else None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`over` on top of `base`, table by table; a part given by another name replaces the part whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        # A part may be given by its name alone.
        if isinstance(below, str) and isinstance(value, Mapping):
            below = {"name": below}
        if isinstance(value, str) and isinstance(below, Mapping) and "name" in below:
            value = {"name": value}
        if not (isinstance(below, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
        elif "name" in value and "name" in below and value["name"] != below["name"]:
            merged[key] = dict(value)
        else:
            merged[key] = _merge(below, value)
    return merged
