"""The encoder of a table: named columns to model space and back, with the log-determinant."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flowbench.encoding.atoms import Atoms
from flowbench.encoding.circle import Circle
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.support_map import ROOM, SupportMap
from flowbench.encoding.transform import Transform
from flowbench.errors import ConfigurationError, DataError
from flowbench.statistics.gaussian_mixtures import Tell, silent

#: Rows that are encoded at once while the transforms are fitted.
BLOCK = 2**18


class TableEncoder(nn.Module):
    """Maps rows of a table to model space, in which densities are fitted, and back.

    All models encode rows through this class. A row goes through the `dequantiser`, through the `support` and
    then through the `transforms`, one after another. A rounded value stands for an interval, its cell; the
    dequantiser replaces it by a place in that cell. A value that is one of the `atoms` is replaced by a
    stand-in (`flowbench.encoding.atoms.Atoms`). The `circle` cuts periodic columns open
    (`flowbench.encoding.circle.Circle`). The support maps columns with ends onto the whole line.
    The transforms are fitted on training rows. All parts hold buffers that are saved with the model's
    weights. Without a `dequantiser` all columns are continuous, without a `support` none has an end, without
    `atoms` no value has a probability, and without a `circle` no column is periodic.

    `columns` names the d columns, in the order of every `x: (n, d)`, float64, data units. There are two kinds
    of rows: those of the table, and those at places in cells, with stand-ins. Rows at places always have a
    density. Rows of the table have one only if all columns are continuous. Each method says which kind it
    takes. Values of periodic columns lie within their period, at places too, but for stand-ins. On the line
    they have several copies (`unroll`), each of which is encoded by itself.

    Raises `ConfigurationError` if the dequantiser or a transform was made for other columns, or if rows do
    not have d columns.
    """

    def __init__(
        self,
        columns: Sequence[str],
        transforms: Sequence[Transform] = (),
        dequantiser: Dequantiser | None = None,
        support: SupportMap | None = None,
        atoms: Atoms | None = None,
        circle: Circle | None = None,
    ) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.dequantiser = Dequantiser(self.columns) if dequantiser is None else dequantiser
        self.support = SupportMap(self.columns) if support is None else support
        self.atoms = Atoms(self.columns) if atoms is None else atoms
        self.circle = Circle(self.columns) if circle is None else circle
        self.transforms = nn.ModuleList(transforms)
        parts: list[Dequantiser | SupportMap | Atoms | Circle | Transform] = [
            self.dequantiser,
            self.support,
            self.atoms,
            self.circle,
            *self._transforms(),
        ]
        for part in parts:
            if part.columns != self.columns:
                raise ConfigurationError(
                    f"the {type(part).__name__} of the columns {', '.join(part.columns)} cannot encode "
                    f"{', '.join(self.columns)}"
                )

    @property
    def has_places(self) -> bool:
        """Whether rows of the table have no density of their own, but only at places in their cells."""
        return bool(self.dequantiser) or bool(self.atoms)

    def fit(self, x: Tensor, tell: Tell = silent, weights: Tensor | None = None) -> Tensor:
        """Fit the transforms to training rows `x: (n, d)` at places in their cells, on the line, with atoms.

        Returns the rows in model space, `(n, d)`, with other rows' values in place of atoms. Each transform
        is fitted to the output of the one before. `tell` gets a sentence about each transform. A row of
        weight 2 in `weights: (n,)` counts as two rows. Raises `DataError` if the rows do not determine one,
        or lie outside the support.
        """
        self._check(x)
        if self.atoms:
            x = self.atoms.fit(x, weights)
        self.check_support(x)
        self.support.fit(x, weights)
        x, _ = self.circle.to_line(x)
        x, _ = self.support.to_line(x)
        for transform in self._transforms():
            tell(f"fitting the transform {transform.options.name}")
            transform.fit(x, weights)
            x = _in_blocks(transform, x)
        return x

    def dequantise(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Rows of the table `x: (n, d)`, each at a random place in its cell, but for atoms, which stay."""
        self._check(x)
        return self._keep_atoms(x, self.circle.wrap(self.dequantiser.jitter(x, generator)))

    def unroll(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Rows `x: (n, d)` at places, but for atoms, at random copies on the line (`Circle.unroll`)."""
        if not self.circle:
            return x
        return self._keep_atoms(x, self.circle.unroll(x, generator, self.absent(x)))

    def jitter(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Rows of the table `x: (n, d)`, each at a random place in its cell, with random stand-ins."""
        placed = self.dequantise(x, generator)
        return self.fill(placed, generator) if self.atoms else placed

    def fill(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Rows `x: (n, d)` at places, but for atoms, with random stand-ins for these."""
        return self._fill(x, x, torch.from_numpy(generator.standard_normal(x.shape)))

    def spread(self, x: Tensor, draw: int, draws: int = 2) -> Tensor:
        """Rows of the table `x: (n, d)` at place number `draw` of `draws` in their cells.

        The places depend on the row alone (`Dequantiser.spread`), and so do stand-ins (`Atoms.spread`).
        """
        self._check(x)
        x = self.wrap(x)
        placed = self.circle.wrap(self.dequantiser.spread(x, draw, draws))
        return self._fill(x, placed, self.atoms.spread(x, draw)) if self.atoms else placed

    def wrap(self, x: Tensor) -> Tensor:
        """Rows of the table `x: (n, d)` with the values of periodic columns within their period.

        Those of dequantised columns are then in the middle of their cells. Atoms stay as they are.
        """
        if not self.circle:
            return x
        middles = self.circle.settle(self.dequantiser.restore(self.circle.wrap(x)), self.dequantiser.steps)
        return self._keep_atoms(x, torch.where(self.circle.is_periodic, middles, x))

    def absent(self, x: Tensor) -> Tensor:
        """Which cells of rows of the table `x: (n, d)` hold an atom: `(n, d)`."""
        return self.atoms.absent(self.atoms.states(x))

    def log_stand_in(self, x: Tensor, absent: Tensor) -> Tensor:
        """The log-density `(n,)`, nats, data units, of the stand-ins in rows `x: (n, d)` at places.

        `absent: (n, d)` are the cells with a stand-in.
        """
        z, log_slope = self.to_model_by_column(x)
        each = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) + log_slope
        return torch.where(absent, each, 0.0).sum(1)

    def _keep_atoms(self, x: Tensor, moved: Tensor) -> Tensor:
        """Rows `moved: (n, d)` with the atoms of `x: (n, d)`, and no others."""
        if not self.atoms:
            return moved
        absent = self.absent(x)
        if self.circle:
            # 360 is moved to 0, which may be an atom where 360 is none.
            hits = self.absent(moved) & ~absent & self.circle.is_periodic
            moved = torch.where(hits, torch.nextafter(moved, torch.full_like(moved, math.inf)), moved)
        return torch.where(absent, x, moved)

    def _fill(self, x: Tensor, placed: Tensor, normal: Tensor) -> Tensor:
        """Rows `placed: (n, d)` with stand-ins, `normal: (n, d)` in model space, for the atoms of `x`."""
        return torch.where(self.absent(x), self.to_data(normal)[0], placed)

    def restore(self, x: Tensor) -> Tensor:
        """Rows of the table from drawn rows `x: (n, d)` at places in their cells, but for atoms."""
        self._check(x)
        # The ends of a support lie a little outside the outermost cells.
        steps = self.dequantiser.steps
        inside = x.maximum(self.support.low + 2 * ROOM * steps).minimum(self.support.high - 2 * ROOM * steps)
        inside = torch.where(steps.isnan(), x, inside)
        restored = self.dequantiser.restore(inside)
        if self.atoms:
            # The cell of an atom holds nothing else, so that another draw there belongs to the next cell.
            side = torch.where(inside < restored, -1.0, 1.0)
            is_atom = self.absent(restored) & ~steps.isnan()
            restored = torch.where(is_atom, restored + side * steps, restored)
        return self.circle.settle(restored, steps)

    def to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `x: (n, d)` at places to `z: (n, d)` in model space, and log|det dz/dx|: `(n,)`, nats.

        The latter is -inf for a row outside the support, which goes to some place in model space.
        """
        z, log_slope = self.to_model_by_column(x)
        return z, log_slope.sum(1)

    def to_model_by_column(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `to_model`, but with log(dz/dx) of each cell: `(n, d)`, nats."""
        self._check(x)
        x, of_circle = self.circle.to_line(x)
        x, log_slope = self.support.to_line(x)
        log_slope = log_slope + of_circle
        for transform in self._transforms():
            x, part = transform.to_model(x)
            log_slope = log_slope + part
        return x, log_slope

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `to_model` for `z: (n, d)`: rows `x: (n, d)` at places, and log|det dx/dz|: `(n,)`, nats."""
        self._check(z)
        z = z.double()
        log_slope = torch.zeros_like(z)
        for transform in reversed(self._transforms()):
            z, part = transform.to_data(z)
            log_slope = log_slope + part
        x, part = self.support.to_rows(z)
        x, of_circle = self.circle.to_rows(x)
        return x, (log_slope + part + of_circle).sum(1)

    def whole_box(self, box: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """A `box`, low and high of each of the d columns, enlarged to whole cells and cut at the ends."""
        on_circle = self.circle.is_periodic
        lowest = torch.where(on_circle, self.circle.low, self.support.low)
        highest = torch.where(on_circle, self.circle.high, self.support.high)
        ends = zip(lowest.tolist(), highest.tolist(), strict=True)
        whole = zip(self.dequantiser.whole_cells(box), ends, strict=True)
        return tuple((max(low, least), min(high, most)) for (low, high), (least, most) in whole)

    def check_support(self, x: Tensor) -> None:
        """Raise `DataError`, which names the first value, if rows `x: (n, d)` lie outside the support."""
        outside = ~self.support.holds(x)
        if bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            name, count = self.columns[column], int(outside[:, column].sum())
            raise DataError(
                f"column `{name}` holds {float(x[row, column]):g}, which is not "
                f"{self.support.supports[name].in_words}, as its support says; nor are {count:,} of "
                f"{len(x):,} rows"
            )

    def _transforms(self) -> list[Transform]:
        return list(self.transforms)  # type: ignore[arg-type]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise ConfigurationError(
                f"rows must have shape (n, {len(self.columns)}), for the columns {', '.join(self.columns)}; "
                f"got {tuple(x.shape)}"
            )


def _in_blocks(transform: Transform, x: Tensor) -> Tensor:
    """`transform.to_model(x)`, a block of rows at a time: it takes twenty times the memory of its rows.

    The layout is the same too, since the last digits of later sums depend on it.
    """
    first = transform.to_model(x[:BLOCK])[0]
    if len(x) <= BLOCK:
        return first
    by_columns = first.stride(0) < first.stride(1)
    moved = x.new_empty(x.shape[::-1]).T if by_columns else x.new_empty(x.shape)
    moved[:BLOCK] = first
    for start in range(BLOCK, len(x), BLOCK):
        moved[start : start + BLOCK] = transform.to_model(x[start : start + BLOCK])[0]
    return moved
