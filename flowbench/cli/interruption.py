"""Ctrl-C and SIGTERM: the first asks a fit to stop, the second interrupts it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from flowbench.cli import terminal


class StopRequest:
    """A request to stop, which a fit asks for between steps by calling the object.

    The first Ctrl-C or SIGTERM while a fit trains sets it. A second one, or one at another time, raises
    `KeyboardInterrupt`.
    """

    def __init__(self) -> None:
        self.asked = False
        #: Whether a fit is training, and so asks for the request.
        self.training = False
        #: The message of an interruption.
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
    """Yield a request to stop, which SIGINT and SIGTERM set inside the block."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
