"""The optimisers of a training phase, and their state as named tensors."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowbench.training.state import Tensors

OptimizerName = Literal["adamw", "soap"]

#: Longer sides of a weight matrix get no eigenbasis: that of 9,000 inputs, as 1,000 columns make, would take
#: minutes to find.
MAX_PRECONDITIONED = 1024
TRANSPOSED = "transposed"
#: Of a type that no optimiser's state has.
EMPTY_LIST = torch.empty(0, dtype=torch.bool)


def make_optimizer(name: OptimizerName, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of that name. Its rate is zero until `set_rate` gives it one."""
    # As a group, since a density that is fitted in closed form may have no parameters.
    group = {"params": list(parameters)}
    if name == "adamw":
        return torch.optim.AdamW([group], lr=0.0, weight_decay=0.0, fused=True)
    # Takes a second to import.
    from pytorch_optimizer import SOAP

    return SOAP([group], lr=0.0, weight_decay=0.0, max_precondition_dim=MAX_PRECONDITIONED)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Let the next step use this learning rate and this weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        group["weight_decay"] = weight_decay


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimiser's state as copies, each named "<parameter>/<quantity>" or "group/<quantity>".

    A number becomes a float64 tensor without axes. A list becomes one tensor for each of its places, and an
    empty list `EMPTY_LIST`. A matrix whose columns are contiguous is transposed, and its name says so.
    """
    whole = optimizer.state_dict()
    (group,) = whole["param_groups"]
    parts = [(f"{i}/{key}", value) for i, part in whole["state"].items() for key, value in part.items()]
    parts += [(f"group/{key}", group[key]) for key in _counted(optimizer, group)]
    return {name: tensor for part in parts for name, tensor in _flatten(*part)}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    (group,) = optimizer.state_dict()["param_groups"]
    state: dict[int, dict[str, Any]] = {}
    # In the order of a list's places, whatever that of a file is.
    for name, tensor in sorted(tensors.items()):
        owner, key, *place = name.split("/")
        if place[-1:] == [TRANSPOSED]:
            place, tensor = place[:-1], tensor.mT
        part = group if owner == "group" else state.setdefault(int(owner), {})
        if place:
            part.setdefault(key, []).append(_value(tensor))
        else:
            part[key] = _value(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": [group]})


def _counted(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> list[str]:
    """What the optimiser keeps in its group beside the options that it was made with."""
    return [key for key in group if key != "params" and key not in optimizer.defaults]


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.ndim == 2 and value.mT.is_contiguous():
        # The layout decides how products are rounded.
        yield f"{name}/{TRANSPOSED}", value.detach().mT.clone()
    elif isinstance(value, Tensor):
        yield name, value.detach().clone()
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            yield from _flatten(f"{name}/{place}", each)
    elif isinstance(value, list):
        yield name, EMPTY_LIST
    else:
        yield name, torch.tensor(value, dtype=torch.float64)


def _value(tensor: Tensor) -> Any:
    if tensor.ndim == 0 and tensor.dtype == torch.float64:
        number = float(tensor)
        return int(number) if number.is_integer() else number
    return [] if tensor.dtype == EMPTY_LIST.dtype else tensor.clone()
