"""The tables that come with scikit-learn: features only, without constant columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.table_reading import Table


@dataclass(frozen=True)
class SklearnTable:
    """A table of scikit-learn: the function that loads it, its size as loaded here, and its origin."""

    loader: str
    rows: int
    columns: int
    description: str
    source: str
    licence: str

    def load(self) -> Table:
        """All rows and every column that is not constant."""
        from sklearn import datasets

        bunch: Any = getattr(datasets, self.loader)()
        rows: NDArray[np.float64] = np.asarray(bunch.data, dtype=np.float64)
        varies = np.ptp(rows, axis=0) > 0
        names = tuple(str(name) for name, kept in zip(bunch.feature_names, varies, strict=True) if kept)
        return Table(names, rows[:, varies])


_UCI = "CC BY 4.0 (UCI)"

SKLEARN_TABLES = {
    "breast-cancer": SklearnTable(
        "load_breast_cancer",
        569,
        30,
        "measurements of cell nuclei in images of breast masses",
        "Wolberg, Mangasarian, Street and Street (1993), UCI, via scikit-learn",
        _UCI,
    ),
    "wine": SklearnTable(
        "load_wine",
        178,
        13,
        "chemical analyses of Italian wines",
        "Aeberhard and Forina (1992), UCI, via scikit-learn",
        _UCI,
    ),
    "diabetes": SklearnTable(
        "load_diabetes",
        442,
        10,
        "scaled measurements of diabetes patients; sex takes two values",
        "Efron, Hastie, Johnstone and Tibshirani (2004), via scikit-learn",
        "none stated; distributed with scikit-learn (BSD 3-Clause)",
    ),
    "digits": SklearnTable(
        "load_digits",
        1797,
        61,
        "8 x 8 images of digits, 17 grey levels; the 3 pixels that are always 0 are dropped",
        "Alpaydin and Kaynak (1998), UCI, via scikit-learn",
        _UCI,
    ),
    "iris": SklearnTable(
        "load_iris",
        150,
        4,
        "sepals and petals of three species of iris, in cm",
        "Fisher (1936), UCI, via scikit-learn",
        _UCI,
    ),
}
