"""How the learning rate and the smoothing change over a phase."""

import math

from flowbench.training.plan import Phase


def learning_rate(phase: Phase, step: int, fraction: float) -> float:
    """The learning rate of a phase at its own `step`, when `fraction` of its budget is spent.

    It warms up linearly, and falls to zero along a cosine over the last `phase.decline` of the phase.
    """
    warmup = min(1.0, (step + 1) / (phase.warmup_steps + 1))
    left = min(1.0, (1 - fraction) / phase.decline) if phase.decline else 1.0
    decay = (1 - math.cos(math.pi * left)) / 2
    return phase.learning_rate * warmup * decay


def smoothing_width(phase: Phase, fraction: float) -> float:
    """The width of the noise around train rows, which falls evenly to zero over the phase."""
    return phase.smoothing * (1 - fraction)
