"""How far the matrix products of a training step may be rounded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Let products of float32 matrices be as inexact as `precision` says; the setting is the process's."""
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision = precision
    # CUDA rounds its operands to 19 bits for either.
    cuda.fp32_precision = "ieee" if precision == "ieee" else "tf32"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = before
