"""Schema files: round trips, what they override, and what they must not say."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data import (
    ColumnSettings,
    Support,
    TableSchema,
    check_table,
    schema_to_toml,
    settings_from_values,
)
from flowbench.data.schema import KINDS, REAL
from flowbench.data.schema_document import settings_to_toml
from flowbench.errors import ConfigurationError, DataError, FlowbenchError, UnknownColumnError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"

finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
bounded = st.tuples(finite, finite).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: Support(*ends))
texts = st.text(st.characters(exclude_categories=["Cs"]))
column_settings = st.builds(
    ColumnSettings,
    kind=st.none() | st.sampled_from(KINDS),
    support=st.none() | st.sampled_from([REAL, Support(0.0)]) | bounded,
    atoms=st.none() | st.lists(finite, unique=True, max_size=3).map(tuple),
    spacing=st.none() | st.just("none") | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    levels=st.none() | st.lists(texts, unique=True, min_size=1) | st.lists(finite, unique=True, min_size=1),
)


@given(st.dictionaries(texts, column_settings), texts)
def test_settings_come_back_from_toml(found: dict[str, ColumnSettings], evidence: str) -> None:
    text = settings_to_toml(found, dict.fromkeys(found, (evidence, evidence)))
    back = settings_from_values(tomllib.loads(text), "here")
    assert back == found
    assert list(back) == list(found)


@pytest.mark.parametrize("name", ["penguins", "faithful", "cd4", "pbcseq", "iris", "moons"])
def test_a_schema_that_is_not_edited_changes_nothing(name: str) -> None:
    found = check_table(name, folder=DATASETS)
    settings = settings_from_values(tomllib.loads(schema_to_toml(found)), "here")
    assert check_table(name, folder=DATASETS, settings=settings) == found


def check(toml: str, folder: Path, columns: list[str] | None = None) -> TableSchema:
    """The schema of a small table under what the `toml` says."""
    numbers = np.random.default_rng(0).standard_normal(20)
    lines = [
        f"{i % 3},{'abc'[i % 3]},{number:.4f},{abs(number) * (i != 1):.4f},2024-01-{i + 1:02d}"
        for i, number in enumerate(numbers)
    ]
    (folder / "t.csv").write_text("\n".join(["code,word,x,amount,day", *lines]) + "\n")
    settings = settings_from_values(tomllib.loads(toml), "s.toml")
    return check_table(str(folder / "t.csv"), columns=columns, settings=settings, where="s.toml")


def test_a_file_overrides_what_is_inferred_and_that_is_said(tmp_path: Path) -> None:
    found = check(
        """
        [columns.code]
        kind = "categorical"
        levels = [2, 1, 0, 3]
        [columns.word]
        kind = "ordinal"
        levels = ["c", "a", "b"]
        [columns.x]
        support = [-10, 10]
        [columns.amount]
        support = "positive"
        atoms = [0]
        """,
        tmp_path,
    )
    code, word, x, amount = (found.column(name) for name in ("code", "word", "x", "amount"))
    assert (code.kind, [each.value for each in code.levels]) == ("categorical", [2, 1, 0, 3])
    assert [each.count for each in code.levels] == [6, 7, 7, 0]
    assert (word.kind, [each.value for each in word.levels]) == ("ordinal", ["c", "a", "b"])
    assert (x.kind, x.support) == ("continuous", Support(-10, 10))
    assert amount.support.name == "positive"
    (atom,) = amount.atoms
    assert (atom.value, 0 < atom.share < 1) == (0.0, True)
    said = "\n".join(found.notes)
    assert "s.toml: column `code`: kind is categorical, where the values suggest ordinal" in said
    assert "s.toml: column `x`: support is (-10, 10), where the values suggest real" in said
    assert "s.toml: column `amount`: atoms are 0, where the values suggest none" in said
    assert all(found.column(name).overridden for name in ("code", "word", "x", "amount"))
    assert not found.column("day").overridden


def test_what_is_not_said_follows_from_the_atoms_that_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rain = np.where(rng.random(300) < 0.4, 0.0, rng.lognormal(size=300))
    path = write(tmp_path, {"rain": rain, "x": rng.standard_normal(300)})
    assert check_table(path).column("rain").support.name == "positive"
    settings = settings_from_values({"columns": {"rain": {"atoms": []}}}, "s.toml")
    found = check_table(path, settings=settings).column("rain")
    # A zero that is no atom is a value, so that 0 is no end.
    assert (found.atoms, found.support) == ((), REAL)
    assert found.overridden == ("atoms are none, where the values suggest 0",)


def test_settings_without_use_are_passed_over_in_words(tmp_path: Path) -> None:
    found = check('[columns.code]\nkind = "continuous"\nlevels = [0, 1, 2]', tmp_path).column("code")
    assert found.kind == "continuous" and not found.levels
    assert "`levels` of s.toml have no use here" in found.because
    left = check("[columns.code]\n[columns.x]\n", tmp_path, columns=["x"])
    assert "entries of columns that `--columns` leaves out are passed over" in left.notes[-1]


MISTAKES: list[tuple[str, type[FlowbenchError], str]] = [
    ("[columns.y]", UnknownColumnError, "s.toml: unknown column `y`"),
    ("[column.x]", ConfigurationError, "s.toml: unknown key `column`"),
    ("schema_version = 2", ConfigurationError, "`schema_version` is 2"),
    ("columns = 1", ConfigurationError, "`columns` takes a table"),
    ("[columns]\nx = 1", ConfigurationError, "column `x` takes a table"),
    ("[columns.x]\nkinds = 'count'", ConfigurationError, "column `x`: unknown option `kinds`"),
    (
        "[columns.x]\nkind = 'contineous'",
        ConfigurationError,
        "kind `contineous`; did you mean",
    ),
    ("[columns.x]\nkind = [1]", ConfigurationError, "column `x`: `kind`: unknown kind"),
    ("[columns.x]\nsupport = 'negative'", ConfigurationError, "`support`: takes `real`"),
    ("[columns.x]\nsupport = [1, 0]", ConfigurationError, "`support`: takes `real`"),
    ("[columns.x]\nsupport = [0, inf]", ConfigurationError, "`support`: takes `real`"),
    ("[columns.x]\natoms = ['a']", ConfigurationError, "`atoms`: takes different numbers"),
    ("[columns.x]\natoms = 0", ConfigurationError, "`atoms`: takes different numbers"),
    ("[columns.x]\nspacing = 0", ConfigurationError, "`spacing`: takes a positive number"),
    ("[columns.word]\nlevels = ['a', 1]", ConfigurationError, "`levels`: takes texts alone or"),
    ("[columns.word]\nlevels = ['a', 'a']", ConfigurationError, "names a level twice"),
    ("[columns.word]\nlevels = ['a', 'b']", DataError, "column `word`: `levels`: row 3 holds `c`"),
    ("[columns.word]\nlevels = [1, 2]", DataError, "`levels`: takes texts"),
    ("[columns.word]\nkind = 'continuous'", DataError, "row 1 holds `a`, which is not read as a number"),
    ("[columns.word]\nkind = 'boolean'", DataError, "row 3 holds `c` beside 2 other values"),
    ("[columns.word]\nkind = 'constant'", DataError, "row 2 holds `b` beside 1 other value,"),
    ("[columns.x]\nkind = 'count'", DataError, "row 1 holds 0.1257, and counts are whole numbers"),
    ("[columns.x]\nkind = 'date'", DataError, "read as plain numbers; `--date-format`"),
    ("[columns.day]\nkind = 'time'", DataError, "read as days since 1970-01-01"),
    ("[columns.x]\nsupport = 'positive'", DataError, "row 2 holds -0.1321, which lies beyond"),
    ("[columns.amount]\nsupport = 'positive'", DataError, "row 2 holds 0, where the open interval ends"),
    ("[columns.x]\nspacing = 1", DataError, "`spacing`: row 1 holds 0.1257, which is no multiple"),
    ("[columns.x]\nspacing = 99", DataError, "too wide for the values of `x`"),
]


@pytest.mark.parametrize(("toml", "error", "message"), MISTAKES, ids=[each[0] for each in MISTAKES])
def test_what_a_file_must_not_say(toml: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        check(toml, tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith("s.toml: ")


def write(folder: Path, columns: dict[str, Any]) -> str:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "t.csv")


def test_relations_of_numbers_and_of_levels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 500)).round(6)
    city = random.choice(["Bonn", "Ulm", "Wien", "Graz"], 500)
    land = {"Bonn": "de", "Ulm": "de", "Wien": "at", "Graz": "at"}
    code = {"Bonn": 3, "Ulm": 1, "Wien": 4, "Graz": 2}
    path = write(
        tmp_path,
        {"a": a, "b": b, "sum": (a + b).round(6), "city": city, "land": [land[c] for c in city],
         "code": [code[c] for c in city], "other": random.choice(["p", "q"], 500)},
    )  # fmt: skip
    found = {str(each) for each in check_table(path).relations}
    assert found == {
        "any one of `a`, `b` and `sum` follows from the rest",
        "any one of `city` and `code` follows from the rest",
        "`land` follows from `city`",
        "`land` follows from `code`",
    }


def test_repeated_rows_count_text_and_missing_cells_but_no_identifier(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "id": range(1, 13),
        "x": [1.5, 1.5, "", "", *np.arange(8) + 0.25],
        "word": ["a", "a", "b", "b", *"abababab"],
    }
    found = check_table(write(tmp_path, table))
    assert found.column("id").kind == "identifier"
    assert "a fit leaves it out: it numbers the rows, from 1 to 12" in found.column("id").because
    assert (found.repeated_rows, found.repeated_share) == (2, 2 / 12)
    table["x"][1] = 1.75
    assert check_table(write(tmp_path, table)).repeated_rows == 1


def test_own_columns_of_scores_are_shown_as_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(0).standard_normal((3, 50)).round(6)
    found = check_table(write(tmp_path, {"x": random[0], "log_prob": random[1], "log_prob_error": random[2]}))
    assert {each.kind for each in found.columns} == {"continuous"}
    assert "flowbench wrote it" in found.column("log_prob").because[-1]
