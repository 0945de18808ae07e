"""Table files that are easily misread, each with the correct result of reading it."""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather, parquet

Floats = NDArray[np.float64]
N = 40


@dataclass(frozen=True)
class Case:
    """A file called `name` that `write` makes, with what is to come of loading it with these options.

    Either the columns' `names` and their `rows`, with every text of `says` in a note (and no note if there is
    none), or an error with every text of `refuses`. `learns` is said too, but not where a table is only
    described. `inside` is the table in the file.
    """

    name: str
    write: Callable[[Path], object]
    names: tuple[str, ...] = ()
    rows: Any = None
    says: tuple[str, ...] = ()
    learns: str = ""
    refuses: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    inside: str = ""


CASES: dict[str, Case] = {}
GENERATOR = np.random.default_rng(7)
#: Values with four digits after the point, so that they are the same in every format.
X: Floats = GENERATOR.normal(size=(N, 3)).round(4)
ABC = ("a", "b", "c")


def add(case: str, name: str, content: Any, encoding: str = "utf-8", **expected: Any) -> None:
    """Add a case; `content` is text, bytes or a function that writes to a path."""
    if isinstance(content, str):
        content = content.encode(encoding)
    write = content if callable(content) else lambda path: path.write_bytes(content)
    if "refuses" in expected and isinstance(expected["refuses"], str):
        expected["refuses"] = (expected["refuses"],)
    if "says" in expected and isinstance(expected["says"], str):
        expected["says"] = (expected["says"],)
    assert case not in CASES
    CASES[case] = Case(name, write, **expected)


def lines(rows: Any, separator: str = ",", newline: str = "\n", decimal: str = ".") -> str:
    text = ([cell if isinstance(cell, str) else f"{cell:.4f}" for cell in row] for row in rows)
    return "".join(separator.join(cell.replace(".", decimal) for cell in row) + newline for row in text)


def beside(*columns: Any) -> list[tuple[Any, ...]]:
    return list(zip(*columns, strict=True))


GOOD: dict[str, Any] = {"names": ABC, "rows": X}
BODY = lines(X)

# --- 1. Quotes that are never closed ------------------------------------------------------------------------

cut = BODY.split("\n")
opened = [*cut[:20], cut[20].replace(",", ',"', 1), *cut[21:]]
add(
    "open quote",
    "t.csv",
    "a,b,c\n" + "\n".join(opened),
    refuses="a quote that opens in line 22 is never closed",
)
add(
    "open quote at the start of a row",
    "t.csv",
    "a,b,c\n" + "\n".join([*cut[:5], '"' + cut[5], *cut[6:]]),
    refuses="opens in line 7 is never closed",
)
add("open quote in a name", "t.csv", 'a,"b,c\n' + BODY, refuses="never closed")
late = [*cut[:20], cut[20].replace(",", ',"', 1), *cut[21:30], cut[30] + '"', *cut[31:]]
closed = [*cut[:20], ',"'.join(cut[20].rsplit(",", 1)), *cut[21:30], cut[30] + '"', *cut[31:]]
add(
    "quote closed ten rows late",
    "t.csv",
    "a,b,c\n" + "\n".join(closed),
    refuses=("row 21", "runs over 11 lines"),
)
add(
    "quote closed late in a middle column",
    "t.csv",
    "a,b,c\n" + "\n".join(late),
    refuses=("row 21", "runs over 11 lines"),
)
add(
    "quote closed late in a column that is not asked for",
    "t.csv",
    "a,b,c\n" + "\n".join(closed),
    columns=("a",),
    refuses="runs over 11 lines",
)
add("open quote, semicolons", "t.csv", 'a;b\n1;2\n3;"4\n' + "5;6\n" * 20, refuses="opens in line 3")
notes = ["ab" if i != 7 else '"two\nlines"' for i in range(N)]
add(
    "a cell of two lines",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], notes)),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "a cell of eight lines of text",
    "t.csv",
    "a,b,note\n"
    + lines(beside(X[:, 0], X[:, 1], ['"one\ntwo, and\nthree\nfour\n\n5\n6\n7"', *["x"] * (N - 1)])),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
    says=("row 1: the cell runs over 8 lines",),
)
add(
    "inches",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ['5" pipe'] * N)),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "one inch among them",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ['5" pipe', *["x"] * (N - 1)])),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "doubled quotes",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ['"say ""x"""'] * N)),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add("short row", "t.csv", "a,b,c\n" + lines(X[:20]) + "1,2\n" + lines(X[20:]), refuses="row 21 has 2 cells")
add(
    "long row", "t.csv", "a,b,c\n" + lines(X[:20]) + "1,2,3,4\n" + lines(X[20:]), refuses="row 21 has 4 cells"
)
add("NUL bytes", "t.csv", b"a,b\n1,2\n\0\0\0\0\n3,4\n", refuses="not a text file")
add(
    "cut gzip",
    "t.csv.gz",
    lambda p: p.write_bytes(gzip.compress(("a,b,c\n" + BODY).encode())[:-9]),
    refuses="damaged",
)

# --- 2. What the first line is ------------------------------------------------------------------------------

add(
    "0, 1, 2 as names",
    "t.csv",
    "0,1,2\n" + BODY,
    names=("0", "1", "2"),
    rows=X,
    says=("`0, 1, 2`, is taken for names", "--header no"),
)
add("1, 2, 3 as names", "t.csv", "1,2,3\n" + BODY, names=("1", "2", "3"), rows=X, says="taken for names")
add("0 as a name", "t.csv", "0\n" + lines(X[:, :1]), names=("0",), rows=X[:, :1], says="taken for names")
add(
    "0, 1, 2 as a row",
    "t.csv",
    "0,1,2\n" + BODY,
    options={"header": "no"},
    names=("c1", "c2", "c3"),
    rows=np.vstack([[0, 1, 2], X]),
)
add(
    "0, 1, 2 as names, told",
    "t.csv",
    "0,1,2\n" + BODY,
    options={"header": "yes"},
    names=("0", "1", "2"),
    rows=X,
)
WHOLE = GENERATOR.integers(0, 900, size=(N, 3))
whole = "".join(f"{a},{b},{c}\n" for a, b, c in WHOLE)
add(
    "0, 1, 2 above whole numbers",
    "t.csv",
    "0,1,2\n" + whole,
    names=("0", "1", "2"),
    rows=WHOLE,
    says=("taken for names", "--header no"),
)
add(
    "years as names",
    "t.csv",
    "2019,2020,2021\n" + BODY,
    names=("2019", "2020", "2021"),
    rows=X,
    says="taken for names",
)
add(
    "wavelengths as names",
    "t.csv",
    "400,405,410\n" + BODY,
    names=("400", "405", "410"),
    rows=X,
    says="taken for names",
)
add(
    "years in a row",
    "t.csv",
    "2019,2020\n" + "".join(f"{2000 + a % 20},{1990 + b % 20}\n" for a, b, _ in WHOLE),
    names=("c1", "c2"),
    rows=np.vstack([[2019, 2020], np.c_[2000 + WHOLE[:, 0] % 20, 1990 + WHOLE[:, 1] % 20]]),
    says="it could be names",
)
add("no names", "t.csv", BODY, names=("c1", "c2", "c3"), rows=X, says=("taken for a row", "--header yes"))
add(
    "whole numbers above decimals",
    "t.csv",
    "0,1,0\n" + BODY,
    names=("c1", "c2", "c3"),
    rows=np.vstack([[0, 1, 0], X]),
    says="taken for a row",
)
kinds = ["setosa", "virginica"] * (N // 2)
add(
    "no names and a column of text",
    "t.csv",
    lines(beside(X[:, 0], X[:, 1], kinds)),
    columns=("c1", "c2"),
    names=("c1", "c2"),
    rows=X[:, :2],
    says="numbers where the lines below have numbers",
)
add("no names and a missing cell above", "t.csv", "?,1.5,2.5\n" + BODY, refuses=("column `c1`, row 1", "`?`"))
add(
    "names and years",
    "t.csv",
    "id_x,2019,2020\n" + BODY,
    names=("id_x", "2019", "2020"),
    rows=X,
    says=("though some are numbers: `2019, 2020`",),
)
add(
    "a row told to be names",
    "t.csv",
    BODY,
    options={"header": "yes"},
    names=tuple(f"{v:.4f}" for v in X[0]),
    rows=X[1:],
)
add(
    "names told to be a row",
    "t.csv",
    "a,b,c\n" + BODY,
    options={"header": "no"},
    refuses="`a` is not a number",
)
add(
    "names that are dates",
    "t.csv",
    "2020-01-01,2020-02-01,2020-03-01\n" + BODY,
    options={"header": "yes"},
    names=("2020-01-01", "2020-02-01", "2020-03-01"),
    rows=X,
)
add("names only", "t.csv", "a,b\n", refuses="a line of names but no rows")
add("two lines of names", "t.csv", "a,b,c\nm,kg,s\n" + BODY, refuses=("row 1", "`m` is not a number"))

# --- 3. Bookkeeping -----------------------------------------------------------------------------------------


def pandas_parquet(frame: Callable[[Any], Any], index: bool | None = None) -> Callable[[Path], object]:
    def write(path: Path) -> object:
        import pandas as pd

        return frame(pd.DataFrame(X, columns=list(ABC))).to_parquet(path, index=index)

    return write


def with_index(values: Any, name: str | None) -> Callable[[Any], Any]:
    return lambda frame: frame.set_axis(values).rename_axis(name)


add(
    "pandas index",
    "t.parquet",
    pandas_parquet(with_index(WHOLE[:, 0] + np.arange(N) * 1000, None)),
    **GOOD,
    says="`__index_level_0__` is left out: it is the index of a pandas table",
)
add(
    "named pandas index",
    "t.parquet",
    pandas_parquet(with_index(WHOLE[:, 0], "house")),
    **GOOD,
    says="`house` is left out",
)
add(
    "named pandas index that is asked for",
    "t.parquet",
    pandas_parquet(with_index(WHOLE[:, 0], "house")),
    columns=("house", "a"),
    names=("house", "a"),
    rows=np.c_[WHOLE[:, 0], X[:, 0]],
)
add("range index", "t.parquet", pandas_parquet(lambda frame: frame), **GOOD)
counting = np.arange(N)
add(
    "Unnamed: 0",
    "t.csv",
    "Unnamed: 0,a,b,c\n" + "".join(f"{i},{r}\n" for i, r in enumerate(BODY.split())),
    **GOOD,
    says="`Unnamed: 0` is left out",
)
add(
    "shuffled Unnamed: 0",
    "t.csv",
    "Unnamed: 0,a,b,c\n" + "".join(f"{(i * 7) % N},{r}\n" for i, r in enumerate(BODY.split())),
    **GOOD,
    says="`Unnamed: 0` is left out",
)
add(
    "an index that pandas writes",
    "t.csv",
    ",a,b,c\n" + "".join(f"{i},{r}\n" for i, r in enumerate(BODY.split())),
    **GOOD,
    says="column `c1` is left out",
)
add(
    "an index of text",
    "t.csv",
    ",a,b,c\n" + "".join(f"row {i},{r}\n" for i, r in enumerate(BODY.split())),
    **GOOD,
    says="column `c1` is left out",
)
add(
    "an index that is asked for",
    "t.csv",
    ",a,b\n" + lines(X),
    columns=("c1", "b"),
    names=("c1", "b"),
    rows=X[:, [0, 2]],
)
add(
    "an empty first name of values",
    "t.csv",
    ",b,c\n" + BODY,
    names=("c1", "b", "c"),
    rows=X,
    says="column 1 has no name, and is called `c1`",
)
add(
    "an empty name in the middle",
    "t.csv",
    "a,,c\n" + BODY,
    names=("a", "c2", "c"),
    rows=X,
    says="column 2 has no name, and is called `c2`",
)
add(
    "row numbers",
    "t.csv",
    "id,a,b,c\n" + "".join(f"{i},{r}\n" for i, r in enumerate(BODY.split(), 1)),
    **GOOD,
    says="`id` is left out: it numbers the rows, from 1 to 40",
)
add(
    "a column that counts",
    "t.csv",
    "x,a,b,c\n" + "".join(f"{i},{r}\n" for i, r in enumerate(BODY.split(), 5)),
    names=("x", *ABC),
    rows=np.c_[counting + 5, X],
    says=("`x` counts the rows, from 5 to 44", "--columns a,b,c"),
)
add(
    "a column that rises evenly",
    "t.csv",
    "t,a,b,c\n" + "".join(f"{i * 0.5},{r}\n" for i, r in enumerate(BODY.split())),
    names=("t", *ABC),
    rows=np.c_[counting * 0.5, X],
    says="rises by the same step",
)
add(
    "identifiers",
    "t.csv",
    "user_id,a,b,c\n" + "".join(f"{(i * 7) % N + 1000},{r}\n" for i, r in enumerate(BODY.split())),
    names=("user_id", *ABC),
    rows=np.c_[(counting * 7) % N + 1000, X],
    says="as identifiers do",
)
add(
    "R's row names",
    "t.csv",
    '"a","b","c"\n' + "".join(f'"{i}",{r}\n' for i, r in enumerate(BODY.split(), 1)),
    **GOOD,
    says="names of rows",
)
add(
    "R's row names of text",
    "t.txt",
    "a b c\n" + "".join(f'"x {i}" {r.replace(",", " ")}\n' for i, r in enumerate(BODY.split())),
    **GOOD,
    says=("names of rows", "separated by blanks"),
)
own = "a,b,c,log_prob,log_prob_error\n" + lines(np.c_[X, X[:, 0] * 2, abs(X[:, 1])])
add(
    "flowbench's own samples",
    "t.csv",
    own,
    **GOOD,
    says=("`log_prob` is left out", "`log_prob_error` is left out"),
)
add(
    "flowbench's own columns that are asked for",
    "t.csv",
    own,
    columns=("a", "log_prob"),
    names=("a", "log_prob"),
    rows=np.c_[X[:, 0], X[:, 0] * 2],
)
add(
    "counting is all there is",
    "t.csv",
    "id\n" + "".join(f"{i}\n" for i in range(N)),
    names=("id",),
    rows=counting[:, None],
)

# --- 4. Absurd cells ----------------------------------------------------------------------------------------


def with_cell(value: float, row: int = 11, column: int = 1, count: int = 1) -> Floats:
    rows = X.copy()
    rows[row : row + count, column] = value
    return rows


def as_csv(rows: Floats) -> str:
    return "a,b,c\n" + "".join(",".join(repr(float(v)) for v in row) + "\n" for row in rows)


for label, value in {
    "netCDF's fill value": 9.969209968386869e36,
    "-999": -999.0,
    "1e20": 1e20,
    "9999": 9999.0,
    "-9": -99.0,
    "largest double": 1.7976931348623157e308,
    "smallest integer": -2147483648.0,
    "-99.99": -99.99,
    "1e7": 1.2345e7,
}.items():
    add(
        f"marker {label}",
        "t.csv",
        as_csv(with_cell(value)),
        refuses=("column `b`, row 12: ", "--missing-value", "--keep b"),
    )
add(
    "markers in many rows",
    "t.csv",
    as_csv(with_cell(-999, count=9)),
    refuses=("row 12: -999 (in 9 cells)",),
)
add(
    "two markers",
    "t.csv",
    as_csv(np.where(np.arange(N)[:, None] == 3, with_cell(1e20, 3), with_cell(-999))),
    refuses=("1e+20", "-999"),
)
add(
    "marker in Parquet",
    "t.parquet",
    lambda p: parquet.write_table(pa.table(dict(zip(ABC, with_cell(-999).T, strict=True))), p),
    refuses="row 12: -999",
)
add(
    "marker that is kept",
    "t.csv",
    as_csv(with_cell(1e20)),
    options={"keep": ("b",)},
    names=ABC,
    rows=with_cell(1e20),
)
add(
    "marker that is missing",
    "t.csv",
    as_csv(with_cell(-999)),
    options={"missing_values": ("-999",)},
    refuses=("column `b`, row 12: the cell is missing", "--missing drop"),
)
add(
    "marker whose row is dropped",
    "t.csv",
    as_csv(with_cell(-999)),
    names=ABC,
    rows=np.delete(X, 11, 0),
    options={"missing_values": ("-999",), "missing": "drop"},
    says="1 of 40 rows have missing cells",
)
add(
    "long tails are none",
    "t.csv",
    as_csv(np.c_[np.exp(3 * X[:, 0]), X[:, 1], X[:, 2]]),
    names=ABC,
    rows=np.c_[np.exp(3 * X[:, 0]), X[:, 1], X[:, 2]],
)
add(
    "99 among ages is none",
    "t.csv",
    "a,b\n" + "".join(f"{40 + int(20 * v)},{w}\n" for v, w, _ in with_cell(2.95, column=0)),
    names=("a", "b"),
    rows=np.c_[40 + (20 * with_cell(2.95, column=0)[:, 0]).astype(int), X[:, 1]],
)
add(
    "text for missing",
    "t.csv",
    "a,b,c\n" + lines(X[:30]) + "?,1,2\n" + lines(X[30:]),
    refuses=("column `a`, row 31: `?` is not a number", "--missing-value '?'"),
)
add(
    "text for missing, told",
    "t.csv",
    "a,b,c\n" + lines(X[:30]) + "?,1,2\n" + lines(X[30:]),
    **GOOD,
    options={"missing_values": ("?",), "missing": "drop"},
    says="1 of 41 rows",
)

# --- 7. Guesses that change numbers -------------------------------------------------------------------------

MONEY = GENERATOR.integers(1000, 9999, size=N)
grouped = [f"{v // 1000},{v % 1000:03d}" for v in MONEY]
add("4,420 without names", "t.csv", "\n".join(grouped), refuses=("could be two cells", "--separator"))
add(
    "4,420 as two columns",
    "t.csv",
    "\n".join(grouped),
    options={"separator": ","},
    names=("c1", "c2"),
    rows=np.c_[MONEY // 1000, MONEY % 1000],
    says="taken for a row",
)
add(
    "4,420 as thousands",
    "t.csv",
    "\n".join(grouped),
    options={"separator": "tab", "thousands": ","},
    names=("c1",),
    rows=MONEY[:, None],
    says=("between their thousands",),
)
add(
    "4,420 as decimals",
    "t.csv",
    "\n".join(grouped),
    options={"separator": "tab", "decimal": ","},
    names=("c1",),
    rows=MONEY[:, None] / 1000,
    says="decimal comma",
)
add(
    "4,420 below a name",
    "t.csv",
    "price\n" + "\n".join(grouped),
    refuses=("1 cells where the others have 2", "--decimal"),
)
add(
    "3,05 without names",
    "t.csv",
    "\n".join(f"{v % 7},{v % 100:02d}" for v in MONEY) + "\n3,05\n",
    refuses="could be two cells",
)
quoted = [f'"{cell}"' for cell in grouped]
add(
    "quoted 4,420 alone",
    "t.csv",
    "m,n\n" + lines(beside(quoted, ["7", "8"] * (N // 2))),
    refuses=("could be a number with decimals", "--decimal ,", "--thousands ,"),
)
add(
    "quoted 4,420 beside decimals",
    "t.csv",
    "m,b\n" + lines(beside(quoted, X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY, X[:, 1]],
    says="between their thousands, such as `",
)
add(
    "quoted 4,420 told",
    "t.csv",
    "m,n\n" + lines(beside(quoted, ["7", "8"] * (N // 2))),
    options={"decimal": ","},
    names=("m", "n"),
    rows=np.c_[MONEY / 1000, [7, 8] * (N // 2)],
    says="decimal comma",
)
add(
    "1,234.50",
    "t.csv",
    "m,b\n" + lines(beside([f'"{c}.50"' for c in grouped], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY + 0.5, X[:, 1]],
    says="between their thousands",
)
add(
    "decimal commas",
    "t.csv",
    "a;b;c\n" + lines(X, ";", decimal=","),
    **GOOD,
    says=("decimal commas", "separated by semicolons"),
)
add("decimal commas, tabs", "t.tsv", "a\tb\tc\n" + lines(X, "\t", decimal=","), **GOOD, says="decimal commas")
add("decimal commas, blanks", "t.txt", "a b c\n" + lines(X, " ", decimal=","), **GOOD, says="decimal commas")
add(
    "decimal commas in quotes",
    "t.csv",
    "a,b,c\n" + "".join(",".join(f'"{v:.4f}"'.replace(".", ",") for v in r) + "\n" for r in X),
    **GOOD,
    says="decimal commas",
)
european = [f"{v // 1000}.{v % 1000:03d},25" for v in MONEY]
add(
    "4.420,25",
    "t.csv",
    "m;b\n" + lines(beside(european, [f"{v:.4f}".replace(".", ",") for v in X[:, 1]]), ";").replace("@", "."),
    names=("m", "b"),
    rows=np.c_[MONEY + 0.25, X[:, 1]],
    says="between their thousands",
)
add(
    "4.420 beside decimal commas",
    "t.csv",
    "m;b\n"
    + "".join(
        f"{c[:5]};{v:.4f}\n".replace(f"{v:.4f}", f"{v:.4f}".replace(".", ","))
        for c, v in zip(european, X[:, 1], strict=True)
    ),
    names=("m", "b"),
    rows=np.c_[MONEY, X[:, 1]],
    says=("`.` between their thousands",),
)
add(
    "4.420 beside decimal points",
    "t.csv",
    "m,b\n" + "".join(f"{c[:5]},{v:.4f}\n" for c, v in zip(european, X[:, 1], strict=True)),
    names=("m", "b"),
    rows=np.c_[MONEY / 1000, X[:, 1]],
)
add(
    "1.234.567",
    "t.csv",
    "m;n\n" + "".join(f"{v % 9 + 1}.{v % 1000:03d}.000;{i % 7}\n" for i, v in enumerate(MONEY)),
    names=("m", "n"),
    rows=np.c_[(MONEY % 9 + 1) * 10**6 + MONEY % 1000 * 1000, np.arange(N) % 7],
    says="between their thousands",
)
add(
    "1 234 567",
    "t.csv",
    "m,b\n" + lines(beside([f"{v:,}".replace(",", "\u202f") for v in MONEY], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY, X[:, 1]],
    says="a sign between their thousands",
)
add(
    "1'234",
    "t.csv",
    "m,b\n" + lines(beside([f"{v:,}".replace(",", "'") for v in MONEY], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY, X[:, 1]],
    says="a sign between their thousands",
)
add(
    "hexadecimal",
    "t.csv",
    "m,b\n" + lines(beside([f"0x{v:X}" for v in MONEY], X[:, 1])),
    refuses="is not a number",
)
add(
    "one hexadecimal",
    "t.csv",
    "m,n\n" + "".join(f"{v},{v % 7}\n" for v in MONEY) + "0x1F,2\n",
    refuses=("column `m`, row 41: `0x1F` is not a number",),
)
add(
    "underscores",
    "t.csv",
    "m,b\n" + lines(beside([f"{v:_}" for v in MONEY], X[:, 1])),
    refuses="is not a number",
)
add("Fortran's exponents", "t.csv", "m,b\n1.5D+03,2\n" * 20, refuses="`1.5D+03` is not a number")
add(
    "true and false",
    "t.csv",
    "m,b\n" + "".join(f"{'true' if v > 0 else 'false'},{v:.4f}\n" for v in X[:, 1]),
    names=("m", "b"),
    rows=np.c_[(X[:, 1] > 0).astype(float), X[:, 1]],
    learns="column `m` holds 2 categories: `false`, `true`",
)
add(
    "percent",
    "t.csv",
    "m,b\n" + lines(beside([f"{v / 100:.2f}%" for v in MONEY], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY / 100, X[:, 1]],
    says="numbers of percent",
)
add(
    "currency",
    "t.csv",
    "m,b\n" + lines(beside([f"${v / 100:.2f}" for v in MONEY], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[MONEY / 100, X[:, 1]],
    says="amounts in $",
)
add(
    "euro behind",
    "t.csv",
    "m;b\n"
    + "".join(f"{v / 100:.2f} €;{w:.4f}\n".replace(".", ",") for v, w in zip(MONEY, X[:, 1], strict=True)),
    names=("m", "b"),
    rows=np.c_[MONEY / 100, X[:, 1]],
    says=("amounts in €", "decimal commas"),
)
add(
    "debts in brackets",
    "t.csv",
    "m,b\n" + lines(beside([f"(${v / 100:.2f})" if v % 2 else f"${v / 100:.2f}" for v in MONEY], X[:, 1])),
    names=("m", "b"),
    rows=np.c_[np.where(MONEY % 2, -1, 1) * MONEY / 100, X[:, 1]],
    says="amounts in $",
)
add("two currencies", "t.csv", "m,b\n" + "$5,1.5\n€6,2.5\n" * 20, refuses="is not a number")
add("units behind numbers", "t.csv", "m,b\n" + "5 kg,1.5\n6 kg,2.5\n" * 20, refuses="`5 kg` is not a number")
add("true minus signs", "t.csv", "a,b,c\n" + BODY.replace("-", "\u2212"), **GOOD, says="minus sign")
add(
    "leading zeros",
    "t.csv",
    "zip,b\n" + lines(beside([f"{v % 900:05d}" for v in MONEY], X[:, 1])),
    names=("zip", "b"),
    rows=np.c_[MONEY % 900, X[:, 1]],
    says="begin with zeros, as codes do",
)
DAYS = np.datetime64("2020-01-01") + GENERATOR.integers(0, 366, size=N)
SINCE = DAYS.astype(np.int64).astype(float)
dates = [str(day) for day in DAYS]
parts = [date.split("-") for date in dates]
for label, texts, says in (
    ("YYYYMMDD", ["".join(p) for p in parts], "read as dates"),
    ("2020-01-31", dates, "days since 1970-01-01"),
    ("31.01.2020", [".".join(p[::-1]) for p in parts], "days since 1970-01-01"),
    ("31/01/2020", ["/".join(p[::-1]) for p in parts], "days since 1970-01-01"),
    ("01/31/2020", ["/".join([p[1], p[2], p[0]]) for p in parts], "days since 1970-01-01"),
    ("2020/01/31", ["/".join(p) for p in parts], "days since 1970-01-01"),
):
    add(
        f"dates {label}",
        "t.csv",
        "day,b\n" + "".join(f"{t},{v:.4f}\n" for t, v in zip(texts, X[:, 1], strict=True)),
        names=("day", "b"),
        rows=np.c_[SINCE, X[:, 1]],
        says=says,
    )
add(
    "YYYYMMDD as numbers",
    "t.csv",
    "day,b\n" + "".join(f"{''.join(p)},{v:.4f}\n" for p, v in zip(parts, X[:, 1], strict=True)),
    options={"keep": ("day",)},
    names=("day", "b"),
    rows=np.c_[[int("".join(p)) for p in parts], X[:, 1]],
)
early = [["2020", p[1], f"{int(p[2]) % 12 + 1:02d}"] for p in parts]
add(
    "day or month",
    "t.csv",
    "day,b\n" + "".join(f"{p[2]}/{p[1]}/{p[0]},1.5\n" for p in early),
    refuses=("the day first or the month", "--date-format %d/%m/%Y"),
)
add(
    "day first, told",
    "t.csv",
    "day,b\n" + "".join(f"{p[2]}/{p[1]}/{p[0]},{v:.4f}\n" for p, v in zip(early, X[:, 1], strict=True)),
    options={"date_format": ("%d/%m/%Y",)},
    names=("day", "b"),
    says="days since 1970-01-01",
    rows=np.c_[[np.datetime64("-".join(p)).astype(int) for p in early], X[:, 1]],
)
add(
    "times",
    "t.csv",
    "at,b\n" + "".join(f"{d} 10:30,{v:.4f}\n" for d, v in zip(dates, X[:, 1], strict=True)),
    names=("at", "b"),
    rows=np.c_[SINCE * 86400 + 37800, X[:, 1]],
    says="seconds since 1970-01-01",
)
add(
    "times of day",
    "t.csv",
    "at,b\n" + "".join(f"{i % 24:02d}:{i % 60:02d},{v:.4f}\n" for i, v in enumerate(X[:, 1])),
    names=("at", "b"),
    rows=np.c_[np.arange(N) % 24 * 3600 + np.arange(N) % 60 * 60, X[:, 1]],
    says="seconds since midnight",
)
add(
    "two digits of a year",
    "t.csv",
    "day,b\n" + "31.01.20,1.5\n28.02.21,2.5\n" * 20,
    refuses="is not a number",
)

# --- 8. Other layouts of text -------------------------------------------------------------------------------

add(
    "separators in names",
    "t.csv",
    '"Temp; C";"p; bar";c\n' + lines(X, ";"),
    names=("Temp; C", "p; bar", "c"),
    rows=X,
    says="separated by semicolons",
)
add(
    "other separators in names",
    "t.csv",
    '"Temp; C","p; bar","q; k"\n' + BODY,
    names=("Temp; C", "p; bar", "q; k"),
    rows=X,
)
add("line break in a name", "t.csv", '"a\nb",b,c\n' + BODY, names=("a\nb", "b", "c"), rows=X)
add("comma in a name", "t.csv", '"a, b",b,c\n' + BODY, names=("a, b", "b", "c"), rows=X)
add("sep=;", "t.csv", "sep=;\na;b;c\n" + lines(X, ";"), **GOOD, says="separated by semicolons")
add("# a,b,c", "t.csv", "# a,b,c\n" + BODY, **GOOD, says="`a, b, c` is taken for the names")
add("#a b c", "t.dat", "#a b c\n" + lines(X, " "), **GOOD, says="taken for the names")
add(
    "comments above",
    "t.csv",
    "# made, on a Monday\n# by hand\na,b,c\n" + BODY,
    **GOOD,
    says="2 comment lines",
)
add("comments above, %", "t.dat", "% by hand\na b c\n" + lines(X, " "), **GOOD, says="1 comment line")
add(
    "a title above",
    "t.csv",
    "My table\n\na,b,c\n" + BODY,
    **GOOD,
    says=("1 line above the table, `My table`",),
)
add("trailing separator", "t.csv", "a,b,c,\n" + BODY.replace("\n", ",\n"), **GOOD, says="left out")
add(
    "trailing separator in rows",
    "t.csv",
    "a,b,c\n" + BODY.replace("\n", ",\n"),
    **GOOD,
    says="ends with a separator",
)
add("trailing separator in names", "t.csv", "a,b,c,\n" + BODY, **GOOD, says="ends with a separator")
add("tabs", "t.txt", "a\tb\tc\n" + lines(X, "\t"), **GOOD, says="separated by tabs")
add("bars", "t.txt", "a|b|c\n" + lines(X, "|"), **GOOD, says="separated by bars")
add("blanks", "t.dat", "a b c\n" + lines(X, " "), **GOOD, says="separated by blanks")
add(
    "columns of blanks",
    "t.dat",
    "\n".join(" ".join(f"{cell:>12}" for cell in row) for row in [ABC, *X]) + "\n",
    **GOOD,
    says="separated by blanks",
)
add("blanks behind commas", "t.csv", "a, b, c\n" + lines(X, ", "), **GOOD)
add(
    "single quotes",
    "t.csv",
    "'a','b','c'\n" + "".join(",".join(f"'{v:.4f}'" for v in r) + "\n" for r in X),
    **GOOD,
    says="single quotes",
)
add("a mark at the start", "t.csv", "a,b,c\n" + BODY, "utf-8-sig", **GOOD)
add("UTF-16", "t.csv", "a,b,c\n" + BODY, "utf-16", **GOOD)
add("UTF-16 without a mark", "t.csv", "a,b,c\n" + BODY, "utf-16-be", **GOOD)
add("UTF-32", "t.csv", "a,b,c\n" + BODY, "utf-32", **GOOD)
add("Latin-1", "t.csv", "höhe,b,c\n" + BODY, "latin-1", names=("höhe", "b", "c"), rows=X, says="Windows-1252")
add(
    "Latin-1 far below",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ["x"] * (N - 1) + ["ö"])),
    "latin-1",
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
    says="Windows-1252",
)
add(
    "Cyrillic, told",
    "t.csv",
    "рост,b,c\n" + BODY,
    "cp1251",
    options={"encoding": "cp1251"},
    names=("рост", "b", "c"),
    rows=X,
)
add(
    "another encoding than was told",
    "t.csv",
    b"h\xf6he,b\n1,2\n",
    options={"encoding": "utf-8"},
    refuses="not text in utf-8",
)
add("carriage returns", "t.csv", "a,b,c\r" + lines(X, newline="\r"), **GOOD)
add("carriage returns and line feeds", "t.csv", "a,b,c\r\n" + lines(X, newline="\r\n"), **GOOD)
add("no line end at the end", "t.csv", ("a,b,c\n" + BODY).rstrip(), **GOOD)
add("blank lines between", "t.csv", "\n\na,b,c\n\n" + BODY.replace("\n", "\n\n"), **GOOD)

# --- 9. Several tables in a file ----------------------------------------------------------------------------


def h5(**members: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with h5py.File(path, "w", track_order=True) as file:
            for name, values in members.items():
                file[name.replace("__", "/")] = values

    return write


def npz(**members: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **members)


columns = dict(zip(ABC, X.T, strict=True))
add("HDF5 with more in it", "t.h5", h5(**columns, extra=np.ones(3)), columns=ABC, **GOOD)
add(
    "HDF5 of several lengths", "t.h5", h5(**columns, extra=np.ones(3)), refuses="its columns differ in length"
)
add("HDF5 group", "t.h5", h5(**{f"g__t__{name}": v for name, v in columns.items()}), inside="g/t", **GOOD)
add(
    "HDF5 groups unnamed",
    "t.h5",
    h5(**{f"g__t__{name}": v for name, v in columns.items()}),
    refuses=("no dataset at its root", "t.h5:g/t"),
)
add("HDF5 dataset", "t.h5", h5(x=X, y=X[:, :2]), inside="x", names=("c1", "c2", "c3"), rows=X)
add("HDF5 dataset that is not there", "t.h5", h5(x=X, y=X), inside="z", refuses=("it has no `z`", "`x`, `y`"))
add(
    "pandas.to_hdf",
    "t.h5",
    h5(df__axis0=np.array([b"a"]), df__block0_values=X),
    inside="df",
    refuses=("pandas.to_hdf", "to_parquet"),
)
add(
    "NPZ with more in it",
    "t.npz",
    npz(**columns, note=np.ones((2, 2))),
    columns=("b", "a"),
    names=("b", "a"),
    rows=X[:, [1, 0]],
)
add("NPZ array", "t.npz", npz(train=X, test=X[:3]), inside="train", names=("c1", "c2", "c3"), rows=X)
add("NPZ arrays unnamed", "t.npz", npz(train=X, test=X[:3]), refuses=("holds several arrays", "with a colon"))
add("NPZ array that is not there", "t.npz", npz(train=X), inside="test", refuses="it has no array `test`")
add("a table in a CSV file", "t.csv", "a,b,c\n" + BODY, inside="x", refuses="it holds one table")

# --- 10. Types ----------------------------------------------------------------------------------------------

LONG = 2**60 + GENERATOR.integers(0, 2000, size=N)
add(
    "long whole numbers",
    "t.csv",
    "m,b\n" + "".join(f"{v},{w:.4f}\n" for v, w in zip(LONG, X[:, 1], strict=True)),
    refuses=("column `m`: its whole numbers", "beyond 2^53", "different values become"),
)
add(
    "longer whole numbers",
    "t.csv",
    "m,b\n" + "".join(f"1234567890{v},{w:.4f}\n" for v, w in zip(LONG, X[:, 1], strict=True)),
    refuses=("beyond 2^53", "different values become"),
)
add(
    "long whole numbers in Parquet",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"m": LONG, "b": X[:, 1]}), p),
    refuses="beyond 2^53",
)
add("long whole numbers in NPY", "t.npy", lambda p: np.save(p, np.c_[LONG, LONG]), refuses="beyond 2^53")
add(
    "long whole numbers left out",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"m": LONG, "b": X[:, 1]}), p),
    columns=("b",),
    names=("b",),
    rows=X[:, 1:2],
)
add(
    "large floats",
    "t.csv",
    "m,b\n" + "".join(f"{v:.3e},{w:.4f}\n" for v, w in zip(LONG * X[:, 0], X[:, 1], strict=True)),
    names=("m", "b"),
    rows=np.c_[[float(f"{v:.3e}") for v in LONG * X[:, 0]], X[:, 1]],
)
add(
    "text in Parquet",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"m": [f"{v}" for v in MONEY], "b": X[:, 1]}), p),
    refuses="is text, not a number",
)
add(
    "dates in Parquet",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"day": DAYS, "b": X[:, 1]}), p),
    names=("day", "b"),
    rows=np.c_[SINCE, X[:, 1]],
    says="days since 1970-01-01",
)
add(
    "a nested column",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"m": [[1.0]] * N, "b": X[:, 1]}), p),
    refuses="is not a number",
)

# --- 12. Endings --------------------------------------------------------------------------------------------

plain = ("a,b,c\n" + BODY).encode()


def zipped(**members: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name.replace("__", "."), content)

    return write


def zstandard(path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(plain)


def sheet(**sheets: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        import openpyxl

        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in sheets.items():
            page = book.create_sheet(name)
            for row in rows:
                page.append(row)
        book.save(path)

    return write


def arrow_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))


def arrow_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))


records = "".join(json.dumps(dict(zip(ABC, row, strict=True))) + "\n" for row in X.tolist())
excel = [list(ABC), *X.tolist()]
add(".tsv", "t.tsv", "a\tb\tc\n" + lines(X, "\t"), **GOOD)
add(".pq", "t.pq", lambda p: parquet.write_table(pa.table(columns), p), **GOOD)
add(".feather", "t.feather", lambda p: feather.write_feather(pa.table(columns), str(p)), **GOOD)
add(".arrow", "t.arrow", arrow_file, **GOOD)
add(".arrow, a stream", "t.arrow", arrow_stream, **GOOD)
add(".jsonl", "t.jsonl", records, **GOOD)
add(".jsonl.gz", "t.jsonl.gz", gzip.compress(records.encode()), **GOOD)
add(".jsonl, cut", "t.jsonl", records[:-20], refuses="damaged")
add(".xlsx", "t.xlsx", sheet(one=excel), **GOOD)
add(".xlsx of two sheets", "t.xlsx", sheet(one=excel, two=excel), refuses=("2 sheets", "t.xlsx:one"))
add(".xlsx, a sheet", "t.xlsx", sheet(one=[["x"], [1]], two=excel), inside="two", **GOOD)
add(
    ".xlsx, a gap",
    "t.xlsx",
    sheet(one=[*excel[:5], [1.5, None, 2.5], *excel[5:]]),
    refuses=("column `b`, row 5", "missing"),
)
add(
    ".xlsx, text",
    "t.xlsx",
    sheet(one=[*excel[:5], [1.5, "x", 2.5], *excel[5:]]),
    refuses=("column `b`, row 5: `x`",),
)
add(".csv.gz", "t.csv.gz", gzip.compress(plain), **GOOD)
add(".csv.bz2", "t.csv.bz2", bz2.compress(plain), **GOOD)
add(".csv.xz", "t.csv.xz", lzma.compress(plain), **GOOD)
add(".csv.zst", "t.csv.zst", zstandard, **GOOD)
add(".csv.zip", "t.csv.zip", zipped(t__csv=plain), **GOOD)
add(".zip", "t.zip", zipped(t__csv=plain, readme__md=b"x"), **GOOD)
add(".zip of two", "t.zip", zipped(t__csv=plain, u__csv=plain), refuses=("holds 2 tables", "t.zip:t.csv"))
add(".zip, a member", "t.zip", zipped(t__csv=plain, u__csv=b"x\n1\n"), inside="t.csv", **GOOD)
add(".zip of none", "t.zip", zipped(readme__md=b"x"), refuses="holds no table")
add("gzip called CSV", "t.csv", gzip.compress(plain), refuses="not a text file")
add(
    "Parquet called CSV",
    "t.csv",
    lambda p: parquet.write_table(pa.table(columns), p),
    refuses="not a text file",
)
add("an unknown ending", "t.sav", b"x", refuses="known endings: .csv")

# --- Neighbours of these ------------------------------------------------------------------------------------

dotted = [f"{v // 1000}.{v % 1000:03d}" for v in MONEY]
euros = [f"{v / 100:.2f}".replace(".", ",") for v in MONEY]
for label, ending in (("euros", " €"), ("percent", "%"), ("nothing", "")):
    add(
        f"thousands beside decimal commas with {label}",
        "t.csv",
        "pop;price\n" + "".join(f"{a};{b}{ending}\n" for a, b in zip(dotted, euros, strict=True)),
        names=("pop", "price"),
        rows=np.c_[MONEY, MONEY / 100],
        says=("`.` between their thousands", "decimal commas"),
    )
long_a, long_b = GENERATOR.integers(1000, 9999, size=400), np.arange(400) % 37
add(
    "decimal commas far below",
    "t.csv",
    "a;b\n"
    + "".join(
        f"{a // 1000}.{a % 1000:03d};{b if i < 350 else f'{b},5'}\n"
        for i, (a, b) in enumerate(zip(long_a, long_b, strict=True))
    ),
    names=("a", "b"),
    rows=np.c_[long_a, long_b + 0.5 * (np.arange(400) >= 350)],
    says=("`.` between their thousands", "decimal commas"),
)
for label, bad in (("31.02.2020", "31.02.2020"), ("31.04.2020", "31.04.2020")):
    add(
        f"a day that is none, {label}",
        "t.csv",
        "day,b\n" + "".join(f"{'.'.join(p[::-1])},1.5\n" for p in parts[:20]) + f"{bad},1.5\n",
        refuses=(f"column `day`, row 21: `{bad}` is not a number",),
    )
add(
    "one bad date among good ones",
    "t.csv",
    "day,b\n" + "".join(f"{d},1.5\n" for d in dates[:20]) + "2020-13-45,1.5\n",
    refuses=("column `day`, row 21: `2020-13-45`", "--date-format"),
)
longs = "".join(f"{v};{w:.4f}\n".replace(".", ",") for v, w in zip(LONG, X[:, 1], strict=True))
add("long whole numbers beside decimal commas", "t.csv", "m;b\n" + longs, refuses="beyond 2^53")
plain_long = "m,b\n" + "".join(f"{v},{w:.4f}\n" for v, w in zip(LONG, X[:, 1], strict=True))
add("long whole numbers in UTF-16", "t.csv", plain_long, "utf-16", refuses="beyond 2^53")
add(
    "long whole numbers beside a 0x",
    "t.csv",
    "m,b,note\n" + "".join(f"{v},{w:.4f},0xA\n" for v, w in zip(LONG, X[:, 1], strict=True)),
    columns=("m", "b"),
    refuses="beyond 2^53",
)
add(
    "long whole numbers with thousands",
    "t.csv",
    "m,b\n" + "".join(f'"{v:,}",{w:.4f}\n' for v, w in zip(LONG, X[:, 1], strict=True)),
    refuses="beyond 2^53",
)
add(
    "long whole numbers in JSON lines",
    "t.jsonl",
    "".join(f'{{"m": {v}, "b": {w:.4f}}}\n' for v, w in zip(LONG, X[:, 1], strict=True))
    + '{"m": 1.5, "b": 2}\n',
    refuses="beyond 2^53",
)
hidden = [f"{a:.4f},{b:.4f},n{i}" for i, (a, b) in enumerate(zip(X[:, 0], X[:, 1], strict=True))]
hidden[10], hidden[12] = hidden[10].replace(",n", ',"n'), hidden[12] + '"'
add(
    "a quote that hides two rows of a column that is not asked for",
    "t.csv",
    "a,b,note\n" + "\n".join(hidden) + "\n",
    columns=("a", "b"),
    refuses=("row 11", "runs over 3 lines"),
)
nanoseconds = DAYS.astype("M8[ns]")
add(
    "NPZ with dates in nanoseconds",
    "t.npz",
    npz(day=nanoseconds, b=X[:, 1]),
    names=("day", "b"),
    rows=np.c_[SINCE * 86400, X[:, 1]],
    says="seconds since 1970-01-01",
)
add(
    "times finer than microseconds",
    "t.parquet",
    lambda p: parquet.write_table(pa.table({"at": nanoseconds + np.arange(N) * 100, "b": X[:, 1]}), p),
    refuses="finer than a microsecond",
)
add(
    "points where decimal commas were told",
    "t.csv",
    "x;y\n1.5;1\n2.25;2\n0,5;3\n" * 5,
    options={"decimal": ","},
    refuses="`1.5` is not a number",
)
add(
    "no group begins with a zero",
    "t.csv",
    'x,y\n"1,234.5",1\n"0,123",2\n"2,250.5",3\n' * 5,
    refuses="`0,123` is not a number",
)
add(
    "a single column with empty lines",
    "t.csv",
    "x\n\n" + lines(X[:, :1]),
    names=("x",),
    rows=X[:, :1],
    says="1 empty lines are passed over",
)
add(
    "a single column of decimal commas",
    "t.csv",
    "x\n" + "".join(f"{i},{i % 7}\n" for i in range(N)),
    refuses=("1 cells where the others have 2", "--decimal"),
)
add(
    "a single column of times",
    "t.csv",
    "at\n" + "".join(f"{d} 10:30:00\n" for d in dates),
    names=("at",),
    rows=(SINCE * 86400 + 37800)[:, None],
    says="seconds since 1970-01-01",
)
add(
    "dates as names",
    "t.csv",
    "2020-01-01,2020-02-01,2020-03-01\n" + BODY,
    names=("2020-01-01", "2020-02-01", "2020-03-01"),
    rows=X,
)
add(
    "trailing separators without names",
    "t.csv",
    BODY.replace("\n", ",\n"),
    names=("c1", "c2", "c3"),
    rows=X,
    says=("taken for a row", "`c4` is left out"),
)
add(
    "a trailing separator in rows, some columns asked for",
    "t.csv",
    "a,b,c\n" + BODY.replace("\n", ",\n"),
    columns=("a", "c"),
    names=("a", "c"),
    rows=X[:, [0, 2]],
    says="ends with a separator",
)
add(
    "a very long cell",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ["x" * 200_000, *["y"] * (N - 1)])),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "a cell longer than a block",
    "t.csv",
    "a,b,note\n" + lines(beside(X[:, 0], X[:, 1], ["x" * 3_000_000, *["y"] * (N - 1)])),
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "exponents with decimal commas",
    "t.csv",
    "a;b\n" + "".join(f"{v:.2e};{w:.4f}\n".replace(".", ",") for v, w, _ in X),
    names=("a", "b"),
    rows=np.c_[[float(f"{v:.2e}") for v in X[:, 0]], X[:, 1]],
    says="decimal commas",
)
add(
    "a comment in the middle",
    "t.csv",
    "a,b,c\n" + lines(X[:5]) + "# more\n" + lines(X[5:]),
    refuses=("row 6 has 1 cells", "looks like a comment"),
)
add("units under the names in a comment", "t.csv", "a,b,c\n# m,s,kg\n" + BODY, refuses="looks like a comment")
add(".zip of a table and its description", "t.zip", zipped(readme__txt=b"read me", t__csv=plain), **GOOD)
add(".zip of Parquet", "t.zip", zipped(t__parquet=b"PAR1"), refuses="is not read inside of an archive")
add(
    "counts and a 9",
    "t.csv",
    "n,b\n" + "".join(f"{9 if i == 3 else i % 5},{v:.4f}\n" for i, v in enumerate(X[:, 1])),
    names=("n", "b"),
    rows=np.c_[np.where(np.arange(N) == 3, 9, np.arange(N) % 5), X[:, 1]],
    learns="`--keep n` learns it as a number",
)
add(
    "an identifier that is kept",
    "t.csv",
    "id,a\n" + "".join(f"{i},{v:.4f}\n" for i, v in enumerate(X[:, 0])),
    options={"keep": ("id",)},
    names=("id", "a"),
    rows=np.c_[np.arange(N), X[:, 0]],
)
single = X.astype(np.float32)
single[7, 1] = -99.9
add(
    "a marker in single precision",
    "t.parquet",
    lambda p: parquet.write_table(pa.table(dict(zip(ABC, single.T, strict=True))), p),
    options={"missing_values": ("-99.9",), "missing": "drop"},
    names=ABC,
    rows=np.delete(single, 7, 0).astype(float),
    says="1 of 40 rows",
)
add(".xlsx with a title", "t.xlsx", sheet(one=[["My table"], *excel]), **GOOD, says="1 line above the table")
add(
    ".xlsx with NA",
    "t.xlsx",
    sheet(one=[*excel[:5], [1.5, "NA", 2.5], *excel[5:]]),
    options={"missing": "drop"},
    **GOOD,
    says="1 of 41 rows",
)


def scaled(path: Path) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        for name, values in columns.items():
            file[name] = values
        file["b"].attrs["scale_factor"] = 0.01


def with_fill(path: Path) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        for name, values in zip(ABC, with_cell(-5.0).T, strict=True):
            file[name] = values
        file["b"].attrs["_FillValue"] = -5.0


def with_scale(path: Path) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        for name, values in columns.items():
            file[name] = values
        file["a"].make_scale("a")


add("HDF5 with scaled values", "t.h5", scaled, refuses="`b` has the attribute `scale_factor`")
add("HDF5 with a fill value", "t.h5", with_fill, refuses=("column `b`, row 12", "missing"))
add(
    "HDF5 with a dimension scale",
    "t.h5",
    with_scale,
    names=("b", "c"),
    rows=X[:, 1:],
    says="scales are left out",
)
add(
    "HDF5 with a dimension scale that is asked for",
    "t.h5",
    with_scale,
    columns=("a", "b"),
    names=("a", "b"),
    rows=X[:, :2],
)
add(
    "a marker that no cell holds",
    "t.csv",
    as_csv(X),
    names=ABC,
    rows=X,
    options={"missing_values": ("-999", "never")},
    says=("no cell is `-999`", "no cell is `never`"),
)
add(
    "a line of blanks at the end",
    "t.csv",
    "a,b,c\n" + BODY + "   \n",
    refuses=("row 41 has 1 cells", "take it out"),
)


def with_error(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in excel:
        book.active.append(row)
    book.active["B7"] = "#DIV/0!"
    book.active["B7"].data_type = "e"
    book.save(path)


add(
    ".xlsx with an error",
    "t.xlsx",
    with_error,
    options={"missing": "drop"},
    names=ABC,
    rows=np.delete(X, 5, 0),
    says=("#DIV/0!, are read as missing", "1 of 40 rows"),
)
