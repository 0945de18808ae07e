"""What every transform of the registry must do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowbench.errors import DataError
from flowbench.registry import TRANSFORMS
from flowbench.transforms.base import Transform

COLUMNS = ("a", "b", "c")
every_transform = pytest.mark.parametrize("name", TRANSFORMS.names())


def fitted(name: str, x: torch.Tensor) -> Transform:
    transform_class = TRANSFORMS.get(name)
    transform = transform_class(COLUMNS, transform_class.Options())
    transform.fit(x)
    return transform


def table(seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    rows = np.stack(
        [generator.normal(size=300), generator.exponential(size=300), generator.uniform(size=300)], 1
    )
    return torch.tensor(shift + scale * rows)


@every_transform
@given(seed=st.integers(0, 1000), exponent=st.integers(-8, 8), shift=st.floats(-1e3, 1e3))
def test_round_trip_and_log_dets(name: str, seed: int, exponent: int, shift: float) -> None:
    scale = 10.0**exponent
    x = table(seed, scale, shift * scale)
    transform = fitted(name, x)
    z, log_det = transform.to_model(x)
    back, back_log_det = transform.to_data(z)
    assert (back - x).abs().max() < 1e-9 * x.abs().max()
    assert (log_det + back_log_det).abs().max() < 1e-9


@every_transform
def test_log_det_against_autodiff(name: str) -> None:
    x = table(0)
    transform = fitted(name, x)
    jacobian = torch.func.jacrev(lambda row: transform.to_model(row[None])[0][0])
    # Rows within the train rows, at their ends, and far beyond them.
    x = torch.cat([x[:50], x.amin(0)[None], x.amax(0)[None], 10 * x[:5]])
    expected = torch.stack([torch.linalg.slogdet(jacobian(row)).logabsdet for row in x])
    assert (transform.to_model(x)[1] - expected).abs().max() < 1e-9


@every_transform
def test_train_rows_become_standard(name: str) -> None:
    x = table(1, 50.0, 7.0)
    z, _ = fitted(name, x).to_model(x)
    assert z.mean(0).abs().max() < 0.05
    assert (z.std(0) - 1).abs().max() < 0.05


@every_transform
def test_saved_and_loaded_alike(name: str) -> None:
    transform = fitted(name, table(2))
    other = fitted(name, table(3))
    other.load_state_dict(transform.state_dict())
    x = table(4)
    assert torch.equal(other.to_model(x)[0], transform.to_model(x)[0])
    numbers = [tensor for tensor in transform.state_dict().values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float64 for tensor in numbers)
    assert not list(transform.parameters())


@every_transform
@pytest.mark.parametrize("value", [0.0, 3.0, 1e9])
def test_a_column_without_spread_is_refused_by_name(name: str, value: float) -> None:
    x = table(5)
    x[:, 1] = value
    with pytest.raises(DataError, match="column `b` has no finite spread in the 300 train rows"):
        fitted(name, x)


@given(rows=arrays(np.float64, (5, 3), elements=st.floats(-1e100, 1e100)))
def test_standardise_is_exact_or_refuses(rows: np.ndarray) -> None:
    try:
        transform = fitted("standardise", torch.tensor(rows))
    except DataError:
        return
    z, log_det = transform.to_model(torch.tensor(rows))
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
