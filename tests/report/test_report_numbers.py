import math

import pytest

from flowbench.report.markdown import escape_markdown
from flowbench.report.numbers import (
    count,
    decimals_for,
    fixed,
    plural,
    probability,
    seconds,
    shared_decimals,
    significant,
    with_error,
    with_half_width,
    with_interval,
)
from flowbench.statistics.paired import Estimate, PairedDifference


@pytest.mark.parametrize(
    ("uncertainty", "decimals"),
    [
        (0.0123, 3),
        (0.0996, 2),
        (0.00996, 3),
        (1.5, 1),
        (15.0, 0),
        (150.0, 0),
        (1e-12, 8),
        (0.0, 3),
        (None, 3),
    ],
)
def test_the_uncertainty_decides_the_digits(uncertainty: float | None, decimals: int) -> None:
    assert decimals_for(uncertainty) == decimals


def paired(mean: float, error: float, low: float, high: float, rows: int) -> PairedDifference:
    return PairedDifference(mean, error, low, high, rows, low, high, p_value=0.01, p_adjusted=0.02)


def test_a_column_shares_its_decimals() -> None:
    assert shared_decimals([0.023, 0.0036]) == 3
    assert shared_decimals([0.023, 0.0296]) == 3
    assert shared_decimals([None, math.nan, 0.0]) == decimals_for(None)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (-1234.5, 1, "−1,234.5"),
        (-0.0001, 2, "0.00"),
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (-math.inf, 0, "−∞"),
        (9_999_999.4, 0, "9,999,999"),
        (-15_826_285_279.97, 2, "−1.6e10"),
    ],
)
def test_fixed(value: float | None, decimals: int, text: str) -> None:
    assert fixed(value, decimals) == text


def test_values_with_their_uncertainty() -> None:
    assert with_error(Estimate(2.83412, 0.01234, 100)) == "2.834 ± 0.012"
    assert with_error(Estimate(2.83412, 0.01234, 100), 1) == "2.8 ± 0.0"
    assert with_error(Estimate(2.83412, None, 1)) == "2.834"
    assert with_error(Estimate(math.inf, None, 5)) == "∞"
    assert with_error(None) == "–"
    difference = paired(-0.1234, 0.011, -0.1454, -0.1014, 50)
    assert with_half_width(difference) == "0.123 ± 0.022"
    assert with_interval(difference, 3) == "−0.123 [−0.145, −0.101]"
    assert with_interval(paired(0.1234, 0.011, 0.1014, 0.1454, 50), 2) == "+0.12 [0.10, 0.15]"
    assert with_interval(paired(0.0, 0.0, 0.0, 0.0, 50), 3) == "0.000 [0.000, 0.000]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.4e-5, "3.4e−5"),
        (0.00051, "0.00051"),
        (0.0, "0"),
        (None, "–"),
        (9.96, "10"),
        (3e-12, "3.0e−12"),
        (2e9, "2.0e9"),
    ],
)
def test_significant(value: float | None, text: str) -> None:
    assert significant(value) == text


def test_a_p_value_is_never_zero() -> None:
    assert probability(0.0) == "< 1.0e−300"
    assert probability(1e-310, 1) == "< 1e−300"
    assert [probability(each) for each in (1.3e-33, None)] == ["1.3e−33", "–"]
    assert probability(0.061, 1) == "0.06"


def test_times_and_counts() -> None:
    assert [seconds(each) for each in (0.0098, 0.5, 61.24, 1234.5, None)] == [
        "0.01",
        "0.5",
        "61.2",
        "1,234",
        "–",
    ]
    assert [count(each) for each in (23810.0, 181.5, None, 1e8)] == ["23,810", "181.5", "–", "100,000,000"]
    assert [plural(each, "row") for each in (1, 1000)] == ["1 row", "1,000 rows"]


def test_markdown_shows_text_letter_by_letter() -> None:
    assert escape_markdown("a|b *c* <i>\n[d](e) `f` $g$ & \\") == (
        r"a\|b \*c\* &lt;i&gt; \[d\]\(e\) \`f\` \$g\$ &amp; \\"
    )
