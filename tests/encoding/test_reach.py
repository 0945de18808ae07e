"""One extreme value beside thousands of ordinary ones: it has no effect on them and is mapped exactly."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowbench.encoding import reach
from flowbench.encoding.reach import Reach
from flowbench.encoding.standardise import Standardise
from flowbench.encoding.transform import Transform
from flowbench.models.rows import Rows
from flowbench.registry import TRANSFORMS
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import Watch, build_encoder, make_trainer, prepare

every_transform = pytest.mark.parametrize("name", TRANSFORMS.names())
#: Far beyond ten thousand spans, up to where a difference of two doubles still is one.
absurd = st.floats(1e6, 1e300).flatmap(lambda size: st.sampled_from([size, -size]))


def fitted(name: str, x: torch.Tensor) -> Transform:
    transform_class = TRANSFORMS.get(name)
    names = tuple(f"c{i}" for i in range(x.shape[1]))
    transform: Transform = transform_class(names, transform_class.Options())
    transform.fit(x)
    return transform


def normals(n: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, 2)) @ [[1.0, 0.8], [0.0, 1.0]])


@every_transform
@given(seed=st.integers(0, 1000), value=absurd, other=absurd)
def test_absurd_values_come_back_and_stay_near(name: str, seed: int, value: float, other: float) -> None:
    x = normals(300, seed)
    x[7, 0], x[8, 1], x[9, 1] = value, other, -other
    transform = fitted(name, x)
    z, log_slope = transform.to_model(x)
    assert z.abs().max() < 20
    assert z[10:].abs().max() < 5
    assert torch.isfinite(log_slope).all()
    back, back_log_slope = transform.to_data(z)
    assert ((back - x).abs() <= 1e-9 * x.abs().clamp(min=1)).all()
    assert (log_slope + back_log_slope).abs().max() < 1e-8


@every_transform
@pytest.mark.parametrize("value", [9.97e36, -1e20, 2e5])
def test_log_det_of_rows_near_and_far_is_that_of_autodiff(name: str, value: float) -> None:
    x = normals(300)
    x[7, 0] = value
    transform = fitted(name, x)
    row = x[7:8]
    between = torch.cat([row.sign() * row.abs() ** share for share in (0.2, 0.5, 0.9)])
    points = torch.cat([x[:20], between, -between, 10 * row])
    jacobian = torch.func.jacrev(lambda each: transform.to_model(each[None])[0][0])
    expected = torch.stack([torch.linalg.slogdet(jacobian(each)).logabsdet for each in points])
    z, log_slope = transform.to_model(points)
    assert (log_slope.sum(1) - expected).abs().max() < 1e-8
    assert ((transform.to_data(z)[0] - points).abs() <= 1e-9 * points.abs().clamp(min=1)).all()


@given(value=absurd, shift=st.floats(-1e3, 1e3))
def test_the_line_beyond_an_end_is_bent_without_a_jump(value: float, shift: float) -> None:
    x = normals(300)[:, :1] + shift
    x[7] = value
    bent = Reach(1)
    bent.fit(x)
    line = torch.sort(
        torch.cat([x, x.max() * torch.logspace(-3, 0, 50, dtype=torch.float64)[:, None], bent.high[None]]), 0
    )[0]
    near, log_slope = bent.to_near(line)
    assert (near.diff(dim=0) >= 0).all()
    inside = (line >= bent.low) & (line <= bent.high)
    assert torch.equal(near[inside], line[inside]) and (log_slope[inside] == 0).all()
    assert (near - near[150]).abs().max() < 6 * bent.unit
    step = 1e-9 * bent.unit
    assert bent.to_near(bent.high + step)[1].abs() < 1e-6


@every_transform
@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "lognormal"])
def test_without_absurd_values_the_parameters_are_what_they_were(
    name: str, draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.tensor(getattr(np.random.default_rng(1), draw)(size=(2000, 3)))
    transform = fitted(name, x)
    monkeypatch.setattr(reach, "FAR", float("inf"))
    unbent = fitted(name, x)
    for key, tensor in unbent.state_dict().items():
        assert "reach" in key or torch.equal(tensor, transform.state_dict()[key]), key
    for mapped, expected in zip(transform.to_model(x), unbent.to_model(x), strict=True):
        assert torch.equal(mapped, expected)
    if name == "standardise":
        assert isinstance(transform, Standardise)
        assert torch.equal(transform.mean, x.mean(0))
        assert torch.equal(transform.to_model(x)[0], (x - transform.mean) / transform.scale)


def test_nothing_is_bent_where_no_train_row_is_absurd() -> None:
    x = normals(300)
    transform = fitted("standardise", x)
    far = torch.tensor([[1e300, -1e12], [0.0, 1e200]], dtype=torch.float64)
    z, log_slope = transform.to_model(far)
    assert torch.allclose(z, (far - x.mean(0)) / x.std(0, correction=0), rtol=1e-12)
    assert torch.allclose(log_slope, -x.std(0, correction=0).log().expand(2, 2))


@every_transform
def test_runs_from_before_still_load(name: str) -> None:
    x = normals(300)
    x[7, 0] = 1e30
    transform, old = fitted(name, x), fitted(name, normals(300))
    known = {key: tensor for key, tensor in old.state_dict().items() if not key.startswith("reach")}
    transform.load_state_dict(known)
    assert torch.equal(transform.to_model(normals(300))[0], old.to_model(normals(300))[0])


def test_a_column_that_is_nearly_always_the_same_has_a_span_nevertheless() -> None:
    x = torch.zeros(2000, 1, dtype=torch.float64)
    x[:60, 0] = torch.tensor(np.random.default_rng(0).lognormal(size=60))
    x[70] = 1e36
    for name in TRANSFORMS.names():
        assert fitted(name, x).to_model(x)[0].abs().max() < 100


@pytest.mark.parametrize("column", [[0.0], [0.0, 1e100], [1.0, 1.0, 1e300], [-1e308, 1e308, 0.0]])
def test_where_nothing_tells_what_is_ordinary_all_is(column: list[float]) -> None:
    bent = Reach(1)
    x = torch.tensor(column, dtype=torch.float64)[:, None]
    assert torch.equal(bent.fit(x), x)


OPTIONS = {
    "gaussian": [],
    "mixture": ["flow.max_components=3"],
    "cnf": ["flow.field.width=16", "flow.field.scales=1", "plan.steps=40", "plan.validation_steps=40"],
}


@cache
def log_probs(model: str, transform: str, value: float | None) -> tuple[float, float]:
    """The mean of fresh rows, and that of the train row whose first cell is `value`."""
    train = normals(5000)
    if value is not None:
        train[777, 0] = value
    config = resolve("array", model, settings=[*OPTIONS[model], f'transforms=["{transform}"]'])
    prepared = prepare(config, build_encoder(config, "ab"), Rows(train[500:]), Rows(train[:500]))
    assert prepared.train.x.dtype == torch.float32 and torch.isfinite(prepared.train.x.square()).all()
    make_trainer(prepared, Watch()).run()
    judged = prepared.model.for_evaluation(config.evaluation.integrator)
    with torch.no_grad():
        far = judged.log_prob(train[777:778]).item()
        return judged.log_prob(normals(400, 5)).mean().item(), far


@pytest.mark.parametrize("value", [9.97e36, -1e20])
@pytest.mark.parametrize(
    ("model", "name", "within"),
    [
        ("gaussian", "gaussianise", 0.05),
        ("gaussian", "standardise", 0.05),
        ("mixture", "gaussianise", 0.05),
        ("mixture", "standardise", 0.05),
        ("cnf", "gaussianise", 0.3),
    ],
)
def test_one_absurd_cell_leaves_the_likelihood_of_the_others(
    model: str, name: str, within: float, value: float
) -> None:
    others, far = log_probs(model, name, value)
    assert others == pytest.approx(log_probs(model, name, None)[0], abs=within)
    assert -1e4 < far < -10
