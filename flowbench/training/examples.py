"""What a training loop needs of the examples that a model learns from."""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import torch


class Examples(Protocol):
    """A number of examples, such as rows or series, that are scored one by one or together."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def split(self, size: int) -> Sequence[Self]:
        """The same examples in consecutive parts of `size`; the last may be smaller."""
        ...


ExamplesT = TypeVar("ExamplesT", bound=Examples)


ExamplesT_co = TypeVar("ExamplesT_co", bound=Examples, covariant=True)


class TrainingSet(Protocol[ExamplesT_co]):
    """Examples to learn from, and held-out ones that choose among weights.

    `validation` examples judge the weights throughout. `reserve` examples choose between the best and the
    last weights at the end; None where there are too few.
    """

    #: What several of the examples are called.
    noun: str

    @property
    def validation(self) -> ExamplesT_co: ...

    @property
    def reserve(self) -> ExamplesT_co | None: ...

    def draw(self, n: int, width: float, generator: torch.Generator) -> ExamplesT_co:
        """`n` examples to learn from, drawn with replacement, or with noise of this `width` around them."""
        ...
