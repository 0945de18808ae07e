"""What a study found: a verdict, tables, and the numbers behind its pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DamagedFileError
from flowbench.store.documents import read_json, write_json
from flowbench.store.tensors import Tensors, read_tensors, write_tensors
from flowbench.store.text_table import TextTable

Floats = NDArray[np.float64]
Verdict = Literal["reproduced", "not reproduced", "not comparable"]

DOCUMENT, ARRAYS = "findings.json", "findings.safetensors"


@dataclass(frozen=True)
class Series:
    """A line of a chart: `y: (n,)` at `x: (n,)`, with an interval from `low` to `high`, or without.

    A scatter is dots instead of a line.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    is_scatter: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one pair of axes; `logarithmic` names those of "x" and "y" that are.

    In a plane both axes have the same scale, and lines are curves that may turn back.
    """

    title: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    logarithmic: tuple[str, ...] = ()
    is_plane: bool = False


@dataclass(frozen=True)
class Image:
    """A density `(nx, ny)` at `x: (nx,)` and `y: (ny,)`."""

    title: str
    x: Floats
    y: Floats
    density: Floats


@dataclass(frozen=True)
class Findings:
    """The outcome of a study: its `verdict` with the `reason`, and what its page shows."""

    verdict: Verdict
    reason: str
    tables: tuple[TextTable, ...] = ()
    charts: tuple[Chart, ...] = ()
    images: tuple[Image, ...] = ()


def write_findings(folder: Path, findings: Findings) -> None:
    """Write findings.json and findings.safetensors into `folder`, each atomically."""
    arrays: Tensors = {}
    document = _take_apart(findings, "", arrays)
    write_tensors(folder / ARRAYS, arrays, {})
    write_json(folder / DOCUMENT, document)


def read_findings(folder: Path) -> Findings:
    """What `write_findings` wrote; raises `DamagedFileError` for anything else."""
    document, (arrays, _) = read_json(folder / DOCUMENT), read_tensors(folder / ARRAYS)
    try:
        return Findings(
            verdict=document["verdict"],
            reason=document["reason"],
            tables=tuple(
                TextTable(
                    each["title"],
                    tuple(each["header"]),
                    tuple(map(tuple, each["rows"])),
                    tuple(each["numeric"]),
                    tuple(each["notes"]),
                    each["marked"],
                )
                for each in document["tables"]
            ),
            charts=tuple(
                Chart(
                    each["title"],
                    each["xlabel"],
                    each["ylabel"],
                    tuple(Series(**_with_arrays(one, arrays)) for one in each["series"]),
                    tuple(each["logarithmic"]),
                    each["is_plane"],
                )
                for each in document["charts"]
            ),
            images=tuple(Image(**_with_arrays(each, arrays)) for each in document["images"]),
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{folder / DOCUMENT} is not as flowbench wrote it: {error}") from None


def _take_apart(value: Any, place: str, arrays: Tensors) -> Any:
    """`value` as JSON takes it; its arrays go into `arrays`, and their names stand in their place."""
    if isinstance(value, np.ndarray):
        arrays[place] = value
        return {"array": place}
    if is_dataclass(value):
        return {
            each.name: _take_apart(getattr(value, each.name), f"{place}.{each.name}".lstrip("."), arrays)
            for each in fields(value)
        }
    if isinstance(value, tuple):
        return [_take_apart(each, f"{place}.{number}", arrays) for number, each in enumerate(value)]
    return value


def _with_arrays(values: Mapping[str, Any], arrays: Tensors) -> dict[str, Any]:
    return {
        name: arrays[value["array"]] if isinstance(value, dict) else value for name, value in values.items()
    }
