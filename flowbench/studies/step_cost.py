"""What a call costs: CPU seconds, and the bytes that backpropagation keeps meanwhile."""

import time
import weakref
from collections.abc import Callable, Iterable
from statistics import median

import torch
from torch import Tensor


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """The median of the process's CPU seconds over `repeats` calls, after one that does not count."""
    call()
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return median(spent)


def peak_saved_bytes(step: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
    """The most bytes that autograd keeps for backpropagation at once, during a `step` forward and backward.

    Memory that several saved tensors share counts once. That of the tensors `besides`, such as parameters and
    inputs, does not count.
    """
    free = {each.untyped_storage().data_ptr() for each in besides}
    holders: dict[int, int] = {}
    kept = peak = 0

    def release(place: int, size: int) -> None:
        nonlocal kept
        holders[place] -= 1
        if not holders[place]:
            del holders[place]
            kept -= size

    def pack(tensor: Tensor) -> "_Held":
        nonlocal kept, peak
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        held = _Held(tensor)
        if place not in free:
            if place not in holders:
                holders[place] = 0
                kept += size
                peak = max(peak, kept)
            holders[place] += 1
            weakref.finalize(held, release, place, size)
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        step()
    return peak


class _Held:
    """A saved tensor, whose end can be noticed; without its graph, which would keep it alive."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
