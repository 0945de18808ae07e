"""The published steps of each benchmark, against a plain version of them that shares no code."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_benchmarks import Floats, bsds300, gas, hepmass, members, miniboone, power, write_members

from flowbench.data.benchmark_steps import preprocess
from flowbench.errors import DataError
from flowbench.registry import BENCHMARKS

Parts = tuple[Floats, Floats, Floats]


def made(name: str, seed: int) -> object:
    """What `members` put into the files of a benchmark."""
    generator = np.random.default_rng(seed)
    found: dict[str, object] = {}
    makers: dict[str, Callable[[np.random.Generator], object]] = {"power": power, "miniboone": miniboone}
    makers |= {"gas": gas, "hepmass": hepmass, "bsds300": bsds300}
    for each, make in makers.items():
        found[each] = make(generator)
    return found[name]


def tenths(rows: Floats) -> Parts:
    held_out = int(0.1 * rows.shape[0])
    train, test = rows[0:-held_out], rows[-held_out:]
    held_out = int(0.1 * train.shape[0])
    return train[0:-held_out], train[-held_out:], test


def scaled_by_the_first_two(parts: Parts) -> Parts:
    known = np.vstack(parts[:2])
    mean = known.sum(axis=0) / len(known)
    sd = np.sqrt(((known - mean) ** 2).sum(axis=0) / len(known))
    first, second, third = ((part - mean) / sd for part in parts)
    return first, second, third


def plain_power(seed: int) -> Parts:
    data = np.array(made("power", seed))
    stream = np.random.RandomState(42)
    stream.shuffle(data)
    data = np.delete(data, 3, axis=1)
    data = np.delete(data, 1, axis=1)
    n = data.shape[0]
    to_voltage = 0.01 * stream.rand(n, 1)
    to_power = 0.001 * stream.rand(n, 1)
    to_meters = stream.rand(n, 3)
    data = data + np.hstack((to_power, to_voltage, to_meters, np.zeros((n, 1))))
    return scaled_by_the_first_two(tenths(data))


def plain_gas(seed: int) -> Parts:
    columns = made("gas", seed)
    assert isinstance(columns, dict)
    left = [np.asarray(columns[name], dtype=float) for name in columns if name not in ("Meth", "Eth", "Time")]
    while True:
        alike = [sum(np.corrcoef(one, other)[0, 1] > 0.98 for other in left) > 1 for one in left]
        if not any(alike):
            break
        left.pop(alike.index(True))
    data = np.array([(each - each.mean()) / each.std(ddof=1) for each in left]).T
    return tenths(data)


def plain_hepmass(seed: int) -> Parts:
    texts = made("hepmass", seed)
    assert isinstance(texts, tuple)
    train, test = (np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1) for text in texts)
    train, test = train[train[:, 0] == 1][:, 1:], test[test[:, 0] == 1][:, 1:-1]
    mean, sd = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - mean) / sd, (test - mean) / sd
    kept = [i for i, values in enumerate(train.T) if np.unique(values, return_counts=True)[1][0] <= 5]
    held_out = int(len(train) * 0.1)
    return train[0:-held_out][:, kept], train[-held_out:][:, kept], test[:, kept]


def plain_miniboone(seed: int) -> Parts:
    return scaled_by_the_first_two(tenths(np.array(made("miniboone", seed))))


def plain_bsds300(seed: int) -> Parts:
    parts = made("bsds300", seed)
    assert isinstance(parts, dict)
    return parts["train"], parts["validation"], parts["test"]


PLAIN: dict[str, Callable[[int], Parts]] = {
    "power": plain_power,
    "gas": plain_gas,
    "hepmass": plain_hepmass,
    "miniboone": plain_miniboone,
    "bsds300": plain_bsds300,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PLAIN)
def test_steps_are_those_of_the_papers(tmp_path: Path, name: str, seed: int) -> None:
    found = preprocess(name, write_members(tmp_path, BENCHMARKS.get(name).members, seed))
    for part, plain in zip(found.parts, PLAIN[name](seed), strict=True):
        assert part.dtype == np.float32
        assert part.shape == (len(plain), len(found.names))
        # Two roundings to float32, of float64 that agree but for the order of sums.
        np.testing.assert_allclose(part, plain.astype(np.float32), rtol=3e-7, atol=1e-7)


def test_every_benchmark_has_steps() -> None:
    assert set(PLAIN) == set(BENCHMARKS.names())


def test_gas_drops_the_first_of_alike_columns_and_keeps_their_negative(tmp_path: Path) -> None:
    found = preprocess("gas", write_members(tmp_path, BENCHMARKS.get("gas").members))
    assert found.names == ("R2", "R4", "R5", "R6")


def test_hepmass_drops_columns_by_their_smallest_value_alone(tmp_path: Path) -> None:
    found = preprocess("hepmass", write_members(tmp_path, BENCHMARKS.get("hepmass").members))
    assert found.names == ("f0", "f1", "f3", "f4")


def test_the_time_of_power_gets_no_noise(tmp_path: Path) -> None:
    found = preprocess("power", write_members(tmp_path, BENCHMARKS.get("power").members))
    distinct = [len(np.unique(values)) for values in np.concatenate(found.parts).T]
    assert distinct[-1] == 24
    assert min(distinct[:-1]) > 200


# Lines of text that are cut off are told by the archive's hash alone.
@pytest.mark.parametrize(
    ("name", "length"), [(name, n) for name in PLAIN for n in (0, 5, 200) if (name, n) != ("hepmass", 200)]
)
def test_files_cut_short_are_data_errors(tmp_path: Path, name: str, length: int) -> None:
    paths = write_members(tmp_path, BENCHMARKS.get(name).members)
    paths[-1].write_bytes(paths[-1].read_bytes()[:length])
    with pytest.raises(DataError, match=str(paths[-1].name)):
        preprocess(name, paths)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    np.save(path, np.full((30, 8), None, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"data\.npy"):
        preprocess("power", [path])


def test_an_array_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    np.save(path, np.zeros((30, 7)))
    with pytest.raises(DataError, match=r"shape \(30, 7\)"):
        preprocess("power", [path])


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    np.save(path, np.zeros((30, 3)))  # constant columns have no scale
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="not finite"):
        preprocess("miniboone", [path])


def test_members_are_those_that_the_facts_name() -> None:
    named = {member for name in BENCHMARKS.names() for member in BENCHMARKS.get(name).members}
    assert named <= set(members())
