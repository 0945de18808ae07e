"""How long something took."""

import time


class Stopwatch:
    """Wall and CPU seconds since it was made, counted on from those of an earlier part of the same run."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self._wall = time.monotonic() - wall
        self._cpu = time.process_time() - cpu

    def wall(self) -> float:
        """Wall seconds."""
        return time.monotonic() - self._wall

    def cpu(self) -> float:
        """CPU seconds of the process."""
        return time.process_time() - self._cpu


class CpuStopwatch(Stopwatch):
    """A stopwatch by which a budget in seconds is one of CPU seconds."""

    def wall(self) -> float:
        """CPU seconds of the process."""
        return self.cpu()
