"""The memory of a computation: bytes that autograd keeps, and the peak of a process of its own."""

import ctypes
import multiprocessing
import resource
import signal
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from flowbench.errors import RunFailedError

#: glibc's number for the size from which memory is taken from the system, and such sizes in bytes.
M_MMAP_THRESHOLD = -3
PAGED, POOLED = 2**16, 2**25

T = TypeVar("T")


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps for backward passes, while it is entered.

    `now` are kept at present, and `peak` were at most. Tensors that share memory count once, and those of
    `parameters` not at all. Steps that a checkpoint computes again are not seen.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        super().__init__(self._pack, _unpack)
        self.now = self.peak = 0
        self._parameters = {each.untyped_storage().data_ptr() for each in parameters}
        self._users: Counter[int] = Counter()

    def _pack(self, tensor: Tensor) -> "_Kept":
        # Detached, since an output that is kept would keep its own graph alive.
        kept = _Kept(tensor.detach())
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._parameters:
            if not self._users[place]:
                self.now += size
                self.peak = max(self.peak, self.now)
            self._users[place] += 1
            weakref.finalize(kept, self._drop, place, size)
        return kept

    def _drop(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self.now -= size


class _Kept:
    """A tensor that autograd keeps; it goes when the graph does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _unpack(kept: _Kept) -> Tensor:
    return kept.tensor


def resident_bytes() -> int:
    """The resident memory of this process; raises `RunFailedError` where the system has no /proc."""
    try:
        _, pages, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError as error:
        raise RunFailedError("the memory of a process is read from /proc, which is not there") from error
    return int(pages) * resource.getpagesize()


def peak_bytes() -> int:
    """The largest resident memory of this process so far, as Linux counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back_freed(wanted: bool) -> None:
    """Let glibc's malloc return a freed tensor's memory at once, or keep it for the next one.

    What it keeps depends on the order of all requests. The peak of a process then says little of what the
    computation needs. Other C libraries are left as they are.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, PAGED if wanted else POOLED)


def in_process_of_its_own(function: Callable[..., T], *arguments: object, imports: Sequence[str] = ()) -> T:
    """What a function of a module returns for `arguments`, called in a process that did nothing before.

    The process is forked from a server, which has only imported the modules `imports`. It goes on to the end
    when the user interrupts. Raises `RunFailedError` if it dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    deaf = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, mp_context=context, initializer=signal.signal, initargs=deaf) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RunFailedError(
                "a process that measures memory died; there may be too little memory. A script that calls "
                "`reproduce` has to do so below `if __name__ == '__main__':`"
            ) from error
