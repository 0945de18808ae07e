"""Ctrl-C and SIGTERM: a request to a fit to stop, or an interruption at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from flowbench.cli import terminal


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM while a fit trains; a second, or one at other times, interrupts."""

    def __init__(self) -> None:
        self.asked = False
        #: Whether there is a fit that hears the request.
        self.training = False
        #: What to say when interrupting.
        self.farewell = ""

    def __call__(self) -> bool:
        return self.asked

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        at_once = self.asked or not self.training
        self.asked = True
        text = "stopping after this step, keeping the best so far; press Ctrl-C again to stop at once"
        with suppress(RuntimeError):  # the signal came in the middle of another message
            terminal.say(self.farewell if at_once else text)
        if at_once:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a request to stop, if it can be heard."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
