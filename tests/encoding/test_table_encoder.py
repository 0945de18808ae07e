"""The encoder of a table with every transform: inversion, log-determinant, saving and loading."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowbench.data.lattice import Lattice
from flowbench.data.schema import POSITIVE, Support
from flowbench.encoding import table_encoder
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.support_map import SupportMap
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.encoding.transform import Transform
from flowbench.errors import ConfigurationError, DataError
from flowbench.registry import TRANSFORMS
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.training.state import from_arrays, to_arrays

COLUMNS = ("count", "x", "height")
CELLS = {"count": Lattice(1.0), "height": Lattice(0.1, 0.03)}
#: Half a step below the least count, and below the least number.
ENDS = {"count": Support(-0.5), "x": POSITIVE}
#: None of them, each by itself, and one after another.
CHAINS = [[], *([name] for name in TRANSFORMS.names()), ["standardise", "gaussianise", "standardise"]]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids="-".join)


def table(n: int = 400, seed: int = 0) -> Tensor:
    """Rows with a column of whole numbers, one of any, and one of tenths."""
    random = np.random.default_rng(seed)
    columns = [random.poisson(4.0, n), random.exponential(size=n), np.round(random.normal(9, 1, n), 1) + 0.03]
    return torch.tensor(np.stack(columns, 1), dtype=torch.float64)


def transform(name: str, columns: tuple[str, ...] = COLUMNS) -> Transform:
    made: Transform = TRANSFORMS.get(name)(columns, TRANSFORMS.get(name).Options())
    return made


def untrained(chain: list[str], cells: Mapping[str, Lattice] = CELLS) -> TableEncoder:
    parts = [transform(name) for name in chain]
    return TableEncoder(COLUMNS, parts, Dequantiser(COLUMNS, cells), SupportMap(COLUMNS, ENDS))


def places(encoder: TableEncoder, rows: Tensor) -> Tensor:
    return encoder.jitter(rows, np.random.default_rng(1))


def fitted(chain: list[str]) -> TableEncoder:
    encoder = untrained(chain)
    encoder.fit(places(encoder, table()))
    return encoder


@every_chain
def test_rows_go_to_model_space_and_back(chain: list[str]) -> None:
    encoder, rows = fitted(chain), table(seed=2)
    x = places(encoder, rows)
    z, log_det = encoder.to_model(x)
    back, back_log_det = encoder.to_data(z)
    assert torch.allclose(back, x, rtol=1e-9) and torch.allclose(back_log_det, -log_det, atol=1e-9)
    # And to the table: from any place of a cell to its value.
    restored = encoder.restore(back)
    assert torch.allclose(restored, rows, rtol=1e-9)
    assert torch.equal(restored[:, 0], rows[:, 0])


@every_chain
def test_the_log_determinant_is_that_of_autodiff(chain: list[str]) -> None:
    encoder = fitted(chain)
    x = places(encoder, table(40, seed=3))
    to_model, to_data = (
        torch.func.jacrev(lambda row, go=go: go(row[None])[0][0])
        for go in (encoder.to_model, encoder.to_data)
    )
    z, log_det = encoder.to_model(x)
    for point, jacobian, claimed in ((x, to_model, log_det), (z, to_data, -log_det)):
        expected = torch.stack([torch.linalg.slogdet(jacobian(row)).logabsdet for row in point])
        assert torch.allclose(claimed, expected, atol=1e-9)


@every_chain
def test_a_fit_returns_the_rows_in_model_space(chain: list[str]) -> None:
    encoder, told = untrained(chain), list[str]()
    x = places(encoder, table())
    z = encoder.fit(x, told.append)
    assert torch.equal(z, encoder.to_model(x)[0])
    assert told == [f"fitting the transform {name}" for name in chain]


@every_chain
def test_saved_and_loaded_bit_for_bit(chain: list[str], tmp_path: Path) -> None:
    encoder = fitted(chain)
    write_tensors(tmp_path / "encoder.safetensors", to_arrays(encoder.state_dict()), {})
    loaded = untrained(chain, {})
    loaded.load_state_dict(from_arrays(read_tensors(tmp_path / "encoder.safetensors")[0]))
    assert loaded.dequantiser.lattices == CELLS
    rows = table(seed=4)
    for draw in range(4):
        assert torch.equal(loaded.spread(rows, draw, 4), encoder.spread(rows, draw, 4))
    x = places(loaded, rows)
    assert torch.equal(x, places(encoder, rows)) and torch.equal(loaded.restore(x), encoder.restore(x))
    for one, other in zip(loaded.to_model(x), encoder.to_model(x), strict=True):
        assert torch.equal(one, other)
    assert all(tensor.dtype in (torch.float64, torch.int64) for tensor in encoder.state_dict().values())
    assert not list(encoder.parameters())


def test_the_lattices_are_buffers_with_nothing_where_a_column_is_continuous() -> None:
    state = untrained([]).state_dict()
    assert list(state) == [
        *("dequantiser.steps", "dequantiser.origins"),
        *("support.low", "support.high", "support.unit"),
        *("circle.low", "circle.high"),
    ]
    assert torch.equal(
        state["dequantiser.steps"].nan_to_num(-1), torch.tensor([1, -1, 0.1], dtype=torch.float64)
    )
    assert torch.equal(
        state["dequantiser.origins"].nan_to_num(-1), torch.tensor([0, -1, 0.03], dtype=torch.float64)
    )


def test_parts_of_other_columns_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the Standardise of the columns a, b cannot encode count"):
        TableEncoder(COLUMNS, [transform("standardise", ("a", "b"))])
    with pytest.raises(ConfigurationError, match="the Dequantiser of the columns x, count, height cannot"):
        TableEncoder(COLUMNS, [], Dequantiser(("x", "count", "height")))
    with pytest.raises(ConfigurationError, match="unknown column `heigth`; did you mean `height`"):
        Dequantiser(COLUMNS, {"heigth": Lattice(1.0)})


@every_chain
def test_rows_outside_the_support_have_no_density(chain: list[str]) -> None:
    encoder, rows = fitted(chain), table(5, seed=4)
    rows[0, 1], rows[1, 0], rows[2, 1] = 0.0, -1.0, -3.0
    z, log_det = encoder.to_model(rows)
    assert (log_det[:3] == -math.inf).all() and log_det[3:].isfinite().all() and z.isfinite().all()
    with pytest.raises(DataError, match=r"column `x` holds 0, which is not above 0.*; nor are 2 of 5 rows"):
        untrained(chain).fit(rows)
    drawn, _ = encoder.to_data(50 * torch.randn(500, 3, dtype=torch.float64))
    assert encoder.support.holds(drawn).all()


def test_a_box_has_whole_cells_and_ends_with_the_support() -> None:
    encoder = untrained([])
    count, x, height = encoder.whole_box(((-3.0, 4.2), (-2.0, 5.0), (9.0, 9.2)))
    assert count == pytest.approx((-0.5, 4.5)) and x == (0.0, 5.0)
    assert height == pytest.approx((8.98, 9.28))


@pytest.mark.parametrize("shape", [(5, 2), (5, 4), (3,), (1, 5, 3)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    encoder, x = fitted(["standardise"]), torch.zeros(shape, dtype=torch.float64)
    says = r"rows must have shape \(n, 3\), for the columns count, x, height; got \("
    for attempt in (
        lambda: encoder.to_model(x),
        lambda: encoder.to_data(x),
        lambda: encoder.fit(x),
        lambda: encoder.spread(x, 0),
        lambda: encoder.restore(x),
        lambda: encoder.jitter(x, np.random.default_rng(0)),
    ):
        with pytest.raises(ConfigurationError, match=says):
            attempt()


def test_rows_that_do_not_determine_a_transform_are_refused() -> None:
    with pytest.raises(DataError, match="column `x` has one value"):
        untrained(["standardise"]).fit(torch.tensor([[1.0, 5.0, 2.0], [2.0, 5.0, 3.0]]).double())


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_rows_in_blocks_are_those_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    kind, columns = TRANSFORMS.get(name), ("a", "b", "c")

    def encoder() -> TableEncoder:
        return TableEncoder(columns, [kind(columns, kind.Options())])

    whole = encoder().fit(x)
    monkeypatch.setattr(table_encoder, "BLOCK", 300)
    blocked = encoder().fit(x)
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-13)
    assert blocked.stride() == whole.stride()
