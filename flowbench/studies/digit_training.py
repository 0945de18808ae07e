"""Trains a classifier of images by stochastic gradient descent, and goes on after a kill."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from flowbench.errors import DamagedFileError
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.studies.digit_networks import dynamics_of
from flowbench.studies.study import Floats, Tell
from flowbench.training.state import copy_tensors, from_arrays, to_arrays

#: Steps between two saves, and images that are classified at once.
SAVE_EVERY, AT_ONCE = 50, 250
MOMENTUM = 0.9
#: The share of all steps in which the rate of a schedule without milestones rises.
WARM_UP = 0.2
#: Columns of a curve.
EPOCH, CPU_SECONDS, LOSS, VALIDATION_ERROR, NFE_FORWARD, NFE_BACKWARD = range(6)


@dataclass(frozen=True)
class Images:
    """Grey values from 0 to 1, `values: (n, 1, side, side)`, and the class of each image, `labels: (n,)`."""

    values: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with momentum 0.9, in batches; what is left of an epoch is dropped.

    The learning rate falls to a tenth at each epoch of `milestones`. Without any it rises linearly for a
    fifth of the steps, and falls to zero along a cosine. An image is moved by up to `shift` pixels along each
    axis, at random.
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    milestones: tuple[int, ...] = ()
    shift: int = 0

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The rate of the step with this number, from 0."""
        if self.milestones:
            return self.rate * 0.1 ** sum(step >= each * steps_per_epoch for each in self.milestones)
        spent = (step + 1) / (self.epochs * steps_per_epoch + 1)
        if spent < WARM_UP:
            return self.rate * spent / WARM_UP
        return self.rate * 0.5 * (1 + math.cos(math.pi * (spent - WARM_UP) / (1 - WARM_UP)))


@dataclass
class _Progress:
    """Where training stands: `sums` are those of the epoch's losses and evaluations, in that order."""

    step: int = 0
    cpu_seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    best: float = math.inf
    curve: list[list[float]] = field(default_factory=list)


def train(
    network: nn.Module,
    parts: tuple[Images, Images],
    recipe: Recipe,
    seed: int,
    tell: Tell,
    scrap: Path | None = None,
) -> Floats:
    """Train on the first of `parts`, and leave the weights of the epoch that did best on the second.

    Returns a row for each epoch: its number, CPU seconds of the steps so far, mean loss, error on the second
    part, and evaluations of the network's ODE a step, forward and backward. Of equal epochs the first counts.

    If `scrap` is given, the state is saved there now and then, and training goes on from it. The order of an
    epoch, and the shifts of a step, follow from the seed and their numbers alone, so the weights are those of
    training in one go. Raises `DamagedFileError` if the file is of other settings.
    """
    images, validation = parts
    steps = len(images.labels) // recipe.batch
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.rate, momentum=MOMENTUM)
    settings = json.dumps({"recipe": asdict(recipe), "seed": seed, "images": len(images.labels)})
    best = copy_tensors(network.state_dict())
    progress = _Progress()
    if scrap is not None and scrap.exists():
        progress, best = _read(scrap, network, optimizer, settings)
    dynamics = dynamics_of(network)
    while progress.step < recipe.epochs * steps:
        epoch, batch = divmod(progress.step, steps)
        began = time.process_time()
        order = np.random.default_rng((seed, epoch)).permutation(len(images.labels))
        taken = torch.from_numpy(order[batch * recipe.batch : (batch + 1) * recipe.batch])
        x = _shifted(images.values[taken], recipe.shift, np.random.default_rng((seed, epoch, batch)))
        optimizer.param_groups[0]["lr"] = recipe.learning_rate(progress.step, steps)
        optimizer.zero_grad()
        before = dynamics.evaluations if dynamics else 0
        loss = cross_entropy(network(x), images.labels[taken])
        between = dynamics.evaluations if dynamics else 0
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after = dynamics.evaluations if dynamics else 0
        found = (loss.item(), between - before, after - between)
        progress.sums = [total + each for total, each in zip(progress.sums, found, strict=True)]
        progress.cpu_seconds += time.process_time() - began
        progress.step += 1
        if batch + 1 == steps:
            error = float(mistakes(network, validation).mean())
            loss_mean, forward, backward = (each / steps for each in progress.sums)
            progress.curve.append([epoch + 1, progress.cpu_seconds, loss_mean, error, forward, backward])
            progress.sums = [0.0, 0.0, 0.0]
            if error < progress.best:
                progress.best, best = error, copy_tensors(network.state_dict())
        if scrap is not None and (progress.step % SAVE_EVERY == 0 or batch + 1 == steps):
            _write(scrap, network, optimizer, best, progress, settings)
        told = (
            f", validation error {100 * progress.curve[-1][VALIDATION_ERROR]:.2f}%" if progress.curve else ""
        )
        tell(f"epoch {epoch + 1} of {recipe.epochs}, step {batch + 1} of {steps}{told}")
    network.load_state_dict(best)
    return np.array(progress.curve)


def mistakes(network: nn.Module, images: Images) -> Floats:
    """1 for each image of which the network gets the class wrong, otherwise 0; `(n,)`."""
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in torch.split(images.values, AT_ONCE)])
    return (found != images.labels).double().numpy()


def _shifted(x: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """`x: (n, 1, h, w)`, each image moved by up to `most` pixels along each axis, with zeros behind it."""
    if not most:
        return x
    height, width = x.shape[2:]
    corners = torch.from_numpy(rng.integers(2 * most + 1, size=(len(x), 2)))
    rows = (corners[:, :1] + torch.arange(height))[:, :, None]
    columns = (corners[:, 1:] + torch.arange(width))[:, None, :]
    return pad(x, (most,) * 4)[torch.arange(len(x))[:, None, None], 0, rows, columns][:, None]


def _write(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.SGD,
    best: Mapping[str, Tensor],
    progress: _Progress,
    settings: str,
) -> None:
    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"] for name, parameter in network.named_parameters()
    }
    groups = {"weights": network.state_dict(), "momentum": momentum, "best": best}
    arrays = {
        f"{group}/{name}": array for group, part in groups.items() for name, array in to_arrays(part).items()
    }
    write_tensors(path, arrays, {"progress": json.dumps(asdict(progress)), "settings": settings})


def _read(
    path: Path, network: nn.Module, optimizer: torch.optim.SGD, settings: str
) -> tuple[_Progress, dict[str, Tensor]]:
    """Put back what `_write` saved; returns the progress and the best weights."""
    arrays, metadata = read_tensors(path)
    if metadata.get("settings") != settings:
        raise DamagedFileError(f"{path} is of training with other settings; remove it to start afresh")
    groups: dict[str, dict[str, Any]] = {"weights": {}, "momentum": {}, "best": {}}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = array
    network.load_state_dict(from_arrays(groups["weights"]))
    momentum = from_arrays(groups["momentum"])
    for name, parameter in network.named_parameters():
        optimizer.state[parameter]["momentum_buffer"] = momentum[name]
    return _Progress(**json.loads(metadata["progress"])), from_arrays(groups["best"])
