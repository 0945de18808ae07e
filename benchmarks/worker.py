"""One contender in a process of its own: built once, measured whenever a line arrives.

Started as `python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS`, also by the interpreter of another
environment, so it needs no more than numpy.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """What a contender computed (`arrays`, by which its accuracy is judged) and what it says of the work."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


Contender = Callable[[], Answer]


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(contender: Contender, keep: str) -> dict[str, Any]:
    """Run the contender once; its arrays go to the file `keep`, where one is named."""
    began = time.process_time()
    answer = contender()
    seconds = time.process_time() - began
    if keep:
        np.savez(keep, **answer.arrays)  # type: ignore[arg-type]
    return {"cpu_seconds": seconds, "peak_bytes": peak_bytes(), "figures": answer.figures}


def serve(target: str, arguments: dict[str, Any]) -> None:
    """Build the contender, then answer each line of standard input with a line of JSON."""
    # Libraries print; only answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    contender: Contender = getattr(import_module(module), name)(**arguments)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        try:
            reply = measure(contender, json.loads(line)["keep"])
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
