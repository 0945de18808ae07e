"""RESULTS.md: one table for each family of cases; every figure stands in results/*.json.

A family is what is measured with several budgets or sizes: the cases `toys-30` and `toys-60` make `toys`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Row

Document = dict[str, Any]

#: What each family's table shows. The order is that of the page.
CAPTIONS = {
    "toys": "KL(true || model) after so many CPU seconds, nats; bold where one of the two is ahead.",
    "tables": "The lead of `cnf` over `nsf` in test NLL after so many CPU seconds, nats, 95% intervals.",
    "recovery": "KL(true || model), nats, after 120 CPU seconds.",
    "known": "KL(true || model) of y given x, nats, mean over x, after 120 CPU seconds.",
    "regression": "Test NLL of a target given its inputs, nats, mean of ten splits ± its standard error.",
    "peers": "Test NLL after 60 CPU seconds, nats, ± standard error.",
    "floor": "Test NLL on small tables, nats, mean of five splits.",
    "race": "CPU seconds until `cnf` is as good as FFJORD is after 10,000 iterations.",
    "ablation": "What a part of `cnf` is worth after 60 CPU seconds, nats; bold where resolved.",
    "sweep": "The lead of the default over another value, after 60 CPU seconds, nats; bold where resolved.",
    "kinds": "KL(true || model) of tables with every kind of column after 60 s, nats.",
    "gaps": "A fifth of the cells missing, beside complete rows: KL(true || model) after 60 s, nats.",
    "mixed": "Rows drawn of tables with categories and numbers, beside held-out rows; mean of three splits.",
    "gradient": "How many times as much CPU time another library takes for a likelihood gradient.",
    "series-gradient": "How many times as much CPU time another library takes for a latent ODE's gradient.",
    "scoring": "How many times as much CPU time another library takes for the same accuracy.",
    "memory": "Peak memory of a process.",
    "streaming": "Peak memory of a command on a long table, whole and taken up after a kill.",
    "roofline": "Share of the processor's own rate of matrix products.",
    "gpu": "A CUDA device beside one core.",
}
VERDICTS = "cnf against the others"
#: What stands beside a model that `cnf` is ahead of, or behind.
_SIGNS = {"ahead": "(cnf ahead)", "behind": "(cnf behind)"}


def write_report() -> Path:
    """Render results/*.json; returns the page's path."""
    families: dict[str, list[Document]] = {name: [] for name in CAPTIONS}
    for path in sorted(RESULTS.glob("*.json"), key=_in_order):
        families[_family(path.stem)].append(json.loads(path.read_text(encoding="utf-8")))
    lines = [
        "# Results",
        "",
        "`python -m benchmarks --report` writes this page from `results/*.json`.",
        "[README.md](README.md) says what each case measures and how to read it.",
        "Times are CPU times of one thread. A result is comparable within its case, and not across machines.",
        "Columns `aim`, `asked` and `allowed` hold goals that were set before measuring.",
    ]
    for name, documents in families.items():
        if documents:
            lines += render(name, documents)
    page = RESULTS.parent / "RESULTS.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def render(family: str, documents: list[Document]) -> Iterator[str]:
    """A family's section: its table, and where and when each case was measured."""
    yield from ("", f"## {family}", "", CAPTIONS[family], "")
    yield from table(SUMMARIES.get(family, stored)(documents))
    yield ""
    for document in documents:
        yield f"- [{document['case']}](results/{document['case']}.json): {_origin(document)}"


def budgets(documents: list[Document]) -> list[Row]:
    """The KL of `cnf` and of `nsf` on each toy, by seconds."""
    rows: dict[str, Row] = {}
    for document in documents:
        verdicts = {row["data"]: row["verdict"] for row in _against_nsf(document)}
        for fit in document["tables"]["fits"]:
            if fit["model"] in ("cnf", "nsf"):
                better = {"ahead": "cnf", "behind": "nsf"}.get(verdicts[fit["data"]])
                text = _middle(fit["KL"])
                row = rows.setdefault(fit["data"], {"toy": fit["data"]})
                row[f"{fit['model']}, {_size(document)} s"] = (
                    f"**{text}**" if fit["model"] == better else text
                )
    return list(rows.values())


def leads(documents: list[Document]) -> list[Row]:
    """How far `cnf` is ahead of `nsf` on each table and seed, by seconds."""
    rows: dict[tuple[str, int], Row] = {}
    for document in documents:
        for found in _against_nsf(document):
            row = rows.setdefault(
                (found["data"], found["seed"]), {"table": found["data"], "seed": found["seed"]}
            )
            row[f"{_size(document)} s"] = f"{found['cnf ahead by']} {found['verdict']}"
    return list(rows.values())


def recovered(documents: list[Document]) -> list[Row]:
    """The KL of every model, by density."""
    return divergences([fit for document in documents for fit in document["tables"]["recovery"]], "density")


def likelihoods(documents: list[Document]) -> list[Row]:
    """The test NLL of every model, by table."""
    return pivot(documents[0]["tables"]["fits"], "model", "data", "test NLL")


def conditional(documents: list[Document]) -> list[Row]:
    """The KL of every model, by conditional density."""
    return divergences(documents[0]["tables"]["known"], "y given x")


def divergences(fits: Iterable[Row], column: str) -> list[Row]:
    """The KL of every model, with a column for each density that `column` names."""
    shown = ({**fit, "KL": _middle(fit.get("KL", "failed"))} for fit in fits)
    return pivot(shown, "model", column, "KL")


def regression(documents: list[Document]) -> list[Row]:
    """The test NLL of every model, by table, and how `cnf` stands to it."""
    tables = documents[0]["tables"]
    verdicts = {(row["table"], row["against"]): row["verdict"] for row in tables[VERDICTS]}
    rows = []
    for fit in tables["fits"]:
        sign = _SIGNS.get(verdicts.get((fit["table"], fit["model"]), ""), "")
        rows.append({**fit, "shown": f"{fit.get('test NLL', 'failed')} {sign}"})
    return pivot(rows, "table", "model", "shown")


def worth(documents: list[Document]) -> list[Row]:
    """How far the default is ahead of each variant, by table."""
    rows = [
        {**row, "variant": row["against"], "lead": text if row["verdict"] == "level" else f"**{text}**"}
        for row in documents[0]["tables"][VERDICTS]
        for text in [_middle(row["cnf ahead by"])]
    ]
    return pivot(rows, "variant", "data", "lead")


def stored(documents: list[Document]) -> list[Row]:
    """The ratios of a case where it has some, and else the rows of its tables."""
    (document,) = documents
    tables = document["tables"]
    several = len(tables) > 1
    return document["ratios"] or [
        {"case": title, **row} if several else row for title, rows in tables.items() for row in rows
    ]


def draws(documents: list[Document]) -> list[Row]:
    """What every generator's draws are like, by table, without how `cnf` stands to the others."""
    return list(documents[0]["tables"]["draws"])


SUMMARIES: dict[str, Callable[[list[Document]], list[Row]]] = {
    "toys": budgets,
    "tables": leads,
    "recovery": recovered,
    "known": conditional,
    "regression": regression,
    "peers": likelihoods,
    "mixed": draws,
    "ablation": worth,
    "sweep": worth,
}


def pivot(rows: Iterable[Row], index: str, column: str, value: str) -> list[Row]:
    """A row for each value of `index`, with what stands under `value` in a column for each of `column`."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row[index], {index: row[index]})[row[column]] = row[value]
    return list(found.values())


def table(rows: list[Row]) -> Iterator[str]:
    """Rows as a markdown table; columns in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell(row.get(name)) for name in columns)} |"


def cell(value: Any) -> str:
    """A value as text; nothing for None."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _family(case: str) -> str:
    """`toys` for "toys-30"."""
    return re.sub(r"-\d+$", "", case)


def _size(document: Document) -> str:
    """`30` for the case "toys-30"."""
    return str(document["case"].rpartition("-")[2])


def _in_order(path: Path) -> tuple[str, int]:
    """Cases of a family by their number."""
    number = re.search(r"-(\d+)$", path.stem)
    return _family(path.stem), int(number[1]) if number else 0


def _middle(text: str) -> str:
    """The value before its error or its interval."""
    return text.split()[0]


def _against_nsf(document: Document) -> list[Row]:
    return [row for row in document["tables"][VERDICTS] if row["against"] == "nsf"]


def _origin(document: Document) -> str:
    """Mode, day, commit and machine of a result."""
    machine = document["machine"]
    # Older results do not say.
    units = machine.get("bfloat16_units")
    cpu = machine["cpu"] + ("" if units is None else f" ({', '.join(units) or 'no bfloat16 units'})")
    return (
        f"{document['mode']} mode, {document['date'][:10]}, commit {document['commit']}; "
        f"{cpu}, {machine['cores']} cores"
    )
