"""Options that speak of columns by name, as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data.cell_faults import join_names
from flowbench.data.schema import Support
from flowbench.encoding.atoms import parse_atoms
from flowbench.encoding.column_items import column_items, infers_others
from flowbench.encoding.dequantiser import parse_spacings
from flowbench.encoding.support_map import open_supports, parse_supports
from flowbench.errors import ConfigurationError

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(names, st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1))
def test_any_name_is_read_as_it_is_written(steps: dict[str, float]) -> None:
    text = "auto," + join_names([f"{name}={step!r}" for name, step in steps.items()])
    assert infers_others(text)
    assert parse_spacings(text) == steps


@pytest.mark.parametrize(("text", "infers"), [("auto", True), ("none", False), (" auto ", True)])
def test_a_word_alone_names_no_column(text: str, infers: bool) -> None:
    assert column_items(text) == []
    assert infers_others(text) is infers


def test_columns_by_hand_stand_behind_auto_or_alone() -> None:
    assert parse_atoms("auto, rain=0,rain=5,price=none") == {"rain": [0.0, 5.0], "price": []}
    assert parse_spacings("auto,age=1,x=none") == {"age": 1.0, "x": None}
    assert parse_supports('auto,"a,b=0:",x=:,y=(0:1)') == {
        "a,b": Support(0.0), "x": Support(), "y": Support(0.0, 1.0),
    }  # fmt: skip
    assert open_supports("auto,a=0:1,y=(0:1), z=( 0: )") == {"y", "z"}
    assert not infers_others("age=1") and not infers_others("auto=1")
    # A column may have the name of the word.
    assert parse_spacings("auto=1") == {"auto": 1.0}


@pytest.mark.parametrize("text", ["auto,", "rain=0,rain=none", "rain=none,rain=0", "none,rain=0", "a\nb=1"])
def test_items_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="takes"):
        parse_atoms(text)
