"""A change of the time variable, so that solvers can take longer steps."""

import math
from typing import NamedTuple

from torch import Tensor


class Clock(NamedTuple):
    """A change of time between the solver's time tau and the flow's time t; both run from 0 to 1.

    1 - t = u (pace + (1 - pace) u) with u = 1 - tau. So dt / dtau is `pace` at the data, t = 1, and 2 -
    `pace` at the base, t = 0. With `pace` = 1, t = tau. With a smaller `pace` the solver spends more of its
    time close to the data. Fields that resolve finer detail as the noise fades, in step with log(1 - t), are
    smoother in tau.
    """

    pace: float = 1.0

    def at(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """t and dt / dtau at `tau`, of any shape."""
        u, rest = 1 - tau, 1 - self.pace
        return 1 - u * (self.pace + rest * u), self.pace + 2 * rest * u

    def reads(self, t: float) -> float:
        """tau at the time `t`, which may lie somewhat below 0."""
        rest = 1 - self.pace
        # The root without cancellation, exact at both ends.
        left = 1 - t
        return 1 - 2 * left / (self.pace + math.sqrt(self.pace**2 + 4 * rest * left))


EVEN = Clock()
