"""Encoders fitted to rows with whole-numbered weights, against those of repeated rows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from flowbench.data.schema import Support
from flowbench.encoding.gaussianise import _choose_pieces, _fit_spline
from flowbench.encoding.reach import Reach
from flowbench.encoding.support_map import SupportMap
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.registry import TRANSFORMS


def rows(n: int = 1001) -> tuple[Tensor, Tensor]:
    """Skewed rows (n, 2) with ties, and weights from 1 to 3 that follow them."""
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(n, 2)).round(2) + 0.01
    return torch.tensor(x), torch.tensor(1.0 + np.clip(np.floor(x[:, 0]), 0, 2))


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_a_transform_of_heavier_rows_is_nearer_to_them(name: str) -> None:
    """Under its own weights a column has the mean 0 and the standard deviation 1, whatever the transform."""
    x, weights = rows()
    made = TRANSFORMS.get(name)
    encoder = TableEncoder(("a", "b"), [made(("a", "b"), made.Options())])
    z = encoder.fit(x, weights=weights).numpy()
    mean = np.average(z, axis=0, weights=weights)
    deviation = np.average((z - mean) ** 2, axis=0, weights=weights) ** 0.5
    assert mean == pytest.approx([0, 0], abs=0.03)
    assert deviation == pytest.approx([1, 1], abs=0.05)
    plain = TableEncoder(("a", "b"), [made(("a", "b"), made.Options())]).fit(x).numpy()
    assert abs(np.average(plain[:, 0], weights=weights)) > 0.3


def test_standardised_rows_are_those_of_repeated_rows() -> None:
    x, weights = rows()
    made = TRANSFORMS.get("standardise")
    found, expected = (made(("a", "b"), made.Options()) for _ in range(2))
    found.fit(x, 1e-9 * weights)
    expected.fit(x.repeat_interleave(weights.long(), 0))
    assert found.mean.numpy() == pytest.approx(expected.mean.numpy(), rel=1e-12)
    assert found.scale.numpy() == pytest.approx(expected.scale.numpy(), rel=1e-12)


@pytest.mark.parametrize("pieces", [0, 8])
def test_a_spline_is_that_of_repeated_rows(pieces: int) -> None:
    x, weights = rows()
    column, counts = x[:, 0].numpy(), weights.numpy()
    found = _fit_spline(column, pieces, counts)
    expected = _fit_spline(np.repeat(column, counts.astype(int)), pieces)
    # The repeated rows are more, so their knots may reach farther out.
    images = expected.images.numpy()[0]
    for at, image in zip(found.knots.numpy()[0], found.images.numpy()[0], strict=True):
        if np.isclose(images, image).any():
            assert at == pytest.approx(expected.knots.numpy()[0][np.isclose(images, image)][0], rel=1e-9)
    inner = np.isclose(found.images.numpy()[0][:, None], images).any(1).sum()
    assert inner >= 3


def test_pieces_need_effective_rows() -> None:
    """A skewed column whose weight lies on few rows is left straight: so few cannot tell a shape."""
    column = np.random.default_rng(1).exponential(size=4000)
    column = (column - column.mean()) / column.std()
    assert _choose_pieces(column, 256, np.ones(4000)) == _choose_pieces(column, 256, None) >= 4
    weights = np.full(4000, 1e-6)
    weights[::100] = 1.0
    assert _choose_pieces(column, 256, weights) == 0


def test_the_unit_of_a_support_is_a_weighted_quantile() -> None:
    x, weights = rows()
    found, plain, expected = (SupportMap(("a", "b"), {"a": Support(0.0, np.inf)}) for _ in range(3))
    found.fit(x, weights)
    plain.fit(x)
    expected.fit(x.repeat_interleave(weights.long(), 0))
    assert found.unit[0].item() == pytest.approx(expected.unit[0].item(), abs=0.011)
    assert found.unit[0] > plain.unit[0]


def test_a_value_far_from_the_heavy_rows_is_brought_near() -> None:
    """Half of the rows lie far out; with next to no weight they do not widen the span."""
    x = torch.cat([torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 1e9)])
    weights = torch.cat([torch.ones(50), torch.full((50,), 1e-6)])
    assert Reach(1).fit(x.double()).max() == 1e9
    assert Reach(1).fit(x.double(), weights.double()).max() < 100
