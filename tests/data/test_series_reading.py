"""Series from real files: what is read, what is refused, and that the notes say what was done."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowbench.data.files import TableFile
from flowbench.data.read_options import ReadOptions
from flowbench.data.series_dataset import SeriesDataset
from flowbench.data.series_reading import Repeated, SeriesColumns, read_series
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError

Read = Callable[..., SeriesDataset]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads CSV text, or a file; `reading` are options of how, as keywords of `ReadOptions`."""

    def read_text(
        text: str | Path,
        columns: list[str] | None = None,
        series: str = "id",
        time: str = "t",
        repeated: Repeated = "average",
        for_fit: bool = True,
        **reading: object,
    ) -> SeriesDataset:
        path = text if isinstance(text, Path) else tmp_path / "table.csv"
        if isinstance(text, str):
            path.write_text(text)
        return read_series(
            TableFile.of(path),
            SeriesColumns(series, time),
            columns,
            reading=ReadOptions(**reading),
            repeated=repeated,
            for_fit=for_fit,
        )

    return read_text


def lines(*rows: str, head: str = "id,t,x") -> str:
    return "\n".join([head, *rows, ""])


def held(found: SeriesDataset) -> dict[str, list[tuple[float, ...]]]:
    """The observations of each series, as tuples of the time and the values."""
    return {
        name: [
            (float(t), *map(float, x))
            for t, x in zip(found.series(i).times, found.series(i).values, strict=True)
        ]
        for i, name in enumerate(found.ids)
    }


# What is read.


def test_a_long_table_becomes_series_and_nothing_is_noted(read: Read) -> None:
    found = read(lines("a,0,1", "b,0.5,2", "a,2,3", "b,1.5,5"))
    assert held(found) == {"a": [(0, 1), (2, 3)], "b": [(0.5, 2), (1.5, 5)]}
    assert found.notes == ()
    assert (found.id_column, found.time_column, found.column_names) == ("id", "t", ("x",))
    assert found.starts.tolist() == [0, 2, 4]
    assert not found.values.flags.writeable


def typed_file(kind: str, folder: Path, frame: pd.DataFrame) -> Path:
    path = folder / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for name in frame:
                column = frame[name].to_numpy()
                file[str(name)] = column.astype("S") if column.dtype.kind in "OT" else column
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "h5"])
@pytest.mark.parametrize("ids", [["p 1", "q"], [3, 12], [0.5, 2.5]], ids=["text", "whole", "fractions"])
def test_every_format_gives_the_same_series(kind: str, ids: list[object], read: Read, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": [ids[0], ids[1], ids[0], ids[0]],
            "t": [0.0, 1.5, 2.5, 1.0],
            "x": [1.0, 2.0, np.nan, 4.0],
            "y": [5.0, 6.0, 7.0, np.nan],
        }
    )
    found = read(typed_file(kind, tmp_path, frame))
    assert found.ids == tuple(map(str, ids))
    assert found.times.tolist() == [0, 1, 2.5, 1.5]
    expected = np.array([[1, 5], [4, np.nan], [np.nan, 7], [2, 6]])
    np.testing.assert_array_equal(found.values, expected)
    assert found.notes == (
        f"the times of 1 of 2 series are not in order, and are sorted by `t`: `{ids[0]}`",
        "cells are missing, 2 of 8; their observations keep the others",
    )


def test_one_series_and_series_of_one_observation(read: Read) -> None:
    assert held(read(lines("a,0,1", "a,1,2"))) == {"a": [(0, 1), (1, 2)]}
    assert held(read(lines("a,0,1", "b,0,2"))) == {"a": [(0, 1)], "b": [(0, 2)]}


# Names of series.


def test_ids_that_text_keeps_are_as_they_are_written(read: Read) -> None:
    found = read(lines("007,0,1", "7,1,2", "A7,0,3", "007,2,4"))
    assert list(held(found)) == ["007", "7", "A7"]
    (note,) = found.notes
    assert note == (
        "ids `007` and `7` in `id` are one number, and two series; write them alike if they are one series"
    )


def test_ids_that_were_read_as_numbers_without_their_zeros_are_said_to_be(read: Read) -> None:
    found = read(lines("007,0,1", "007,1,2", "012,0,3"))
    assert found.ids == ("7", "12")
    (note,) = found.notes
    assert "begin with zeros" in note and "`id`" in note


def test_whole_numbers_that_floats_cannot_tell_apart_are_no_ids(read: Read, tmp_path: Path) -> None:
    ids = [12345678901234567, 12345678901234568, 12345678901234569]
    message = r"column `id`: .* beyond 2\^53.* letter before every id"
    with pytest.raises(DataError, match=message):
        read(lines(*(f"{each},0,{i}" for i, each in enumerate(ids))))
    frame = pd.DataFrame({"id": ids, "t": [0, 0, 0], "x": [1, 2, 3]})
    with pytest.raises(DataError, match=message):
        read(typed_file("parquet", tmp_path, frame))
    # With a letter they are text.
    assert len(read(lines(*(f"p{each},0,{i}" for i, each in enumerate(ids))))) == 3


def test_blanks_around_ids_do_not_make_series(read: Read, tmp_path: Path) -> None:
    note = "ids in `id` that differ in the blanks around them alone are one series: `a`"
    found = read(lines("a,0,1", "a ,1,2", " a,2,3", "b b,0,4"))
    assert held(found) == {"a": [(0, 1), (1, 2), (2, 3)], "b b": [(0, 4)]}
    assert found.notes == (note,)
    frame = pd.DataFrame({"id": ["a ", "a"], "t": [0, 1], "x": [1, 2]})
    found = read(typed_file("parquet", tmp_path, frame))
    assert (found.ids, found.notes) == (("a",), (note,))


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["20200131", "20200201"], ("20200131", "20200201")),
        (["2020-01-31", "2020-02-01"], ("2020-01-31", "2020-02-01")),
        (["01/02/2020", "03/04/2020"], ("01/02/2020", "03/04/2020")),
        (["5%", "6%"], ("5%", "6%")),
        (["1.0", "2.0"], ("1", "2")),
        (["1.5", "2"], ("1.5", "2")),
        (["-1", "-2"], ("-1", "-2")),
        (["True", "False"], ("True", "False")),
        (["1e3", "x"], ("1e3", "x")),
    ],
    ids=str,
)
def test_ids_that_look_like_something_else_stay_names(
    written: list[str], ids: tuple[str, ...], read: Read
) -> None:
    found = read(lines(*(f"{each},{t},{t + i}" for i, each in enumerate(written) for t in (0, 1))))
    assert found.ids == ids
    assert found.lengths.tolist() == [2, 2]
    assert found.notes == ()


def test_the_decimal_commas_of_other_columns_do_not_change_ids(read: Read) -> None:
    found = read(lines("1,5;0,5;1,2", "1,5;1,5;2,2", "2;0,5;1,7", head="id;t;x"))
    assert held(found) == {"1,5": [(0.5, 1.2), (1.5, 2.2)], "2": [(0.5, 1.7)]}
    assert "numbers have decimal commas, such as `0,5`: `t`" in found.notes


# Times.


@pytest.mark.parametrize(
    ("written", "times", "storage", "note"),
    [
        (
            ["2020-01-01", "2020-01-03"],
            [18262, 18264],
            "date32[day]",
            "dates are read as days since 1970-01-01, such as `2020-01-01`: `t`",
        ),
        (
            ["31.12.2019", "01.01.2020"],
            [18261, 18262],
            "date32[day]",
            "dates are read as days since 1970-01-01, such as `31.12.2019`: `t`",
        ),
        (
            ["20200131", "20200201"],
            [18292, 18293],
            "date32[day]",
            "numbers are read as dates, days since 1970-01-01, unless `--keep` names the column, such as "
            "`20200131`: `t`",
        ),
        (
            ["2020-01-01 00:00:00+02:00", "2020-01-01T00:00:00+01:00"],
            [1577829600, 1577833200],
            "timestamp[us, tz=UTC]",
            "times are read as seconds since 1970-01-01, such as `2019-12-31 22:00:00+00:00`: `t`",
        ),
        (
            ["08:00", "09:30"],
            [28800, 34200],
            "time32[s]",
            "times of day are read as seconds since midnight, such as `08:00:00`: `t`",
        ),
        (
            ['"1,000,000"', '"2,000,000"'],
            [1e6, 2e6],
            "int64",
            "numbers have `,` between their thousands, such as `1,000,000`: `t`",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_times_are_read_as_is_said(
    written: list[str], times: list[float], storage: str, note: str, read: Read
) -> None:
    found = read(lines(f"a,{written[0]},1", f"a,{written[1]},2", f"b,{written[0]},3"))
    assert found.times.tolist() == [*times, times[0]]
    assert found.time_type.storage == storage
    assert found.notes == (note,)


def test_dates_of_parquet_are_times(read: Read, tmp_path: Path) -> None:
    stamps = pd.to_datetime(["2020-01-01 06:00", "2020-01-01 00:00"])
    frame = pd.DataFrame({"id": ["a", "a"], "t": stamps, "x": [1.0, 2.0]})
    found = read(typed_file("parquet", tmp_path, frame))
    assert found.times.tolist() == [1577836800, 1577858400]
    assert found.values[:, 0].tolist() == [2, 1]


def test_series_past_midnight_are_warned_about(read: Read) -> None:
    found = read(lines("a,22:00,1", "a,23:30,2", "a,00:30,3", "b,01:00,3"))
    assert any("begins anew at midnight, so add the date" in note for note in found.notes)


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("x", "column `t`, row 3: `x` is not a number"),
        ("", "column `t`, row 3: the cell is missing"),
        ("inf", "column `t`, row 3: the value is infinite"),
        ("2020-01-01", "column `t`, row 3: `2020-01-01` is not a number"),
    ],
)
def test_a_row_without_a_time_is_refused(cell: str, complaint: str, read: Read) -> None:
    with pytest.raises(DataError, match=rf"^.*table\.csv: {re.escape(complaint)}"):
        read(lines("a,0,1", "a,1,2", f"b,{cell},3", "b,3,4"))


def test_times_some_of_which_have_a_zone_are_refused(read: Read) -> None:
    text = lines("a,2020-01-01 00:00:00,1", "a,2020-01-02 00:00:00,2", "b,2020-01-01 00:00:00+02:00,3")
    with pytest.raises(DataError, match="column `t`, row 3"):
        read(text)


def test_a_time_that_could_mean_two_numbers_is_refused(read: Read) -> None:
    with pytest.raises(DataError, match="column `t`: `1,000` could be a number with decimals"):
        read(lines("a;1,000;1", "a;1,500;2", head="id;t;x"))


@pytest.mark.parametrize("n", [2, 7])
def test_times_that_are_not_in_order_are_sorted_and_some_of_the_series_named(n: int, read: Read) -> None:
    rows = [f"s{i},{t},{i + t}" for i in range(n) for t in (2, 1, 3)]
    found = read(lines(*rows, "sorted,1,0", "sorted,2,0"))
    assert found.series(1).times.tolist() == [1, 2, 3]
    assert found.series(1).values[:, 0].tolist() == [2, 3, 4]
    named = "`s0`, `s1`" if n == 2 else "`s0`, `s1`, `s2`, `s3`, ..."
    assert found.notes == (
        f"the times of {n} of {n + 1} series are not in order, and are sorted by `t`: {named}",
    )


# Repeated times.

REPEATED = lines("a,1,1,2", "b,1,9,9", "a,1,3,", "a,1,8,", "a,2,,4", head="id,t,x,y")


def test_repeated_times_are_averaged_cell_by_cell(read: Read) -> None:
    found = read(REPEATED)
    assert held(found)["a"][0] == (1, 4, 2)
    assert found.lengths.tolist() == [2, 1]
    assert found.notes[0] == (
        "rows of one series at one time are averaged, cell by cell, so that 5 become 3: rows 1 and 3 are "
        "both of series `a` at `t` = 1"
    )


def test_repeated_times_can_be_refused(read: Read) -> None:
    with pytest.raises(DataError) as caught:
        read(REPEATED, repeated="refuse")
    assert str(caught.value).endswith(
        "table.csv: rows 1 and 3 are both of series `a` at `t` = 1, and 2 of 5 rows repeat the series and "
        "time of another; give every observation a time of its own, or say `--repeated average`"
    )
    # An empty row is no observation.
    assert len(read(lines("a,1,2", "a,1,", "a,2,3"), repeated="refuse").times) == 2


def test_a_repeated_time_is_shown_as_the_file_has_it(read: Read) -> None:
    rows = ["a,2020-01-01 10:00:00,1", "a,2020-01-01 10:00:00,2", "a,2020-01-02 10:00:00,2"]
    with pytest.raises(DataError, match="at `t` = 2020-01-01 10:00:00; give every"):
        read(lines(*rows), repeated="refuse")


# Missing cells, empty rows, empty columns.


def test_rows_and_series_without_a_value_are_left_out(read: Read) -> None:
    found = read(lines("a,0,1", "a,1,", "b,0,", "b,1,", "c,2,4"))
    assert held(found) == {"a": [(0, 1)], "c": [(2, 4)]}
    assert found.notes == (
        "rows without a value are left out: 3 of 5",
        "series without a value are left out, 1 of 3: `b`",
    )


def test_constant_and_empty_columns_are_left_out_of_a_fit_with_what_only_they_observe(read: Read) -> None:
    text = lines("a,0,1,5,", "a,1,,5,", "b,0,3,5,", "c,2,,5,", head="id,t,x,c,e")
    found = read(text)
    assert held(found) == {"a": [(0, 1)], "b": [(0, 3)]}
    assert found.notes == (
        "column `c` is constant (5), and is left out",
        "column `e` is empty, and is left out",
        "rows with values in left-out columns alone are left out: 2 of 4",
        "series without a value are left out, 1 of 3: `c`",
    )
    whole = read(text, for_fit=False)
    assert whole.column_names == ("x", "c", "e")
    assert whole.ids == ("a", "b", "c")
    assert whole.notes == ("cells are missing, 6 of 12; their observations keep the others",)


def test_columns_of_one_value_a_series_are_warned_about(read: Read) -> None:
    found = read(lines("a,0,1,50", "a,1,2,50", "b,0,3,60", "b,1,3,60", head="id,t,x,age"))
    assert found.column_names == ("x", "age")
    assert found.notes == (
        "`age` has one value in each series, and would be learnt as if measured each time; leave out what "
        "cannot be used with `--columns x`",
    )
    # A single observation of each says nothing of that.
    assert read(lines("a,0,1", "b,1,2")).notes == ()


def test_nothing_that_varies_and_no_values_are_refused(read: Read) -> None:
    with pytest.raises(DataError, match="no column varies"):
        read(lines("a,0,1", "a,1,1"))
    with pytest.raises(DataError, match="every cell of the columns of values is missing"):
        read(lines("a,0,", "a,1,"))
    with pytest.raises(DataError, match=r"table\.csv: it has no column of values beside `id` and `t`"):
        read(lines("a,0", "a,1", head="id,t"))


def test_markers_of_missing_cells(read: Read) -> None:
    rows = ("a,0,1", "a,1,-99", "b,0,none at all", "b,1,4")
    found = read(lines(*rows), missing_values=("-99", "none at all"))
    assert held(found) == {"a": [(0, 1)], "b": [(1, 4)]}
    assert found.notes == ("rows without a value are left out: 2 of 4",)
    unused = read(lines("a,0,1", "a,1,2"), missing_values=("-99",))
    assert unused.notes == ("no cell is `-99`, which `--missing-value` names",)
    # One that is a time, too, is not passed over.
    with pytest.raises(DataError, match="column `t`, row 1: the cell is missing"):
        read(lines("a,-9,1", "a,0,-9", "a,1,2"), missing_values=("-9",))


# What is refused.


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (
            "oops",
            "column `y`, row 3: `oops` is not a number; turn text into numbers, or say `--missing-value "
            "oops` if that stands for nothing",
        ),
        ("inf", "column `y`, row 3: the value is infinite; replace infinite values"),
    ],
)
def test_a_bad_cell_is_named(cell: str, complaint: str, read: Read) -> None:
    text = lines("a,0,1,1", "a,1,2,", f"b,0,3,{cell}", "b,1,4,2", "b,2,5,3", head="id,t,x,y")
    with pytest.raises(DataError) as caught:
        read(text)
    start = str(caught.value).partition("table.csv: ")[2]
    assert start == f"{complaint}; or leave out what cannot be used with `--columns x`"
    assert read(text, columns=["x"]).column_names == ("x",)


@pytest.mark.parametrize("cell", ["", "  ", "NA", "nan"])
def test_a_row_without_a_series_is_refused(cell: str, read: Read) -> None:
    with pytest.raises(DataError, match=r"table\.csv: column `id`, row 2: the cell is missing, so the row"):
        read(lines("a,0,1", f"{cell},1,2", "b,0,3"))


def test_columns_must_be_there_and_be_different(read: Read) -> None:
    text = lines("a,0,1", "a,1,2")
    with pytest.raises(UnknownColumnError, match="`--series`"):
        read(text, series="subject")
    with pytest.raises(UnknownColumnError, match="`--time`"):
        read(text, time="when")
    with pytest.raises(UnknownColumnError, match="`z`"):
        read(text, columns=["z"])
    with pytest.raises(ConfigurationError, match="`--series` and `--time` both name `t`"):
        SeriesColumns("t", "t")
    with pytest.raises(ConfigurationError, match="`--columns` names `t`, and so does `--time`"):
        read(text, columns=["x", "t"])


def test_options_of_tables_of_rows_are_refused(read: Read) -> None:
    text = lines("a,0,1,1", "a,1,2,1", head="id,t,x,g")
    with pytest.raises(ConfigurationError, match="`--group g` is for tables of rows"):
        read(text, group="g")
    with pytest.raises(ConfigurationError, match="`--missing drop` is for tables of rows"):
        read(text, missing="drop")


# Any table, against pandas.

CELLS = st.one_of(st.just(np.nan), st.integers(-8, 8).map(lambda i: i / 4))
ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c d", "e"]), st.integers(-3, 3), CELLS, CELLS), min_size=1
)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_as_pandas_groups_it(
    read: Read, rows: list[tuple[str, int, float, float]], random: Random
) -> None:
    # A last series keeps both columns from being constant.
    frame = pd.DataFrame([*rows, ("z", 0, 10.0, 10.0), ("z", 1, 11.0, 11.0)], columns=["id", "t", "x", "y"])
    groups = frame.dropna(subset=["x", "y"], how="all").groupby(["id", "t"])[["x", "y"]].mean()
    text = StringIO()
    frame.to_csv(text, index=False)
    found = read(text.getvalue())
    expected = {
        str(name): np.column_stack([part.index.get_level_values("t"), part])
        for name, part in groups.groupby(level="id")
    }
    # The order of the rows makes no difference but for that of the series.
    order = list(range(len(frame)))
    random.shuffle(order)
    text = StringIO()
    frame.iloc[order].to_csv(text, index=False)
    for each in (found, read(text.getvalue())):
        assert held(each).keys() == expected.keys()
        for name, series in held(each).items():
            np.testing.assert_allclose(np.array(series), expected[name], rtol=0, atol=1e-12)
