"""A flow and the rows it is measured on, in one file that every contender reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import base_log_prob
from flowbench.models.rows import Rows
from flowbench.training.criterion import RowCriterion
from flowbench.training.plan import TrainingPlan
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

WEIGHT = "flow."


def save_problem(path: Path, flow: ContinuousFlow, rows: Tensor) -> None:
    """Write the flow's options and weights and `rows: (n, d)` in model space, as `.npz`."""
    weights = {WEIGHT + name: value.numpy() for name, value in flow.state_dict().items()}
    options = json.dumps(flow.options.model_dump(mode="json"))
    np.savez(path, rows=rows.numpy(), options=np.array(options), **weights)


def read_problem(path: str | Path) -> tuple[dict[str, Any], NDArray[Any], dict[str, NDArray[Any]]]:
    """The options, the rows (n, d) and the weights by name."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name.removeprefix(WEIGHT): file[name] for name in file if name.startswith(WEIGHT)}
        return json.loads(str(file["options"])), file["rows"], weights


def load_problem(path: str | Path, dtype: str = "float32") -> tuple[ContinuousFlow, Tensor]:
    """The flow and the rows (n, d) in `dtype`."""
    options, rows, weights = read_problem(path)
    flow = ContinuousFlow(rows.shape[1], ContinuousOptions(**options), torch.Generator())
    flow.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    kind = getattr(torch, dtype)
    return flow.to(kind), torch.from_numpy(rows).to(kind)


def perturbed_flow(features: int, field: dict[str, Any], spread: float) -> ContinuousFlow:
    """A flow with every weight moved by `spread` times a standard normal, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    flow = ContinuousFlow(features, ContinuousOptions(field=field), generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return flow


def fitted_problem(path: Path, train: NDArray[Any], rows: NDArray[Any], *, steps: int) -> None:
    """Fit the default flow on standardised `train: (n, d)` and write it with `rows: (m, d)`."""
    transform = Standardise(tuple(map(str, range(train.shape[1]))), StandardiseOptions())
    x = torch.tensor(train)
    transform.fit(x)
    z = transform.to_model(x)[0].float()
    flow = ContinuousFlow(train.shape[1], ContinuousOptions(), torch.Generator().manual_seed(0))
    flow.initialise(z)
    kind = "toy" if flow.features == 2 else "table"
    plan = TrainingPlan(**{**flow.default_plan(kind), "steps": steps, "validation_steps": steps})
    table = TrainingRows(Rows(z[1000:]), Rows(z[:1000]))
    generator = torch.Generator().manual_seed(0)
    Trainer(flow, plan, table, generator=generator, criterion=RowCriterion()).run()
    save_problem(path, flow, transform.to_model(torch.tensor(rows))[0])


def carried(direction: str, rows: Tensor, value: Tensor, log_det: Tensor) -> dict[str, NDArray[Any]]:
    """What `rows` are scored (`to_base`), or drawn (`to_data`) with their likelihoods; float64."""
    if direction == "to_base":
        return {"log_prob": (base_log_prob(value) + log_det).double().numpy()}
    log_prob = (base_log_prob(rows) - log_det).double().numpy()
    return {"x": value.double().numpy(), "log_prob": log_prob}


def gradients(flow: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """The gradients of the parameters by name, float64."""
    return {
        name: parameter.grad.double().numpy()
        for name, parameter in flow.named_parameters()
        if parameter.grad is not None
    }
