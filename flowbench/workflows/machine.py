"""The machine that a run works on: its CPU threads, and its device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flowbench.errors import ConfigurationError


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Let torch work with `number` CPU threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_there(device: str) -> bool:
    """Whether this machine has the `device`, such as "cpu" or "cuda:0"."""
    return device == "cpu" or (torch.device(device).index or 0) < torch.cuda.device_count()


def check_device(device: str) -> None:
    """Raise `ConfigurationError` if this machine does not have the `device`."""
    if not is_there(device):
        raise ConfigurationError(
            f"device `{device}` is not there; fit with `--device cpu`, or resume where there is one"
        )
