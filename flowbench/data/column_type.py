"""The type and notation of a column in its table, so that drawn rows can be written in the same way."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The most significant digits of a rounded value, before and after the point, for each float type.
_DIGITS = {"float64": 14, "float32": 6, "float16": 3}
#: The most decimals that are looked for.
_MOST_DECIMALS = 12
#: Seconds by which two float64 numbers of one time may differ.
_SAME_TIME = 5e-7
#: Days from 1970-01-01 to the ends of the calendar: the years 1 and 9999.
_FIRST_DAY, _LAST_DAY = -719162, 2932896
_DAY = 86400.0
#: Rows that are checked first, before all rows are.
_FIRST_ROWS = 1000
#: Candidate spacings of times, in seconds; the widest that fits is taken.
_TIME_STEPS = (86400.0, 3600.0, 60.0, 1.0, 1e-3, 1e-6)


@dataclass(frozen=True)
class ColumnType:
    """The type of a column's values in its table, and how they are rounded and written.

    `storage` is Arrow's name of the type. Dates are learnt as days since 1970-01-01, timestamps as seconds
    since then, and times of day as seconds since midnight. `decimals` is the number of decimals to which all
    values are rounded, and `step` the spacing of times in seconds. `format` is the format of dates and times
    in CSV (`strftime`). `mark` is a sign beside the numbers, such as "%". Text and truth values are learnt as
    the places of their `levels`, from 0; a level that is not among these is `UNKNOWN_LEVEL`.
    """

    storage: str = "float64"
    decimals: int | None = None
    step: float | None = None
    format: str | None = None
    mark: str | None = None
    levels: tuple[str, ...] | None = None

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Self:
        """The type from plain values of `to_values`; raises `ValueError` or `TypeError` for anything else."""
        levels = values.get("levels")
        found = cls(**{**values, "levels": tuple(levels) if isinstance(levels, list) else levels})
        wanted = (str, int | None, int | float | None, str | None, str | None, tuple | None)
        each = (found.storage, found.decimals, found.step, found.format, found.mark, found.levels)
        if not all(isinstance(value, kind) for value, kind in zip(each, wanted, strict=True)):
            raise ValueError(f"{values} is no type of a column")
        if not all(isinstance(level, str) for level in found.levels or ()):
            raise ValueError(f"{values} has levels that are no text")
        return found

    def to_values(self) -> dict[str, Any]:
        """Plain values, without those that are None."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return found | ({"levels": list(self.levels)} if self.levels is not None else {})

    @property
    def is_integer(self) -> bool:
        """Whether the stored type is an integer type."""
        return self.storage.startswith(("int", "uint"))

    @property
    def unit(self) -> str | None:
        """The unit of the numbers, in the words of the CF conventions; None for plain numbers."""
        if self.storage.startswith("date"):
            return "days since 1970-01-01"
        if self.storage.startswith("timestamp"):
            return "seconds since 1970-01-01"
        return "seconds since midnight" if self.storage.startswith("time") else None

    @property
    def rounds(self) -> bool:
        """Whether the column can hold only some numbers, to which others are rounded."""
        return self.levels is None and (self.storage != "float64" or self.decimals is not None)

    def restore(self, values: Floats) -> Floats:
        """The numbers nearest to `values: (n,)` that the column can hold; times of day wrap at midnight."""
        if self.storage.startswith("date"):
            values = np.clip(values, _FIRST_DAY, _LAST_DAY)
        if self.storage.startswith("timestamp"):
            values = np.clip(values, _FIRST_DAY * _DAY, (_LAST_DAY + 1) * _DAY - 1)
        if self.step is not None:
            values = np.asarray(np.rint(values / self.step) * self.step)
        if self.storage.startswith("time") and not self.storage.startswith("timestamp"):
            return np.asarray(np.mod(values, _DAY))
        if self.step is not None:
            return values
        if self.is_integer or self.storage.startswith("date"):
            return np.rint(values) + 0.0
        if self.decimals is not None:
            values = np.round(values, self.decimals) + 0.0
        if self.storage in ("float32", "float16"):
            with np.errstate(over="ignore"):
                return values.astype(self.storage).astype(np.float64)
        return values

    def typed(self, values: Floats) -> NDArray[Any]:
        """Restored `values: (n,)` in the column's own type, or in a wider one if that does not hold them all.

        Dates and times are `datetime64`; times of day are seconds.
        """
        if self.levels is not None:
            named = self.named(values)
            return named == "true" if self.storage == "bool" else named
        if not np.isfinite(values).all():
            return values
        if self.is_integer:
            limits = np.iinfo(self.storage)
            inside = limits.min <= values.min(initial=0) and values.max(initial=0) <= limits.max
            return values.astype(self.storage if inside else np.int64)
        if self.storage in ("float32", "float16"):
            return values.astype(self.storage)
        if self.storage.startswith("date"):
            return values.astype(np.int64).astype("datetime64[D]")
        if self.storage.startswith("timestamp"):
            return np.rint(values * 1e6).astype(np.int64).astype("datetime64[us]")
        return self.counted(values) if self.unit else values

    def counted(self, values: Floats) -> NDArray[Any]:
        """Restored `values: (n,)` as numbers in the column's `unit`, integers if all are whole.

        Those of a column with levels are text.
        """
        if self.levels is not None:
            return self.named(values)
        if self.unit is None:
            return self.typed(values)
        whole = bool(np.all(values == np.rint(values)))
        return values.astype(np.int64) if whole else values

    def text(self, values: Floats) -> NDArray[Any]:
        """Restored `values: (n,)` as in a CSV file: dates and times as text, integers as integers."""
        if self.levels is not None:
            return self.named(values)
        if self.unit is None:
            return self.typed(values) if self.is_integer else values
        if self.format is None or not np.isfinite(values).all():
            return self.counted(values)
        import pandas as pd

        scale = 86400e6 if self.storage.startswith("date") else 1e6
        stamps = pd.to_datetime(np.rint(values * scale).astype(np.int64), unit="us")
        if self.format == "%Y%m%d":
            return np.array([int(each) for each in stamps.strftime(self.format)], dtype=np.int64)
        return np.array(stamps.strftime(self.format), dtype=object)

    def named(self, values: Floats) -> NDArray[Any]:
        """The levels at the places `values: (n,)`, as text; raises `ValueError` for another number."""
        places = values.astype(np.int64)
        levels = np.array([*(self.levels or ()), ""], dtype=object)
        if (
            not np.array_equal(places, values)
            or places.min(initial=0) < 0
            or places.max(initial=0) >= len(levels) - 1
        ):
            raise ValueError("the numbers are not the places of levels")
        return levels[places]


#: A level that the column's type does not know.
UNKNOWN_LEVEL = -1.0
#: A plain number.
FLOAT64 = ColumnType()


def type_of_numbers(storage: str, numbers: Floats) -> ColumnType:
    """The type of a column of `numbers: (n,)`, NaN where missing, that is stored as `storage`."""
    if storage in _DIGITS:
        return ColumnType(storage, decimals=_decimals(storage, numbers))
    return ColumnType(storage)


def type_of_times(storage: str, seconds: Floats, format: str | None) -> ColumnType:
    """The type of a column of times, `seconds: (n,)` since 1970-01-01 or midnight, NaN where missing."""
    known = seconds[np.isfinite(seconds)]
    fitting = (
        step for step in _TIME_STEPS if np.all(np.abs(known - np.rint(known / step) * step) < _SAME_TIME)
    )
    return ColumnType(storage, step=next(fitting, None) if len(known) else None, format=format)


def _decimals(storage: str, numbers: Floats) -> int | None:
    """The number of decimals to which all `numbers: (n,)` are rounded, or None."""
    first = numbers[:_FIRST_ROWS]
    decimals = _least_decimals(storage, first[np.isfinite(first)], 0)
    if decimals is None or len(numbers) <= _FIRST_ROWS:
        return decimals
    return _least_decimals(storage, numbers[np.isfinite(numbers)], decimals)


def _least_decimals(storage: str, finite: Floats, least: int) -> int | None:
    """The fewest decimals, at least `least`, to which all of `finite: (n,)` are rounded, or None."""
    if not len(finite):
        return None
    dtype = np.dtype(storage)
    largest = float(np.abs(finite).max())
    before = int(np.floor(np.log10(largest))) + 1 if largest > 0 else 0
    most = min(_DIGITS[storage] - max(before, 0), _MOST_DECIMALS)
    exact = finite.astype(dtype)
    return next(
        (k for k in range(least, most + 1) if np.array_equal(np.round(finite, k).astype(dtype), exact)), None
    )
