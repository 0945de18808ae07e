"""Options that commands share: one object for each group, and the same options in every command with it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from flowbench.cli.app import app
from flowbench.cli.option_groups import ONLY_FOR_FITS, FitOptions, ReadingOptions, with_options
from flowbench.data import ReadOptions

READING = {field.name for field in fields(ReadingOptions)}


def options_of(command: str) -> dict[str, tuple[list[str], object]]:
    """By name, how each option of a command is written, and its default."""
    found = get_command(app).commands[command]  # type: ignore[attr-defined]
    return {each.name: (each.opts, each.default) for each in found.params}


def test_every_reading_option_is_one_of_the_reader() -> None:
    of_schema_files = {"numeric", "leave_out", "levels"}
    assert set(ReadOptions.model_fields) == READING | of_schema_files


def test_fit_and_compare_take_the_same_options() -> None:
    shared = {field.name for field in fields(FitOptions)} | READING
    shared -= {"reading", "seed", "name", "resume"}
    fit, compare = options_of("fit"), options_of("compare")
    assert {name: fit[name] for name in shared} == {name: compare[name] for name in shared}
    assert set(fit) - shared >= {"seed", "name", "resume"}
    assert not {"seed", "resume"} & set(compare)


def test_score_has_no_options_that_split_or_drop_rows() -> None:
    assert set(options_of("score")) & READING == READING - {*ONLY_FOR_FITS, "keep"}


@dataclass(frozen=True)
class Inner:
    colour: str = "red"
    size: int = 1


@dataclass(frozen=True)
class Outer:
    first: Annotated[list[str] | None, typer.Option("--first-one")] = None
    inner: Inner = Inner()
    last: bool = False


@pytest.fixture
def call() -> Callable[..., dict[str, object]]:
    """Runs a command with a group and an option of its own, and gives what it was called with."""
    application = typer.Typer()
    called: dict[str, object] = {}

    @application.command()
    @with_options(without=("size",))
    def command(word: str, *, group: Outer, size: int = 7) -> None:
        called.update(word=word, group=group, size=size)

    def run(*arguments: str) -> dict[str, object]:
        application(list(arguments), standalone_mode=False)
        return called

    return run


def test_a_command_gets_its_groups_whole(call: Callable[..., dict[str, object]]) -> None:
    assert call("hello") == {"word": "hello", "group": Outer(), "size": 7}
    given = ["hello", "--first-one", "a", "--first-one", "b", "--colour", "blue", "--last", "--size", "9"]
    # The command's own `--size` is not that of the group.
    assert call(*given) == {"word": "hello", "group": Outer(["a", "b"], Inner("blue"), True), "size": 9}
