import csv
import gzip
import os
import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pyarrow import parquet

from flowbench.data import Table, read_table
from flowbench.data.header import is_value
from flowbench.data.table_reading import read_rows
from flowbench.errors import ConfigurationError, DataError, UnknownNameError

Floats = NDArray[np.float64]
Names = tuple[str, ...]

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_ ()]{0,8}[a-z]", fullmatch=True).filter(lambda s: not is_value(s))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    d = draw(st.integers(1, 4))
    columns = draw(st.lists(names, min_size=d, max_size=d, unique=True))
    rows = draw(arrays(np.float64, st.tuples(st.integers(1, 12), st.just(d)), elements=finite))
    return Table(tuple(columns), rows)


# --- writers, independent of the package's own ------------------------------------------------------------


def csv_text(columns: Names, rows: list[list[str]], delimiter: str = ",") -> str:
    with tempfile.TemporaryFile("w+", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
        file.seek(0)
        return file.read()


def cells(table: Table) -> list[list[str]]:
    return [[repr(value) for value in row] for row in table.rows.tolist()]


def write_csv(path: Path, table: Table) -> None:
    path.write_text(csv_text(table.names, cells(table)), encoding="utf-8", newline="")


def write_csv_gz(path: Path, table: Table) -> None:
    path.write_bytes(gzip.compress(csv_text(table.names, cells(table)).encode()))


def write_parquet(path: Path, table: Table) -> None:
    parquet.write_table(pa.table(dict(zip(table.names, table.rows.T, strict=True))), path)


def write_fields_npy(path: Path, table: Table) -> None:
    records = np.rec.fromarrays(table.rows.T, names=list(table.names))  # type: ignore[call-overload]
    np.save(path, records)


def write_columns_npz(path: Path, table: Table) -> None:
    np.savez(path, data=table.rows, columns=np.array(table.names))


def write_matrix_npz(path: Path, table: Table) -> None:
    np.savez_compressed(path, **{f"c{i + 1}": column for i, column in enumerate(table.rows.T)})


def write_columns_h5(path: Path, table: Table) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        for name, column in zip(table.names, table.rows.T, strict=True):
            file[name] = column


def write_matrix_h5(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = table.rows
        file["columns"] = np.array(table.names, dtype="S")


WRITERS: dict[str, tuple[str, Callable[[Path, Table], None]]] = {
    "csv": (".csv", write_csv),
    "csv.gz": (".csv.gz", write_csv_gz),
    "parquet": (".parquet", write_parquet),
    "npy with fields": (".npy", write_fields_npy),
    "npz with names": (".npz", write_columns_npz),
    "h5 of columns": (".h5", write_columns_h5),
    "h5 of a matrix": (".hdf5", write_matrix_h5),
}
# A test of every format takes fewer examples of each.
fewer = settings(max_examples=settings().max_examples // 3)
every_format = pytest.mark.parametrize("kind", WRITERS)


def write(kind: str, folder: str | Path, table: Table) -> Path:
    suffix, writer = WRITERS[kind]
    path = Path(folder) / f"table{suffix}"
    writer(path, table)
    return path


def assert_same(found: Table, expected: Table) -> None:
    assert found.names == expected.names
    assert found.rows.dtype == np.float64
    np.testing.assert_array_equal(found.rows, expected.rows)


# --- round trips ------------------------------------------------------------------------------------------


@every_format
@fewer
@given(table=tables())
def test_round_trip(kind: str, table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(kind, folder, table)
        assert_same(read_table(path), table)
        backwards = table.names[::-1]
        assert_same(read_table(path, backwards), Table(backwards, table.rows[:, ::-1]))


@given(rows=arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=finite))
def test_tables_without_names_are_numbered(rows: Floats) -> None:
    expected = Table(tuple(f"c{i + 1}" for i in range(rows.shape[1])), rows)
    with tempfile.TemporaryDirectory() as folder:
        npy, text, npz = (Path(folder) / name for name in ("t.npy", "t.csv", "t.npz"))
        np.save(npy, rows)
        np.savetxt(text, rows, delimiter=",", fmt="%.17g")
        write_matrix_npz(npz, expected)
        for path in (npy, text, npz):
            assert_same(read_table(path), expected)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_dialects(tmp_path: Path, delimiter: str, newline: str, mark: str) -> None:
    lines = ["", "length (cm), width".replace(",", delimiter), "1,-2e3", "", '"3", .5', ""]
    path = tmp_path / "t.CSV"
    path.write_bytes((mark + newline.join(lines[1:]).replace(",", delimiter)).encode())
    assert_same(read_table(path), Table(("length (cm)", "width"), np.array([[1, -2000], [3, 0.5]])))


def test_integers_and_small_floats_become_float64(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {"a": pa.array([1, 2], pa.int8()), "b": pa.array([0.5, 1.5], pa.float32())}
    parquet.write_table(pa.table(columns), path)
    assert_same(read_table(path), Table(("a", "b"), np.array([[1, 0.5], [2, 1.5]])))


def test_dimension_scales_are_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["row"] = np.arange(2)
        file["row"].make_scale("row")
        file["a"] = [1.0, 2.0]
        file["a"].dims[0].attach_scale(file["row"])
    assert_same(read_table(path), Table(("a",), np.array([[1.0], [2.0]])))


# --- cells that are no finite numbers ---------------------------------------------------------------------

COMPLAINTS = {
    "": "the cell is missing",
    "NA": "the cell is missing",
    "nan": "the cell is missing",
    "x": "`x` is not a number",
    "1,5": "`1,5` is not a number",
    "1_0": "`1_0` is not a number",
    "True": "`True` is not a number",
    "2020-01-01": "`2020-01-01` is not a number",
    "inf": "the value is infinite",
    "-1e999": "the value is infinite",
}


@given(table=tables(), cell=st.sampled_from(sorted(COMPLAINTS)), data=st.data())
def test_malformed_cell_is_named(table: Table, cell: str, data: st.DataObject) -> None:
    n, d = table.rows.shape
    # A column of nothing else is one of dates.
    assume(n > 1 or cell != "2020-01-01")
    row, column = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, d - 1))
    content = cells(table)
    # Beside numbers without a point, as 1e-08 is, a comma may be the decimal sign.
    assume(cell != "1,5" or any("." in line[column] for place, line in enumerate(content) if place != row))
    content[row][column] = cell
    others = [name for index, name in enumerate(table.names) if index != column]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text(csv_text(table.names, content), encoding="utf-8", newline="")
        with pytest.raises(DataError) as caught:
            read_table(path)
        message = str(caught.value)
        assert message.startswith(
            f"{path}: column `{table.names[column]}`, row {row + 1}: {COMPLAINTS[cell]}"
        )
        if others:
            assert message.endswith(f"`--columns {shlex.quote(','.join(others))}`")
            np.testing.assert_array_equal(
                read_table(path, others).rows, np.delete(table.rows, column, axis=1)
            )
        else:
            assert "--columns" not in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if not kind.startswith("csv")])
def test_binary_formats_name_the_first_fault(tmp_path: Path, kind: str, bad: float) -> None:
    rows = np.arange(12.0).reshape(6, 2)
    rows[[3, 5], 1] = bad
    with pytest.raises(DataError, match=r"column `beta`, row 4: the (cell is missing|value is infinite)"):
        read_table(write(kind, tmp_path, Table(("alpha", "beta"), rows)))


def test_every_unfit_column_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,d\n1,2,inf,5 kg\n3,,5,6 kg\n")
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value) == (
        f"{path}: column `b`, row 2: the cell is missing; also unfit: `c` (row 1), `d` (row 1); "
        "fill in missing cells, leave their rows out with `--missing drop`, or learn from the other cells "
        "with `--missing model`; replace infinite values; "
        "turn text into numbers, or name the column with `--categories`; or leave out what cannot be used "
        "with `--columns a`"
    )


def test_long_cells_and_lists_are_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"a{i}" for i in range(30)) + "\n" + '"very\nlong' + "x" * 500 + '"' + ",1" * 29)
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value).removeprefix(f"{path}: ")
    assert message.startswith("column `a0`, row 1: `very longxxx")
    assert message.endswith("naming the other columns with `--columns`")
    assert len(message) < 250
    assert "\n" not in message


@pytest.mark.parametrize(
    "column", [pa.array(["x"]), pa.array(["1", "2"]), pa.array([[1], [2]]), pa.array([None, None])]
)
def test_parquet_columns_that_are_no_numbers(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": column}), path)
    with pytest.raises(DataError, match="column `a`, row 1: "):
        read_table(path)


# --- files that are no tables -----------------------------------------------------------------------------

ARROW = b"PAR1" + bytes(8) + b"PAR1"
BAD_FILES = {
    "empty file": ("t.csv", b"", "the file is empty"),
    "blank lines": ("t.csv", b"\n\n \n", "nothing but blank lines"),
    "names only": ("t.csv", b"a,b\n\n", "a line of names but no rows"),
    "short row": ("t.csv", b"a,b\n1,2\n\n3\n", "row 2 has 1 cells where the first line has 2"),
    "long row without names": ("t.csv", b"1,2\n3,4,5\n", "row 2 has 3 cells where the first line has 2"),
    "repeated name": ("t.csv", b"a,b,a\n1,2,3\n", "two columns are called `a`"),
    "not text": ("t.csv", ARROW, "not a text file"),
    "not UTF-8": ("t.csv", b"h\x81\xf6he,b\n1,2\n", "neither in UTF-8 nor in Windows-1252"),
    "not gzip": ("t.csv.gz", b"a,b\n1,2\n", "damaged, or not what its suffix says"),
    "cut gzip": ("t.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-6], "damaged, or not what its suffix says"),
    "not Parquet": ("t.parquet", b"a,b\n1,2\n", "damaged, or not what its suffix says"),
    "not NPY": ("t.npy", b"a,b\n1,2\n", "damaged, or not what its suffix says"),
    "not NPZ": ("t.npz", b"a,b\n1,2\n", "damaged, or not what its suffix says"),
    "not HDF5": ("t.h5", b"a,b\n1,2\n", "damaged, or not what its suffix says"),
    "unknown suffix": ("t.xlsm", b"a,b\n1,2\n", "known endings: .csv"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(tmp_path: Path, case: str) -> None:
    name, content, complaint = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_columns_that_are_left_out_do_not_matter(tmp_path: Path) -> None:
    """pandas writes the index as a first column without a name."""
    path = tmp_path / "t.csv"
    path.write_text(",a,x,b,x\n0,1,2,3,4\n1,5,6,7,8\n")
    assert read_table(path, ["b", "a"]).rows.tolist() == [[3, 1], [7, 5]]
    with pytest.raises(DataError, match="two columns are called `x`"):
        read_table(path, ["a", "x"])
    path.write_text(",a\n0,1\n")
    found = read_table(path)
    assert found.names == ("a",)
    assert "column `c1` is left out" in found.notes[0]


def test_no_such_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match="it is a folder"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a regular file"):
        read_table(tmp_path / "pipe.csv")


@every_format
def test_no_permission(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path, Table(("a",), np.ones((2, 1))))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="no permission to read"):
        read_table(path)


@pytest.mark.parametrize("shape", [(), (2, 2, 2), (0, 2), (2, 0)])
def test_arrays_of_other_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "t.npy"
    np.save(path, np.zeros(shape))
    with pytest.raises(DataError, match=r"t\.npy: it holds (an array of shape|no rows)"):
        read_table(path)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    np.savez(tmp_path / "t.npz", np.array([{"a": 1}, None]), allow_pickle=True)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(DataError, match="damaged, or not what its suffix says"):
            read_table(tmp_path / name)


def test_ambiguous_arrays(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    for arrays_, complaint in (
        ({"a": np.ones(2), "b": np.ones(3)}, "columns differ in length"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, "holds several arrays"),
        ({"data": np.ones((2, 2)), "columns": np.array(["x"])}, "`columns` has the shape"),
        ({}, "holds no arrays"),
    ):
        np.savez(path, **arrays_)
        with pytest.raises(DataError, match=complaint):
            read_table(path)


def test_oversized_declarations_are_refused_unread(tmp_path: Path) -> None:
    npy, h5 = tmp_path / "t.npy", tmp_path / "t.h5"
    with npy.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2)}
        )
    with pytest.raises(DataError, match="damaged, or not what its suffix says"):
        read_table(npy)
    with h5py.File(h5, "w") as file:
        file.create_dataset("a", shape=(10**10,), dtype="f8", chunks=(1000,))
    with pytest.raises(DataError, match="above the bound of 4 GiB"):
        read_table(h5)


def test_hdf5_that_points_elsewhere(tmp_path: Path) -> None:
    write_matrix_h5(tmp_path / "other.h5", Table(("a",), np.ones((2, 1))))
    (tmp_path / "raw").write_bytes(bytes(16))
    layout = h5py.VirtualLayout(shape=(2, 1), dtype="f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "data", shape=(2, 1))

    def soft(file: h5py.File) -> None:
        file["a"] = h5py.SoftLink("/b")

    def external(file: h5py.File) -> None:
        file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/data")

    def storage(file: h5py.File) -> None:
        file.create_dataset("a", (2,), "f8", external=[(str(tmp_path / "raw"), 0, 16)])

    def virtual(file: h5py.File) -> None:
        file.create_virtual_dataset("a", layout)

    def text(file: h5py.File) -> None:
        file["a"] = np.array(["x", "y"], dtype=h5py.string_dtype())

    def group(file: h5py.File) -> None:
        file["a/b"] = np.ones(2)

    def null(file: h5py.File) -> None:
        file["a"] = h5py.Empty("f8")

    complaints = {
        soft: "is a link",
        external: "is a link",
        storage: "in another file",
        virtual: "in another file",
        text: "neither plain numbers",
        group: "no dataset at its root",
        null: "is empty",
    }
    for index, (make, complaint) in enumerate(complaints.items()):
        path = tmp_path / f"t{index}.h5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(DataError, match=complaint):
            read_table(path)


@every_format
@fewer
@given(garbage=st.binary(min_size=1, max_size=200))
@example(garbage=b"\x93NUMPY\x01\x00")
@example(garbage=b"1\r2")
def test_garbage_is_a_table_or_a_data_error(kind: str, garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{WRITERS[kind][0]}"
        path.write_bytes(garbage)
        try:
            table = read_table(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert np.isfinite(table.rows).all()


@every_format
@fewer
@given(data=st.data())
def test_damaged_file_is_a_table_or_a_data_error(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(kind, folder, Table(("alpha", "beta"), np.arange(40.0).reshape(20, 2) / 7))
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans(), label="cut"):
            content = content[: data.draw(st.integers(1, len(content) - 1))]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            table = read_table(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert np.isfinite(table.rows).all()


# --- selection --------------------------------------------------------------------------------------------


def test_selection(tmp_path: Path) -> None:
    path = write("csv", tmp_path, Table(("alpha", "beta"), np.ones((2, 2))))
    with pytest.raises(UnknownNameError, match=r"unknown column `alpah`; did you mean `alpha`\?"):
        read_table(path, ["beta", "alpah"])
    with pytest.raises(ConfigurationError, match="`columns` names `beta` more than once"):
        read_table(path, ["beta", "beta"])
    with pytest.raises(ConfigurationError, match="`columns` is empty"):
        read_table(path, [])


def test_selection_passes_over_unfit_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x\n2,\n")
    assert_same(read_table(path, ["a"]), Table(("a",), np.array([[1.0], [2.0]])))


@pytest.mark.parametrize("ending", ["csv", "parquet", "h5"])
def test_rows_are_read_whatever_their_cells_are(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    a = ["1.5", "", "two", "inf", "-2", "1e3", "\N{SNOWMAN} " + 60 * "x"]
    b = [1.0, 2.0, np.nan, 4.0, np.inf, np.nan, 7.0]
    if ending == "csv":
        lines = [f"{text},{number}" for text, number in zip(a, b, strict=True)]
        path.write_text("\n".join(["a,b", *lines]) + "\n", encoding="utf-8")
    elif ending == "parquet":
        parquet.write_table(pa.table({"a": [text or None for text in a], "b": b}), path)
    else:
        with h5py.File(path, "w") as file:
            file["a"] = np.array([text.encode() for text in a])
            file["b"] = b
    rows, unfit, _ = read_rows(path, ["b", "a"])
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(rows[:, 0], b)
    reasons = {
        1: "missing cell in `a`",
        2: "missing cell in `b`",
        3: "infinite value in `a`",
        4: "infinite value in `b`",
        5: "missing cell in `b`",
        6: "`\N{SNOWMAN} " + 38 * "x" + "...` in `a` is not a number",
    }
    if ending == "csv":
        np.testing.assert_array_equal(rows[:, 1], [1.5, nan, nan, inf, -2, 1000, nan])
    else:  # where text is text, whatever it says
        assert np.isnan(rows[:, 1]).all()
        reasons |= {row: f"`{a[row]}` in `a` is not a number" for row in (0, 3)}
    assert {row: cell.reason for row, cell in unfit.items()} == reasons
    assert unfit[6].kind == "no number in `a`"


@st.composite
def plain_texts(draw: st.DrawFn) -> tuple[Names, list[list[str]]]:
    """Names and rows of a table that needs no word: a header, and enough numbers of one kind in a column."""
    d, n = draw(st.integers(1, 4)), draw(st.integers(12, 40))
    # Of a column that is called an identifier, a word is said.
    plain = names.filter(lambda name: not re.search(r"(?i)(^|[^a-z])(id|ids|uuid|guid|key)$", name.strip()))
    columns = draw(st.lists(plain, min_size=d, max_size=d, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    cells = []
    for _ in range(d):
        values = random.normal(size=n) * 10.0 ** random.integers(-8, 8)
        kind = draw(st.sampled_from(["shortest", "fixed", "scientific", "whole"]))
        form = {"fixed": "{:.3f}", "scientific": "{:.6e}", "whole": "{:.0f}"}.get(kind, "{!r}")
        cells.append([form.format(float(value)) for value in values])
    return tuple(columns), [list(row) for row in zip(*cells, strict=True)]


@given(plain=plain_texts(), newline=st.sampled_from(["\n", "\r\n"]))
def test_a_plain_csv_is_read_without_a_word(plain: tuple[Names, list[list[str]]], newline: str) -> None:
    columns, cells = plain
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("".join(",".join(row) + newline for row in [columns, *cells]), newline="")
        found = read_table(path)
    assert found.names == columns
    expected = np.array([[float(cell) for cell in row] for row in cells])
    np.testing.assert_array_equal(found.rows, expected)
    # Of a column that holds only a few numbers, a word is said.
    assert all("categories: " in note for note in found.notes)
