"""The state of a training run as named tensors and plain values, to be saved and resumed bit for bit."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.errors import DamagedFileError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Counters:
    """Where a run stands: plain numbers that are saved with it.

    `rows` is the sum of all batch sizes. `phase_step` counts the steps of the phase that did not fail, `step`
    all steps of the run. `rate_scale` halves with each of the `rollbacks`, and is 1 again in a new phase.
    `nll` and `best_nll` are those of the last and of the best validation, nats, data units; infinite where
    there is none.

    Times are seconds on the run's clock, which starts before the first step where something is fitted then.
    The first step began at `began_at`, and the last validation ended at `validated_at`. `held_back` is kept
    for the choice of the weights at the end. `improved_at` is the share of the budget that was spent at the
    last progress, or at the beginning of the phase.
    """

    step: int = 0
    rows: int = 0
    phase: int = 0
    phase_step: int = 0
    improved_at: float = 0.0
    rollbacks: int = 0
    rate_scale: float = 1.0
    nll: float = math.inf
    best_nll: float = math.inf
    began_at: float = 0.0
    held_back: float = 0.0
    validated_at: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class TrainingState:
    """Weights, their average, the best average, the optimiser, the random state and the counters."""

    flow: Tensors
    ema: Tensors
    best: Tensors
    optimizer: Tensors
    generator: Tensor
    counters: Counters

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """Named arrays and text, as a safetensors file holds them."""
        groups = {"flow": self.flow, "ema": self.ema, "best": self.best, "optimizer": self.optimizer}
        arrays = {
            f"{group}/{name}": array
            for group, part in groups.items()
            for name, array in to_arrays(part).items()
        }
        arrays["generator"] = self.generator.numpy()
        return arrays, {"counters": json.dumps(dataclasses.asdict(self.counters))}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Self:
        """Undo `pack`; raises `DamagedFileError` if something is missing."""

        def group(prefix: str) -> Tensors:
            return from_arrays({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})

        try:
            counters = Counters(**json.loads(metadata["counters"]))
            generator = torch.from_numpy(np.array(arrays["generator"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"the saved training state is incomplete ({error}); start the run afresh"
            ) from None
        return cls(group("flow/"), group("ema/"), group("best/"), group("optimizer/"), generator, counters)


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as numpy arrays on the CPU."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Tensors:
    """Numpy arrays as tensors that own their memory."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def copy_tensors(tensors: Mapping[str, Tensor]) -> Tensors:
    """Detached copies."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
