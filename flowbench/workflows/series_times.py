"""The times that users ask for: numbers or dates, one by one or as a range."""

import re
from typing import Any

import numpy as np

from flowbench.data.series_dataset import Floats
from flowbench.errors import ConfigurationError

#: The most times that `times_of` makes.
MOST_TIMES = 100_000


def times_of(text: str, unit: str | None = None) -> Floats:
    """The times of "0:10:0.5", from the first to the last, which is included, or of "1, 2.5, 7".

    Where the times of a table are dates, `unit` is that of their numbers, in which a step is. Dates then take
    the place of the others: "2020-01-31:2020-02-29:7". Raises `ConfigurationError` for anything else, and for
    times that do not increase.
    """
    try:
        if ":" in text:
            first, last, *rest = text.split(":")
            start, end, step = (_moment(first, unit), _moment(last, unit), float(":".join(rest)))
            if not (step > 0 and end >= start) or not np.isfinite([start, end, step]).all():
                raise ValueError
            count = int(np.floor((end - start) / step * (1 + 1e-12))) + 1
            if count > MOST_TIMES:
                raise ConfigurationError(
                    f"`--times {text}` means {count:,} times; take a larger step, for {MOST_TIMES:,} at most"
                )
            return np.asarray(start + step * np.arange(count), dtype=np.float64)
        times = np.array([_moment(each, unit) for each in re.split(r"[,\s]+", text.strip())])
        if np.any(np.diff(times) <= 0) or not np.isfinite(times).all():
            raise ValueError
    except (ValueError, OverflowError):
        example = "2020-01-31:2020-02-29:7" if unit else "0:10:0.5"
        raise ConfigurationError(
            f"`--times` takes start:end:step, such as {example}, or increasing times with commas; got "
            f"`{text}`"
        ) from None
    return times


def _moment(text: str, unit: str | None) -> float:
    """A number, or a date as a number in the `unit`; raises `ValueError` for anything else."""
    if unit is None or "-" not in text.strip()[1:]:
        return float(text)
    return seconds_of(np.datetime64(text.strip(), "us"), unit)


def seconds_of(moment: Any, unit: str) -> float:
    """A `numpy.datetime64` as a number in a `unit` since 1970-01-01: days or seconds."""
    seconds = float(moment.astype("datetime64[us]").astype(np.int64)) / 1e6
    return seconds / 86400 if unit.startswith("days") else seconds
