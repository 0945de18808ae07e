"""Buffers whose length is set by a fit or by the file that is loaded."""

from typing import Any

from torch import Tensor, nn


class GrowingBuffers(nn.Module):
    """A module whose buffers in `growing` take the length of their first axis from the loaded state."""

    growing: tuple[str, ...]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        first = state_dict.get(prefix + self.growing[0])
        if isinstance(first, Tensor) and first.ndim:
            # All get the length of the first buffer, so that loading refuses buffers of other lengths.
            for name in self.growing:
                own = getattr(self, name)
                self.register_buffer(name, own.new_zeros(len(first), *own.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *args)
