"""The rows that a fit learns from and is judged by."""

import torch
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.rows import Rows
from flowbench.training.smoothing import SmoothedBootstrap


class TrainingRows:
    """What a fit has of a table: rows to learn from, and held-out rows that choose among weights.

    `validation` rows judge the weights throughout. `reserve` rows choose between the best and the last
    weights at the end; None, or no rows, where there are too few. `smoother` draws around the train rows in
    phases with `smoothing`; without one they are taken as they are. `stand_ins: (n, d)` marks cells of the
    train rows that hold a standard normal number in place of an atom: each batch gets new ones.

    Raises `ConfigurationError` if there are no rows to train on or to validate on, or if the parts differ in
    their columns.
    """

    noun = "rows"

    def __init__(
        self,
        train: Rows,
        validation: Rows,
        reserve: Rows | None = None,
        smoother: SmoothedBootstrap | None = None,
        stand_ins: Tensor | None = None,
    ) -> None:
        self.train = train
        self.validation = validation
        self.reserve = reserve if reserve is not None and len(reserve) else None
        self.smoother = smoother
        self.stand_ins = stand_ins
        #: The sums of the weights up to each train row, `(n,)`; None where all rows count alike.
        self._below = None if train.weights is None else train.weights.double().cumsum(0)
        for name, part in (("train", train), ("validation", validation)):
            if not len(part):
                raise ConfigurationError(f"there are no {name} rows; a fit needs one at least")
        held_out = {"validation": self.validation, "reserve": self.reserve}
        for name, other in held_out.items():
            if other is not None and _widths(other) != _widths(train):
                raise ConfigurationError(
                    f"train and {name} rows must have the same columns; got {_described(train)} and "
                    f"{_described(other)}"
                )

    def draw(self, n: int, width: float, generator: torch.Generator) -> Rows:
        """`n` train rows, drawn with replacement, each with its own context.

        With a smoother and a `width` above zero, they are draws around these rows, with the same contexts. A
        row is drawn with a probability in proportion to its weight. So the mean loss of a batch has the
        weighted mean as its expectation, whatever the objective, and drawn rows count alike.
        """
        device = self.train.x.device
        if self._below is None:
            chosen = torch.randint(len(self.train), (n,), generator=generator, device=device)
        else:
            place = torch.rand(n, generator=generator, device=device, dtype=self._below.dtype)
            chosen = torch.searchsorted(self._below, place * self._below[-1], right=True)
            chosen = chosen.clamp(max=len(self.train) - 1)
        if self.smoother is None or not width:
            rows = self.train[chosen].unweighted
        else:
            rows = self.smoother.draw(chosen, width, generator).unweighted
        if self.stand_ins is None:
            return rows
        normal = torch.randn(rows.x.shape, generator=generator, device=device, dtype=rows.x.dtype)
        return rows.at(torch.where(self.stand_ins[chosen], normal, rows.x))


def _widths(rows: Rows) -> tuple[int, int | None]:
    return rows.x.shape[1], None if rows.context is None else rows.context.shape[1]


def _described(rows: Rows) -> str:
    columns, givens = _widths(rows)
    return f"{columns} columns " + ("and no context" if givens is None else f"and {givens} of context")
