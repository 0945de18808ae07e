"""The base class of all options: frozen, complete, and strict about their values."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError

from flowbench.errors import ConfigurationError
from flowbench.registry import Registry


class Options(BaseModel):
    """Frozen options of one part; an unknown or impossible value fails at construction.

    Raises `ConfigurationError`, which names each invalid option, its value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _OptionsError(error, type(self)) from None


class PartOptions(Options):
    """Options of an interchangeable part; `name` is the part's name in its registry table."""

    name: str


def part_of(registry: Registry, default: str) -> Any:
    """A field type for the options of an interchangeable part: a mapping with a `name` from `registry`.

    The mapping {"name": "time-mlp", "width": 128} becomes `TimeMLP.Options(width=128)`. Without a name it
    describes the part called `default`. Options objects pass unchanged.
    """

    def parse(value: Any) -> Any:
        if isinstance(value, PartOptions):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"give the {registry.kind} by its name or by a table of options; got {value!r}")
        name = value.get("name", default)
        if not isinstance(name, str):
            raise ValueError(f"the name of a part is text; got {name!r}")
        try:
            options: type[PartOptions] = registry.get(name).Options
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return options(**{**value, "name": name})

    return Annotated[SerializeAsAny[PartOptions], BeforeValidator(parse)]


class _OptionsError(ConfigurationError):
    """The error of invalid options; it keeps the details, so that enclosing options can name them in full."""

    def __init__(self, error: ValidationError, options: type[BaseModel]) -> None:
        super().__init__(_describe_all(error, options, ""))
        self.error = error
        self.options = options


def _describe_all(error: ValidationError, options: type[BaseModel], where: str) -> str:
    """One line with the dotted name of each invalid option, the complaint and the value."""
    return "; ".join(_describe(detail, options, where) for detail in error.errors())


def _describe(detail: Any, options: type[BaseModel], where: str) -> str:
    path = ".".join(str(part) for part in ((where,) if where else ()) + tuple(detail["loc"]))
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _OptionsError):
        return _describe_all(cause.error, cause.options, path)
    if detail["type"] == "extra_forbidden":
        allowed = ", ".join(f"`{field}`" for field in sorted(options.model_fields)) or "none"
        return f"unknown option `{path}`; allowed here: {allowed}"
    complaint = detail["msg"].removeprefix("Value error, ")
    complaint = complaint.replace("Input should", "must", 1) if complaint.startswith("Input") else complaint
    subject = f"`{path}`: " if path else ""
    given = "" if detail["type"] in {"value_error", "missing"} else f"; got {detail['input']!r}"
    return f"{subject}{complaint}{given}"
