"""Hashes of rows: the same row has the same hash, in every table."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_rows(rows: Floats) -> Hashes:
    """A hash `(n, 1)` of each row `(n, d)`."""
    bits: Hashes = np.ascontiguousarray(rows).view(np.uint64)
    column: Hashes = np.arange(1, rows.shape[1] + 1, dtype=np.uint64)
    return np.asarray(np.bitwise_xor.reduce(_mixed(bits + column * _GOLDEN), axis=1, keepdims=True))


def uniform_of_hashes(hashes: Hashes, number: int, count: int) -> Floats:
    """The `number`-th set of `count` pseudorandom numbers in [0, 1) from `hashes: (n, 1)`: `(n, count)`."""
    place: Hashes = np.arange(number * count, (number + 1) * count, dtype=np.uint64)
    mixed = _mixed(hashes + place * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
