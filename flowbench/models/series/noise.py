"""Where models of series get their random numbers from."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor


class Noise(ABC):
    """Standard normal numbers for a batch of n series."""

    @abstractmethod
    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `(n, *shape)`."""


class BatchNoise(Noise):
    """Numbers of one generator for all series of a batch, of the dtype and device of `like`; for training."""

    def __init__(self, n: int, generator: torch.Generator, like: Tensor) -> None:
        self._n = n
        self._generator = generator
        self._like = like

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `(n, *shape)`."""
        drawn = torch.randn(
            self._n, *shape, generator=self._generator, dtype=self._like.dtype, device=self._generator.device
        )
        return drawn.to(self._like.device)


class SeriesNoise(Noise):
    """Numbers of a generator of its own for each series, so that they do not depend on the others.

    `keys` are integers, one for each series, such as hashes of what it holds; `seed` chooses among draws.
    """

    def __init__(self, keys: "np.typing.NDArray[np.uint64]", seed: int, like: Tensor) -> None:
        self._generators = [np.random.Generator(np.random.Philox([seed, int(key)])) for key in keys]
        self._like = like

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `(n, *shape)`."""
        drawn = np.stack([each.standard_normal(shape) for each in self._generators])
        return torch.from_numpy(drawn).to(self._like)
