"""To which precision the matrix products of a training step are rounded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Round products of float32 matrices to `precision` within the block.

    The setting is the whole process's, and is put back at the end.
    """
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision = precision
    # CUDA rounds its operands to 19 bits for either.
    cuda.fp32_precision = "ieee" if precision == "ieee" else "tf32"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = before
