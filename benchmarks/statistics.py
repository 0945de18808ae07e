"""Ratios of paired times, with intervals, and errors of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowbench.statistics.paired import PairedDifference, estimate_mean


@dataclass(frozen=True)
class Interval:
    """A value between its bounds."""

    middle: float
    low: float
    high: float


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Median and quartiles of the ratios of times that were measured in the same rounds."""
    ratios = np.asarray(numerators, float) / np.asarray(denominators, float)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return Interval(float(middle), float(low), float(high))


def relative_error(value: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """|value - reference| / |reference| over all arrays together, matched by name."""
    difference = np.concatenate([(value[name] - reference[name]).ravel() for name in reference])
    whole = np.concatenate([value.ravel() for value in reference.values()])
    return float(np.linalg.norm(difference) / np.linalg.norm(whole))


def mean_text(values: NDArray[np.float64], digits: int = 3) -> str:
    """The mean of the values `(n,)` ± its standard error, which is left out if it is not known."""
    estimate = estimate_mean(values)
    error = estimate.standard_error
    return f"{estimate.mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def verdict(found: PairedDifference) -> str:
    """Whether a paired lead is resolved by its 95% t interval: ahead, behind or level."""
    return "level" if found.low <= 0 <= found.high else "ahead" if found.mean > 0 else "behind"
