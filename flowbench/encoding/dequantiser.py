"""Uniform dequantisation of columns with evenly spaced values, such as whole numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowbench.data.lattice import LOOSE, Lattice, anchored, lattice_of_repeats
from flowbench.data.row_hashes import hash_rows, uniform_of_hashes
from flowbench.encoding.column_items import NONE, column_items
from flowbench.errors import ConfigurationError, unknown_name

Floats = NDArray[np.float64]

#: The default number of places in a row's cell over which its log-density is averaged; it is even.
PLACES = 8


class Dequantiser(nn.Module):
    """Turns rows with evenly spaced values into rows that have a density, and back (Uria et al. 2013).

    A value v of a column with the spacing s stands for the cell from v - s/2 to v + s/2. A value between the
    evenly spaced ones stands for the cell that it falls into. A model learns the density of values that are
    spread evenly over their cells. The log-likelihood of a row is then the mean of its log-density over the
    cell. That is a lower bound of the log of the cell's probability divided by its volume (Theis et al.
    2016). So spikes narrower than a cell gain nothing.

    `columns` names the d columns, and `lattices` gives the spacing of those that are dequantised. The others
    are continuous and stay as they are. `steps` and `origins`, `(d,)` float64, are saved with the model's
    weights; both are NaN for a continuous column.

    Rows are float64. Raises `ConfigurationError` for a lattice of a column that is not there.
    """

    steps: Tensor
    origins: Tensor

    def __init__(self, columns: Sequence[str], lattices: Mapping[str, Lattice] | None = None) -> None:
        super().__init__()
        self.columns = tuple(columns)
        given = lattices or {}
        _check_known(given, self.columns)
        each = [given.get(name, Lattice(np.nan, np.nan)) for name in self.columns]
        for buffer, values in {
            "steps": [lattice.step for lattice in each],
            "origins": [lattice.origin for lattice in each],
        }.items():
            self.register_buffer(buffer, torch.tensor(values, dtype=torch.float64))

    @classmethod
    def of_values(cls, columns: Sequence[str], values: Mapping[str, Any]) -> Self:
        """The dequantiser that plain `values` describe, in the form of `to_values`.

        Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` if they do not have that form.
        """
        lattices = {
            name: Lattice(float(values[name]["step"]), float(values[name]["origin"]))
            for name in columns
            if name in values
        }
        if not all(0 < each.step < np.inf and np.isfinite(each.origin) for each in lattices.values()):
            raise ValueError("a `step` is not positive, or an `origin` not finite")
        return cls(columns, lattices)

    def to_values(self) -> dict[str, dict[str, float]]:
        """Plain values: `step` and `origin` by column."""
        return {name: asdict(lattice) for name, lattice in self.lattices.items()}

    @property
    def lattices(self) -> dict[str, Lattice]:
        """The lattice of each dequantised column, in the order of the columns."""
        each = zip(self.columns, self.steps.tolist(), self.origins.tolist(), strict=True)
        return {name: Lattice(step, origin) for name, step, origin in each if not np.isnan(step)}

    def __bool__(self) -> bool:
        """Whether any column is dequantised."""
        return bool((~self.steps.isnan()).any())

    def jitter(self, rows: Tensor, generator: np.random.Generator) -> Tensor:
        """Rows `(n, d)`, each dequantised value at a random place in its cell."""
        if not self:
            return rows
        chosen = self._chosen()
        places = torch.from_numpy(generator.random((len(rows), len(chosen))))
        return self._put(rows, chosen, self._cells(rows, chosen), places)

    def spread(self, rows: Tensor, draw: int, draws: int = 2) -> Tensor:
        """Rows `(n, d)` at place number `draw` of `draws`, an even number, in their cells.

        The place follows from the cell alone, whatever rows are beside it. Places 2k and 2k + 1 lie on either
        side of the middle, so that in their mean the slope of a function cancels (Hammersley and Morton
        1956). All places together fill each column of a cell evenly, in an order that is random from column
        to column (McKay, Beckman and Conover 1979).
        """
        if not self:
            return rows
        pairs, pair = draws // 2, draw // 2
        chosen = self._chosen()
        cells = self._cells(rows, chosen)
        numbered = rows.double() + 0.0  # removes negative zeros, whose hash would differ
        numbered[:, chosen] = cells + 0.0
        # The hash needs unsigned 64-bit integers, which torch cannot shift; numpy sees the same memory.
        hashes = hash_rows(numbered.detach().numpy())
        order, inside, side = (
            torch.from_numpy(uniform_of_hashes(hashes, number, len(chosen)))
            for number in (0, 2 * pair + 1, 2 * pair + 2)
        )
        places = ((pair + torch.floor(order * pairs)) % pairs + inside) / (2 * pairs)
        places = torch.where((side < 0.5) == (draw % 2 == 0), places, 1 - places)
        return self._put(rows, chosen, cells, places)

    def restore(self, rows: Tensor) -> Tensor:
        """Rows `(n, d)`, each dequantised value in the middle of the cell that it lies in."""
        chosen = self._chosen()
        return self._put(rows, chosen, self._cells(rows, chosen)) if self else rows

    def out_of_place(self, rows: Tensor) -> dict[str, int]:
        """For each column with such values, how many values of `rows: (n, d)` lie off its lattice."""
        chosen = self._chosen()
        places = self._in_steps(rows, chosen)
        counts = ((places - torch.round(places)).abs() > LOOSE).sum(0).tolist()
        names = (self.columns[column] for column in chosen.tolist())
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    def whole_cells(self, box: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """A `box`, low and high of each of the d columns, enlarged to whole cells."""
        chosen = self._chosen()
        ends = torch.tensor(box, dtype=torch.float64).T.clone()
        halves = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
        numbers = self._cells(ends, chosen) + halves
        ends[:, chosen] = self.origins[chosen] + self.steps[chosen] * numbers
        return tuple((low, high) for low, high in ends.T.tolist())

    def _chosen(self) -> Tensor:
        """The indices `(k,)` of the columns that are dequantised."""
        return (~self.steps.isnan()).nonzero().squeeze(1)

    def _in_steps(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """The values of the `chosen: (k,)` columns in units of their steps, integers at cell middles.

        Shape `(n, k)`.
        """
        return (rows[:, chosen] - self.origins[chosen]) / self.steps[chosen]

    def _cells(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """The numbers of the cells that the values of the `chosen: (k,)` columns lie in: `(n, k)`."""
        return torch.round(self._in_steps(rows, chosen))

    def _put(self, rows: Tensor, chosen: Tensor, cells: Tensor, places: Tensor | None = None) -> Tensor:
        """Rows in the middle of the `cells: (n, k)` of `chosen` columns, or at `places` from 0 to 1 there."""
        steps = self.steps[chosen]
        # Rounding removes the noise in digits that do not distinguish cells.
        scale = torch.tensor([_digits_that_tell(step) for step in steps.tolist()], dtype=torch.float64)
        values = torch.round((self.origins[chosen] + steps * cells) * scale) / scale
        moved = rows.to(torch.float64, copy=True)
        moved[:, chosen] = values if places is None else values + steps * (places - 0.5)
        return moved


def _digits_that_tell(step: float) -> float:
    """Ten to the power of the decimals that distinguish multiples of `step`."""
    return float(10.0 ** min(max(0, 10 - int(np.floor(np.log10(step)))), 300))


def parse_spacings(text: str) -> dict[str, float | None]:
    """The spacing of each column in "age=1, height=0.1"; raises `ConfigurationError` for other text.

    "auto" in front is passed over, and "height=none" stands for a column of points, None.
    """
    spacings: dict[str, float | None] = {}
    for item in column_items(text):
        name, _, number = (part.strip() for part in item.rpartition("="))
        try:
            step = None if number == NONE else float(number)
        except ValueError:
            step = -1.0
        if not (name and (step is None or 0 < step < np.inf)):
            raise ConfigurationError(
                f"takes auto, none, or positive spacings such as age=1,height=0.1; got `{text}`"
            )
        if name in spacings:
            raise ConfigurationError(f"names `{name}` twice; got `{text}`")
        spacings[name] = step
    return spacings


def choose_dequantiser(
    columns: Mapping[str, Floats], spacings: Mapping[str, float | None] | None = None, *, others: bool = True
) -> Dequantiser:
    """The dequantiser of `columns` by name, chosen by their training values.

    It dequantises the columns with `spacings`, where None stands for a column of points. Of those that are
    not there it dequantises, if `others`, each whose values are evenly spaced and mostly shared by several
    rows. Raises `ConfigurationError` for a column that is not there, and for a spacing that its values
    cannot have.
    """
    names, given = tuple(columns), spacings or {}
    _check_known(given, names)
    found = dict[str, Lattice]()
    for name, values in columns.items():
        step = given.get(name)
        lattice = lattice_of_repeats(values) if step is not None or (others and name not in given) else None
        if step is not None and (lattice is None or lattice.step != step):
            lattice = anchored(name, values, step, "`dequantise`")
        if lattice is not None:
            found[name] = lattice
    return Dequantiser(names, found)


def _check_known(given: Iterable[str], columns: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` if a `given` name is none of the `columns`."""
    for name in given:
        if name not in columns:
            raise ConfigurationError(f"`dequantise`: {unknown_name('column', name, columns)}")
