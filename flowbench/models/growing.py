"""Buffers whose length only a fit, or a file, knows."""

from typing import Any

from torch import Tensor, nn


class GrowingBuffers(nn.Module):
    """A module whose buffers `growing` have a first axis that is as long as those which are loaded."""

    growing: tuple[str, ...]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        first = state_dict.get(prefix + self.growing[0])
        if isinstance(first, Tensor) and first.ndim:
            # All as long as the first, so that loading refuses those which are not.
            for name in self.growing:
                own = getattr(self, name)
                self.register_buffer(name, own.new_zeros(len(first), *own.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *args)
