"""Two real tables as the comparisons take them; both lie beside the checkout, where they are there at all."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import ROOT

DATA = ROOT.parent / "shared" / "data"
PROTEIN = DATA / "protein" / "protein.csv.gz"
POWER = DATA / "power-2007h1" / "power_2007h1.npz"

#: Uniform noise that each column of POWER gets, in its own units, as in the protocol of MAF.
POWER_NOISE = {
    "global_active_power": 0.001,
    "voltage": 0.01,
    "sub_metering_1": 1.0,
    "sub_metering_2": 1.0,
    "sub_metering_3": 1.0,
    "minute_of_day": 0.0,
}


def write_tables(folder: Path, names: Iterable[str] = ("protein", "power-2007h1")) -> dict[str, str]:
    """Write those of the tables called `names` that are there as Parquet; returns their paths by name."""
    paths = {}
    for name in names:
        source, make = TABLES[name]
        if source.exists():
            paths[name] = str(folder / f"{name}.parquet")
            make().to_parquet(paths[name], index=False)
    return paths


def protein() -> pd.DataFrame:
    """Without the third column, which is the second divided by the first, and without repeated rows."""
    return read_protein().drop(columns="c2").drop_duplicates()


def read_protein() -> pd.DataFrame:
    """All ten columns and every row."""
    return pd.read_csv(PROTEIN, header=None, dtype="float64").rename(columns=lambda name: f"c{name}")


def power() -> pd.DataFrame:
    """The columns of the protocol of MAF (Papamakarios et al. 2017), with its noise."""
    with np.load(POWER, allow_pickle=False) as file:
        columns, rows = [str(name) for name in file["columns"]], file["data"].astype(np.float64)
    random = np.random.RandomState(42)
    random.shuffle(rows)
    table = pd.DataFrame(rows, columns=columns)[list(POWER_NOISE)]
    return table + random.rand(*table.shape) * list(POWER_NOISE.values())


#: By name: the file that a table is made of, and the function that does it.
TABLES: dict[str, tuple[Path, Callable[[], pd.DataFrame]]] = {
    "protein": (PROTEIN, protein),
    "protein-whole": (PROTEIN, read_protein),
    "power-2007h1": (POWER, power),
}

#: Rows of the small subsets of protein that the floor is measured on.
SUBSETS = (100, 300, 1000)


def write_small_tables(folder: Path) -> dict[str, str]:
    """The small tables of the floor by name: bundled ones, and subsets of protein written as Parquet."""
    names = {name: name for name in ("faithful", "iris", "wine", "diabetes", "breast-cancer")}
    if PROTEIN.exists():
        table = protein().sample(frac=1.0, random_state=0)
        for rows in SUBSETS:
            path = folder / f"protein-{rows}.parquet"
            table[:rows].to_parquet(path, index=False)
            names[path.stem] = str(path)
    return names
