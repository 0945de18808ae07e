"""Made-up files in the layout of the benchmarks' archive, small, with the oddities of the real ones."""

import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Rows of the made-up tables.
ROWS = 230


class DataFrame:
    """What an old pandas pickles of a frame: its name and its state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return Newobj, (DataFrame,), self.state


class BlockManager:
    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return Newobj, (BlockManager,), self.state


class Index:
    def __init__(self, data: NDArray[Any]) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_Index, (Index, {"data": self.data, "name": None})


class Newobj:
    """Stands for the instruction NEWOBJ."""


def _new_Index(*args: Any) -> None:  # noqa: N802
    """Only named in pickles."""


#: Where old versions of Python, numpy and pandas had what the pickle names.
_HOMES = {
    "DataFrame": "pandas.core.frame",
    "BlockManager": "pandas.core.internals",
    "Index": "pandas.indexes.base",
    "_new_Index": "pandas.indexes.base",
    "_reconstruct": "numpy.core.multiarray",
    "ndarray": "numpy",
    "dtype": "numpy",
    "slice": "__builtin__",
}


#: The pickler in Python, whose methods can be overridden; it has no types.
_PlainPickler: Any = vars(pickle)["_Pickler"]


class Python2Pickler(_PlainPickler):  # type: ignore[misc]
    """Writes protocol 2 as Python 2 did: with byte strings, and with the names of its time."""

    dispatch = dict(_PlainPickler.dispatch)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        name = name or obj.__name__
        self.write(pickle.GLOBAL + f"{_HOMES.get(name, 'os')}\n{name}\n".encode())
        self.memoize(obj)

    def save_string(self, obj: str | bytes) -> None:
        content = obj.encode("latin-1") if isinstance(obj, str) else obj
        short = len(content) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(content)]) if short else None
        self.write((head or pickle.BINSTRING + struct.pack("<i", len(content))) + content)
        self.memoize(obj)

    dispatch[type] = save_global
    dispatch[type(_new_Index)] = save_global
    dispatch[str] = dispatch[bytes] = save_string

    def save_reduce(self, func: Any, args: Any, state: Any = None, *others: Any, **named: Any) -> None:
        if func is not Newobj:
            super().save_reduce(func, args, state, *others, **named)
            return
        self.save(args[0])
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(named["obj"])
        self.save(state)
        self.write(pickle.BUILD)


def pickled_frame(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """A pickle as `DataFrame.to_pickle` of pandas 0.18 wrote it in Python 2; one block for each type."""
    names = list(columns)
    kinds = dict.fromkeys(values.dtype for values in columns.values())
    blocks = []
    for kind in kinds:
        places = [i for i, name in enumerate(names) if columns[name].dtype == kind]
        is_run = places == list(range(places[0], places[-1] + 1))
        where = slice(places[0], places[-1] + 1, 1) if is_run else np.array(places)
        # pandas keeps a block as it came: here by columns.
        values = np.asfortranarray(np.array([columns[names[i]] for i in places]))
        blocks.append({"values": values, "mgr_locs": where})
    axes = [Index(np.array(names, dtype=object)), Index(np.arange(len(next(iter(columns.values())))))]
    manager = BlockManager((axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}}))
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(DataFrame({"_data": manager, "_typ": "dataframe", "_metadata": []}))
    return buffer.getvalue()


def power(generator: np.random.Generator) -> Floats:
    data = generator.normal(size=(ROWS, 8)).round(2)
    data[:, 7] = np.arange(ROWS) % 24
    return data


def gas(generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Sensors of which two follow a third, one its negative, and one column of whole numbers."""
    base = generator.normal(size=(4, ROWS))
    faint = 0.01 * generator.normal(size=(3, ROWS))
    columns: dict[str, NDArray[Any]] = {"Time": np.arange(ROWS) / 100, "Meth": base[3]}
    columns |= {"Eth": generator.integers(0, 5, ROWS), "R1": base[0], "R2": base[1], "R3": base[0] + faint[0]}
    return columns | {"R4": 5 * base[0] + faint[1], "R5": -base[0] + faint[2], "R6": base[2] * 3 + 7}


def hepmass(generator: np.random.Generator) -> tuple[str, str]:
    """Train and test file. `f2` repeats its least value, `f3` its largest; the test file has a tail."""
    texts = []
    for extra in (0, 1):
        rows = generator.normal(size=(2 * ROWS, 6 + extra))
        rows[:, 0] = np.arange(2 * ROWS) % 2
        rows[:, 3] = np.where(rows[:, 3] < 0, -1.5, rows[:, 3])
        rows[:, 4] = np.where(rows[:, 4] > 0, 1.5, rows[:, 4])
        names = ["# label", *(f"f{i}" for i in range(5)), *["mass"] * extra]
        lines = [",".join(names), *(",".join(map(repr, row)) for row in rows.tolist())]
        texts.append("\n".join(lines) + "\n")
    return texts[0], texts[1]


def miniboone(generator: np.random.Generator) -> Floats:
    return generator.gamma(2, size=(ROWS, 5))


def bsds300(generator: np.random.Generator) -> dict[str, Floats]:
    sizes = {"train": 120, "validation": 30, "test": 50}
    return {name: generator.normal(size=(size, 6)) for name, size in sizes.items()}


def members(seed: int = 0) -> dict[str, bytes]:
    """The content of the archive's files, by their names in there."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, array in (("power", power(generator)), ("miniboone", miniboone(generator))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        found[f"data/{name}/data.npy"] = buffer.getvalue()
    found["data/gas/ethylene_CO.pickle"] = pickled_frame(gas(generator))
    train, test = hepmass(generator)
    found |= {"data/hepmass/1000_train.csv": train.encode(), "data/hepmass/1000_test.csv": test.encode()}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for part, values in bsds300(generator).items():
            file[part] = values
    return found | {"data/BSDS300/BSDS300.hdf5": buffer.getvalue(), "data/mnist/mnist.pkl.gz": b"not needed"}


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of the `files`, packed by gzip."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_members(folder: Path, names: tuple[str, ...], seed: int = 0) -> list[Path]:
    """The files called `names`, in `folder`."""
    content = members(seed)
    paths = [folder / Path(name).name for name in names]
    for name, path in zip(names, paths, strict=True):
        path.write_bytes(content[name])
    return paths
