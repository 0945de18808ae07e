import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowbench.data import catalogue, describe_dataset, list_datasets, load_dataset
from flowbench.data.files import TableFile
from flowbench.data.read_options import ReadOptions
from flowbench.data.sklearn_tables import SKLEARN_TABLES
from flowbench.data.table_reading import read_table
from flowbench.errors import ConfigurationError, DataError, UnknownNameError
from flowbench.registry import BENCHMARKS, TOYS

BUNDLED = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled tables, with the user's own beside them."""
    for name in ("faithful.csv", "penguins.csv"):
        shutil.copy(BUNDLED / name, tmp_path)
    (tmp_path / "mine.csv").write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    (tmp_path / "notes.md").write_text("not a table")
    return tmp_path


@pytest.mark.parametrize("name", TOYS.names())
def test_toy(name: str) -> None:
    first, second, other = (load_dataset(name, rows=50, seed=seed) for seed in (3, 3, 4))
    assert first.name == name
    assert first.rows.shape == (50, 2)
    assert first.column_names == ("x", "y")
    assert first.density is not None
    assert first.density.name == name
    assert first.rows.tobytes() == second.rows.tobytes()
    assert first.provenance == second.provenance
    assert first.provenance.sha256 == hashlib.sha256(first.rows.tobytes()).hexdigest()
    assert first.provenance.sha256 != other.provenance.sha256


def test_columns_of_a_toy() -> None:
    whole = load_dataset("moons", rows=20)
    both, swapped, one = (load_dataset("moons", rows=20, columns=c) for c in (["x", "y"], ["y", "x"], ["y"]))
    assert both.density is not None
    assert swapped.density is None
    np.testing.assert_array_equal(both.rows, whole.rows)
    np.testing.assert_array_equal(swapped.rows, whole.rows[:, ::-1])
    np.testing.assert_array_equal(one.rows, whole.rows[:, 1:])
    with pytest.raises(UnknownNameError, match="moons: unknown column `z`"):
        load_dataset("moons", columns=["z"])


def test_toys_have_a_million_rows_unless_told_otherwise() -> None:
    assert load_dataset("rings").rows.shape == (1_000_000, 2)


@pytest.mark.parametrize("name", SKLEARN_TABLES)
def test_scikit_learn_table(name: str) -> None:
    dataset = load_dataset(name)
    facts = SKLEARN_TABLES[name]
    assert dataset.rows.shape == (facts.rows, facts.columns)
    assert (np.ptp(dataset.rows, axis=0) > 0).all()
    assert dataset.density is None
    assert dataset.provenance.sha256 == hashlib.sha256(dataset.rows.tobytes()).hexdigest()
    some = dataset.column_names[1::2]
    np.testing.assert_array_equal(load_dataset(name, columns=some).rows, dataset.rows[:, 1::2])
    with pytest.raises(UnknownNameError, match=f"{name}: unknown column `nonsense`"):
        load_dataset(name, columns=["nonsense"])


def test_digits_say_that_constant_pixels_are_dropped() -> None:
    assert "dropped" in load_dataset("digits").provenance.description


@pytest.mark.parametrize("given", ["faithful", "faithful.csv"])
def test_bundled_table_by_name(folder: Path, given: str) -> None:
    dataset = load_dataset(given, folder=folder)
    content = (folder / "faithful.csv").read_bytes()
    assert dataset.name == "faithful"
    assert dataset.rows.shape == (272, 2)
    assert dataset.column_names == ("eruptions", "waiting")
    assert dataset.provenance.sha256 == hashlib.sha256(content).hexdigest()
    assert "Azzalini" in dataset.provenance.source


def test_readme_gives_the_hash_of_every_bundled_table() -> None:
    readme = (BUNDLED / "README.md").read_text()
    for name in ("faithful.csv", "penguins.csv"):
        assert hashlib.sha256((BUNDLED / name).read_bytes()).hexdigest() in readme


def test_changed_file_does_not_inherit_the_facts(folder: Path) -> None:
    path = folder / "faithful.csv"
    path.write_text(path.read_text() + "3.5,70\n")
    dataset = load_dataset("faithful", folder=folder)
    assert dataset.provenance.source == str(path)
    assert dataset.provenance.licence == ""


def test_own_table_by_name_and_by_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = load_dataset("mine", folder=folder)
    by_path = load_dataset(str(folder / "mine.csv"), columns=["b"])
    assert by_name.rows.shape == (20, 2)
    assert by_path.column_names == ("b",)
    monkeypatch.chdir(folder)
    assert load_dataset("mine.csv").rows.shape == (20, 2)


def test_penguins_have_categories_and_gaps(folder: Path) -> None:
    with pytest.raises(DataError, match="column `bill_length_mm`, row 4: the cell is missing"):
        load_dataset("penguins", folder=folder)
    found = load_dataset("penguins", folder=folder, reading=ReadOptions(missing="drop"))
    kinds = {column.name: column.kind for column in found.columns}
    assert [name for name, kind in kinds.items() if kind == "categorical"] == [
        "species",
        "island",
        "sex",
        "year",
    ]
    species = found.columns[0].type
    assert species.levels == ("Adelie", "Chinstrap", "Gentoo")
    # The file lists the species one after another.
    codes = found.rows[:, 0]
    assert (np.diff(codes)[np.diff(codes) != 0] == [2, -1]).all()
    assert set(found.rows[:, 7]) == {2007, 2008, 2009}
    assert (
        "column `year` holds 3 categories: `2007`, `2008`, `2009`; `--keep year` learns it as a number"
        in (found.notes)
    )


def test_constant_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n" + "".join(f"{i},7,8\n" for i in range(12)))
    with pytest.raises(DataError) as caught:
        load_dataset(str(path))
    assert str(caught.value) == (
        f"{path}: column `b` is constant: 7 from row 1 to row 12; so are `c`; "
        "leave out what cannot be used with `--columns a`"
    )
    with pytest.raises(DataError, match="give a table with columns that vary"):
        load_dataset(str(path), columns=["b"])


def test_too_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "".join(f"{i}\n" for i in range(9)))
    assert load_dataset(str(path), for_fit=False).rows.shape == (9, 1)
    with pytest.raises(DataError, match="9 rows are too few to learn a density from; at least 10"):
        load_dataset(str(path))
    with pytest.raises(ConfigurationError, match="`rows` must be at least 10; got 9"):
        load_dataset("moons", rows=9)


def test_names_that_lead_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UnknownNameError, match=r"unknown dataset `faithfull`; did you mean `faithful`\?"):
        load_dataset("faithfull", folder=folder)
    with pytest.raises(UnknownNameError, match=r"did you mean `moons`\?"):
        load_dataset("moon", folder=folder / "missing")
    with pytest.raises(DataError, match="no such file"):
        load_dataset("missing.csv", folder=folder)
    with pytest.raises(DataError, match="no such file"):
        load_dataset("missing/table", folder=folder)
    with pytest.raises(DataError, match="known endings"):
        load_dataset("notes.md", folder=folder)
    for name in ("x" * 5000, "", "a\0b"):
        with pytest.raises(UnknownNameError, match="unknown dataset"):
            load_dataset(name, folder=folder)
    (folder / "sub").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        load_dataset("sub", folder=folder)


@pytest.mark.parametrize("replace", [True, False])
def test_the_sum_is_that_of_the_rows_that_were_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    """Whoever writes to a file while it is read, the rows of one state never get the sum of another."""
    path = folder / "mine.csv"
    assert (
        load_dataset("mine", folder=folder).provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    )

    def read_and_change(file: TableFile, *arguments: Any, **options: Any) -> object:
        table = read_table(file, *arguments, **options)
        changed = path.read_bytes().replace(b"1", b"2")
        if replace:
            (folder / "other").write_bytes(changed)
            os.replace(folder / "other", path)
        else:
            path.write_bytes(changed)
        return table

    monkeypatch.setattr(catalogue, "read_table", read_and_change)
    with pytest.raises(DataError, match=r"mine\.csv: the file changed while it was read; try again"):
        load_dataset("mine", folder=folder)


def test_one_name_for_two_files(folder: Path) -> None:
    np.save(folder / "mine.npy", np.ones((3, 2)))
    with pytest.raises(ConfigurationError, match=r"could be any of .*mine\.csv, .*mine\.npy"):
        load_dataset("mine", folder=folder)
    assert load_dataset("mine.csv", folder=folder).rows.shape == (20, 2)


def test_list(folder: Path) -> None:
    (folder / "broken.npy").write_bytes(b"not an array")
    listed = {summary.name: summary for summary in list_datasets(folder)}
    files = ["broken", "faithful", "mine", "penguins"]
    assert list(listed) == [*TOYS.names(), *SKLEARN_TABLES, *files, *BENCHMARKS.names()]
    assert (listed["penguins"].kind, listed["penguins"].rows, listed["penguins"].columns) == ("file", 344, 8)
    assert (listed["broken"].rows, listed["broken"].columns) == (None, None)
    assert listed["broken"].description.startswith("cannot be read: ")
    assert listed["moons"].rows is None
    assert all(summary.description for summary in listed.values())
    assert "faithful" not in {summary.name for summary in list_datasets(folder / "missing")}


def test_large_files_are_listed_unread(folder: Path) -> None:
    (folder / "large.csv").write_bytes(b"\0" * (2**20 + 1))
    large = next(summary for summary in list_datasets(folder) if summary.name == "large")
    assert (large.rows, large.columns, large.description) == (None, None, "1.0 MiB")


def test_description(folder: Path) -> None:
    described = describe_dataset("faithful", folder=folder)
    eruptions, waiting = described.columns
    assert (described.name, described.rows, described.entropy) == ("faithful", 272, None)
    assert (eruptions.name, eruptions.minimum, eruptions.maximum, eruptions.distinct) == (
        "eruptions",
        1.6,
        5.1,
        126,
    )
    assert waiting.mean == pytest.approx(70.897059)
    assert waiting.sd == pytest.approx(13.594974)
    assert {column.unfit for column in described.columns} == {0}
    assert describe_dataset("checkerboard").entropy == pytest.approx(3.4657, abs=1e-4)
    assert [column.name for column in describe_dataset("wine", columns=["hue", "alcohol"]).columns] == [
        "hue",
        "alcohol",
    ]


def test_a_table_that_no_model_takes_is_described(folder: Path, tmp_path: Path) -> None:
    described = describe_dataset("penguins", folder=BUNDLED)
    columns = {column.name: column for column in described.columns}
    assert (described.rows, len(columns)) == (344, 8)
    species, mass, sex = columns["species"], columns["body_mass_g"], columns["sex"]
    assert (species.minimum, species.sd, species.distinct, species.unfit) == (None, None, 3, 344)
    assert (sex.distinct, sex.unfit) == (2, 344)
    assert (mass.minimum, mass.maximum, mass.unfit) == (2700, 6300, 2)
    path = tmp_path / "odd.csv"
    path.write_text("a,b,c\n1,inf,\n2,-inf,\n")
    one, infinite, missing = describe_dataset(str(path)).columns
    assert (one.mean, one.unfit) == (1.5, 0)
    assert (infinite.mean, infinite.distinct, infinite.unfit) == (None, 0, 2)
    assert (missing.mean, missing.distinct, missing.unfit) == (None, 0, 2)
    path.write_text("a\n3\n")
    (only,) = describe_dataset(str(path)).columns
    assert (only.mean, only.sd, only.distinct) == (3, None, 1)


def test_importing_data_imports_nothing_slow() -> None:
    code = "import sys, flowbench.data; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"torch", "pandas", "pyarrow", "sklearn", "scipy", "h5py", "seaborn"}
    assert slow.isdisjoint(done.stdout.split())


def test_real_tables(shared_data: Path) -> None:
    protein = load_dataset(str(shared_data / "protein" / "protein.csv.gz"))
    assert protein.rows.shape == (45_730, 10)
    assert protein.column_names[-1] == "c10"
    power = load_dataset(str(shared_data / "power-2007h1" / "power_2007h1.npz"), columns=["voltage"])
    assert power.rows.shape == (278_861, 1)
