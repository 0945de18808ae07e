"""Values of a column with a probability mass of their own, and what stands in for them in a density."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from flowbench.data.row_hashes import hash_rows, uniform_of_hashes
from flowbench.encoding.column_items import NONE, column_items
from flowbench.errors import ConfigurationError, unknown_name

#: The set of random numbers of a row from which its first stand-ins come; lower ones are the dequantiser's.
_FIRST_SET = 1 << 20


class Atoms:
    """The atoms of columns: values, such as 0, that many rows hold, while other values are continuous.

    A cell that holds an atom has a probability and no density. So each column with atoms gets a state: a
    category that tells which atom the cell holds, or none. The density is that of the other cells, given the
    states. A density of all columns needs a number in every cell. So a cell that holds an atom is filled with
    a stand-in, which is standard normal in model space and depends on nothing. With x the cells without an
    atom and u the stand-ins, the log-density of a row is the mean of log p(x, u | states) - log q(u) over
    stand-ins u ~ q. By Jensen's inequality that is a lower bound of log p(x | states). It is exact if the
    density has learnt that stand-ins depend on nothing.

    `columns` names the d columns, and `values` gives the atoms of those that have some, in ascending order.
    Raises `ConfigurationError` for a column that is not there, and for atoms that are not so.
    """

    def __init__(self, columns: Sequence[str], values: Mapping[str, Sequence[float]] | None = None) -> None:
        self.columns = tuple(columns)
        given = values or {}
        for name, each in given.items():
            if name not in self.columns:
                raise ConfigurationError(f"`atoms`: {unknown_name('column', name, self.columns)}")
            if not len(each) or not (np.diff(np.array(each)) > 0).all():
                raise ConfigurationError(f"the atoms of `{name}` must be ascending numbers; got {list(each)}")
        self.values = {name: tuple(map(float, given[name])) for name in self.columns if name in given}
        self._places = [self.columns.index(name) for name in self.values]

    def __bool__(self) -> bool:
        """Whether any column has an atom."""
        return bool(self.values)

    def to_values(self) -> dict[str, list[float]]:
        """The atoms by column, as plain numbers."""
        return {name: list(each) for name, each in self.values.items()}

    def states(self, x: Tensor) -> Tensor:
        """The states `(n, k)`, float64, of rows `x: (n, d)` in the k columns with atoms.

        0 stands for no atom, 1 for the first atom, and so on. That of a missing cell, NaN, is NaN.
        """
        found = torch.zeros(len(x), len(self._places), dtype=torch.float64)
        for number, (place, values) in enumerate(zip(self._places, self.values.values(), strict=True)):
            for state, value in enumerate(values, start=1):
                found[x[:, place] == value, number] = state
            found[x[:, place].isnan(), number] = math.nan
        return found

    def absent(self, states: Tensor) -> Tensor:
        """Which cells `(n, d)` hold an atom, by the `states: (n, k)` of their rows."""
        found = torch.zeros(len(states), len(self.columns), dtype=torch.bool)
        found[:, self._places] = states > 0
        return found

    def restore(self, x: Tensor, states: Tensor) -> Tensor:
        """Rows `x: (n, d)` with the atoms of their `states: (n, k)`."""
        x = x.clone()
        for number, (place, values) in enumerate(zip(self._places, self.values.values(), strict=True)):
            for state, value in enumerate(values, start=1):
                x[states[:, number] == state, place] = value
        return x

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Train rows `x: (n, d)` with other rows' values in place of atoms, to fit each column's map to.

        They are drawn at random by their `weights: (n,)`, always the same, so that columns have the
        distribution of their values without atoms. Atoms must not be the only values of a column.
        """
        rng = np.random.default_rng(0)
        absent, x = self.absent(self.states(x)), x.clone()
        for place in self._places:
            known = x[~absent[:, place], place]
            count = int(absent[:, place].sum())
            if weights is None:
                chosen = rng.integers(0, len(known), count)
            else:
                shares = weights[~absent[:, place]].double().cpu().numpy()
                chosen = rng.choice(len(known), count, p=shares / shares.sum())
            x[absent[:, place], place] = known[torch.from_numpy(chosen)]
        return x

    def spread(self, x: Tensor, draw: int) -> Tensor:
        """Standard normal stand-ins `(n, d)` of number `draw` for rows `x: (n, d)`; they follow from the row.

        Those of draws 2k and 2k + 1 are opposite to each other (Hammersley and Morton 1956).
        """
        hashes = hash_rows((x.double() + 0.0).detach().numpy())
        uniform = torch.from_numpy(uniform_of_hashes(hashes, _FIRST_SET + draw // 2, x.shape[1]))
        normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(min=-1 + 1e-12))
        return normal if draw % 2 == 0 else -normal


def parse_atoms(text: str) -> dict[str, list[float]]:
    """The atoms of each column in "rain=0,price=0,price=99"; raises `ConfigurationError` for other text.

    "auto" in front is passed over, and "price=none" stands for a column without any.
    """
    found: dict[str, set[float]] = {}
    for item in column_items(text):
        name, _, number = (part.strip() for part in item.rpartition("="))
        try:
            values = set[float]() if number == NONE else {float(number)}
        except ValueError:
            values = {math.nan}
        is_settled = name in found and not (values and found[name])
        if not name or is_settled or not all(map(math.isfinite, values)):
            raise ConfigurationError(f"takes auto, none, or values such as rain=0,price=0; got `{text}`")
        found.setdefault(name, set()).update(values)
    return {name: sorted(values) for name, values in found.items()}
