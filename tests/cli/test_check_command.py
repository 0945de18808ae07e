"""`flowbench datasets check`: the table for people, JSON, and the schema file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., tuple[int, str, str]]
DATASETS = Path(__file__).resolve().parents[2] / "datasets"
PENGUINS = str(DATASETS / "penguins.csv")


def test_a_line_for_each_column_and_lines_on_the_table(run: Run, home: Path) -> None:
    code, out, err = run("datasets", "check", PENGUINS)
    assert (code, err) == (0, "")
    first, names, *columns, repeated = out.splitlines()
    assert first == "penguins: 344 rows, 8 columns"
    assert names.split("\t") == [
        "column", "kind", "support", "atoms", "missing", "spacing", "tails", "evidence",
    ]  # fmt: skip
    cells = {line.split("\t")[0]: line.split("\t") for line in columns}
    assert cells["species"][1:7] == ["categorical", "-", "-", "-", "-", "-"]
    assert cells["body_mass_g"][1:7] == ["continuous", "real", "-", "2 (0.6%)", "25", "light"]
    assert cells["year"][-1] == "whole numbers from 2007 to 2009, only 3 distinct"
    assert repeated == "rows that repeat an earlier row, identifiers aside: 0 of 344"


def test_relations_and_atoms_are_printed(run: Run, home: Path) -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=300).round(5)
    b = np.where(random.random(300) < 0.5, 0, random.lognormal(size=300)).round(5)
    rows = "".join(f"{x:.5f},{y:.5f},{x + y:.5f}\n" for x, y in zip(a, b, strict=True))
    (home / "t.csv").write_text("a,b,c\n" + rows)
    code, out, _ = run("datasets", "check", "t.csv")
    assert code == 0
    assert f"b\tcontinuous\tpositive\t0 ({(b == 0).mean():.1%})\t" in out
    assert out.splitlines()[-1] == "any one of `a`, `b` and `c` follows from the rest"


def test_json_holds_it_all(run: Run, home: Path) -> None:
    code, out, _ = run("datasets", "check", PENGUINS, "--json", "--columns", "sex,bill_length_mm")
    assert code == 0
    found = json.loads(out)
    sex, bill = found["columns"]
    assert sex["levels"] == [{"value": "female", "count": 165}, {"value": "male", "count": 168}]
    assert (sex["missing"], sex["support"]) == (11, None)
    assert (bill["kind"], bill["support"], bill["spacing"]) == ("continuous", "real", 0.1)
    assert bill["because"][0] == "numbers from 32.1 to 59.6, 164 of 342 distinct"
    assert found["provenance"]["licence"] == "CC0"


def test_a_schema_file_is_made_and_then_read_and_kept(run: Run, home: Path) -> None:
    code, out, err = run("datasets", "check", PENGUINS, "--schema", "s.toml")
    assert (code, err) == (
        0, "s.toml holds what was found; edit it, and name it again with `--schema`\n"
    )  # fmt: skip
    text = (home / "s.toml").read_text()
    assert run("datasets", "check", PENGUINS, "--schema", "s.toml") == (0, out, "")
    edited = text.replace('kind = "ordinal"', 'kind = "categorical"')
    (home / "s.toml").write_text(edited)
    code, out, err = run("datasets", "check", PENGUINS, "--schema", "s.toml")
    assert code == 0
    said = "s.toml: column `year`: kind is categorical, where the values suggest ordinal"
    assert err == f"penguins: {said}\n"
    assert "year\tcategorical\t" in out
    assert (home / "s.toml").read_text() == edited


@pytest.mark.parametrize(
    ("arguments", "toml", "code", "message"),
    [
        ((), "[columns.mass]\n", 2, "s.toml: unknown column `mass`"),
        ((), '[columns.sex]\nkind = "sort"\n', 2, "s.toml: column `sex`: `kind`: unknown kind `sort`"),
        ((), "[columns.year]\nkind = \n", 2, "s.toml is not valid TOML: Invalid value (at line 2"),
        ((), '[columns.year]\nkind = "boolean"\n', 3, "row 101 holds `2009` beside 2 other values"),
        ((), '[columns.island]\nlevels = ["Dream"]\n', 3, "row 1 holds `Torgersen`, which is none of them"),
        ((), "[columns.bill_length_mm]\nsupport = [0, 59]\n", 3, "row 186 holds 59.6, which lies beyond"),
        (("--columns", "z"), "", 2, "unknown column `z`"),
        (("--header", "maybe"), "", 2, "`header`"),
        (("--schema", "no/such/folder/s.toml"), "", 2, "cannot write no/such/folder/s.toml"),
        (("--schema", "."), "", 2, "cannot read"),
        (("--schema", PENGUINS), "", 2, "is not valid TOML"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, home: Path, arguments: tuple[str, ...], toml: str, code: int, message: str
) -> None:
    (home / "s.toml").write_text(toml)
    found, out, err = run("datasets", "check", PENGUINS, "--schema", "s.toml", *arguments)
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert message in err
    assert (home / "s.toml").read_text() == toml


def test_truth_words_are_those_of_the_file(run: Run, home: Path) -> None:
    (home / "t.csv").write_text("a,b\n" + "TRUE,1.5\nFALSE,2.5\n" * 20)
    code, out, _ = run("datasets", "check", "t.csv", "--json")
    assert code == 0
    first = json.loads(out)["columns"][0]
    assert (first["kind"], [each["value"] for each in first["levels"]]) == ("boolean", ["FALSE", "TRUE"])
