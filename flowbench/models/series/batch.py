"""A batch of series in model space, padded to one length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flowbench.errors import ConfigurationError


@dataclass(frozen=True)
class SeriesBatch:
    """n series in model space, as tensors of the length L of the longest.

    `times: (n, L)` do not decrease; those of observations increase. `values: (n, L, d)` are 0 where
    `observed: (n, L, d)`, bool, is false: where a cell is missing, or beyond the end of a series. `lengths:
    (n,)`, int64, are the numbers of observations, one at least. The times beyond the end repeat the last one.
    """

    times: Tensor
    values: Tensor
    observed: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.values.shape != self.observed.shape or self.values.shape[:2] != self.times.shape:
            raise ConfigurationError(
                f"times {tuple(self.times.shape)}, values {tuple(self.values.shape)} and observed cells "
                f"{tuple(self.observed.shape)} are not of one batch of series"
            )

    @classmethod
    def of(cls, series: Sequence[tuple[Tensor, Tensor]]) -> Self:
        """Series, each as its times `(m,)` and values `(m, d)`, NaN where a cell is missing."""
        lengths = torch.tensor([len(times) for times, _ in series])
        if not len(series) or bool((lengths < 1).any()):
            raise ConfigurationError("a batch needs a series, and every series an observation")
        first = series[0][1]
        n, longest = len(series), int(lengths.max())
        times = first.new_zeros(n, longest)
        values = first.new_full((n, longest, first.shape[1]), torch.nan)
        for row, (own, cells) in enumerate(series):
            times[row, : len(own)] = own
            times[row, len(own) :] = own[-1]
            values[row, : len(own)] = cells
        observed = ~values.isnan()
        return cls(times, values.nan_to_num(0.0), observed, lengths)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the series, no longer than they need to be."""
        lengths = self.lengths[index]
        longest = int(lengths.max()) if len(lengths) else 1
        return type(self)(
            self.times[index][:, :longest],
            self.values[index][:, :longest],
            self.observed[index][:, :longest],
            lengths,
        )

    def split(self, size: int) -> list[Self]:
        """The same series in consecutive parts of `size`; the last may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The series after a `change` of times and values, such as of their dtype."""
        return type(self)(change(self.times), change(self.values), self.observed, self.lengths)

    def to(self, device: torch.device | str) -> Self:
        """The same series on `device`."""
        parts = (self.times, self.values, self.observed, self.lengths)
        return type(self)(*(part.to(device) for part in parts))

    @property
    def features(self) -> int:
        """The number d of columns."""
        return self.values.shape[2]

    @property
    def present(self) -> Tensor:
        """Which places hold an observation: `(n, L)`, bool."""
        return torch.arange(self.times.shape[1], device=self.times.device) < self.lengths[:, None]

    @property
    def cells(self) -> Tensor:
        """The number of cells of each series that are not missing: `(n,)`."""
        return self.observed.sum((1, 2))

    def up_to(self, lengths: Tensor) -> Self:
        """The first `lengths: (n,)` observations of each series, one at least."""
        return self.only(torch.arange(self.times.shape[1], device=self.times.device) < lengths[:, None])

    def only(self, kept: Tensor) -> Self:
        """The observations at the places `kept: (n, L)`, bool, of each series, one at least."""
        kept = kept & self.present
        lengths = kept.sum(1)
        # Those that are kept come first, in their order.
        order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(lengths.max())]
        kept = kept.gather(1, order)
        times = self.times.gather(1, order)
        times = torch.where(kept, times, times.gather(1, lengths[:, None] - 1))
        cells = order[..., None].expand(-1, -1, self.features)
        observed = self.observed.gather(1, cells) & kept[..., None]
        return type(self)(times, self.values.gather(1, cells) * kept[..., None], observed, lengths)

    def part(self, share: float, within: float, generator: torch.Generator) -> Self:
        """A random `share` of the observations among the first `within`, itself a share, of each series.

        Numbers are rounded, and one at least.
        """
        early = (within * self.lengths).round().clamp(min=1)
        lengths = (share * early).round().clamp(min=1)
        is_late = torch.arange(self.times.shape[1], device=self.times.device) >= early[:, None]
        place = torch.rand(self.times.shape, generator=generator, device=generator.device)
        rank = place.to(self.times.device).masked_fill(is_late, 2).argsort(1).argsort(1)
        return self.only(rank < lengths[:, None])


def union_of_times(times: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
    """The distinct times `(U,)`, increasing, at the places `present: (n, L)` of `times: (n, L)`.

    Also returns the index `(n, L)` of each time among them; places that are not present get the index 0. None
    stands for the same L times in every row.
    """
    first = times[0]
    if bool((times == first).all() and present.all() and (first.diff() > 0).all()):
        return first, None
    union, index = torch.unique(times[present], return_inverse=True)
    places = torch.zeros(times.shape, dtype=torch.int64, device=times.device)
    places[present] = index
    return union, places
