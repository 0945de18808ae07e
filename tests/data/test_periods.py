"""Which columns are plainly periodic."""

import numpy as np
import pytest

from flowbench.data.periods import TIME_OF_DAY, Period, infer_period

HOURS = np.arange(24.0).repeat(3)
DEGREES = np.linspace(0.5, 359.5, 200)


@pytest.mark.parametrize(
    ("name", "unit", "values", "period"),
    [
        ("at", TIME_OF_DAY, np.array([3600.0, 7200.0]), Period(0, 86400)),
        ("hour", None, HOURS, Period(0, 24)),
        ("Hour_of_day", None, HOURS, Period(0, 24)),
        ("startHour", None, HOURS, Period(0, 24)),
        ("hour", None, HOURS + 1, None),
        ("hour", None, HOURS[3:-3], None),
        ("hour", None, np.linspace(0, 23, 70), None),
        ("count", None, HOURS, None),
        ("hourly_pay", None, HOURS, None),
        ("wind_direction", None, DEGREES, Period(0, 360)),
        ("Azimuth", None, np.rint(DEGREES), Period(0, 360)),
        ("azimuth", None, DEGREES / 2, None),
        ("bearing", None, DEGREES - 180, None),
        ("triangle", None, DEGREES, None),
        ("date of direction", "days since 1970-01-01", DEGREES, None),
        ("hour", None, np.array([]), None),
    ],
)
def test_a_period_is_taken_only_where_it_is_plain(
    name: str, unit: str | None, values: np.ndarray, period: Period | None
) -> None:
    assert infer_period(name, unit, values) == period


def test_words() -> None:
    assert Period(-180, 180).in_words == "from -180 to 180" and Period(-180, 180).length == 360
