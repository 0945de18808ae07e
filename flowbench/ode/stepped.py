"""Options of solvers with one step size for all rows."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from flowbench.ode.integrator import IntegratorOptions


class SteppedOptions(IntegratorOptions):
    """Method, tolerances and cap on evaluations; `steps` is the number of equal steps on a fixed grid."""

    fixed_grid: ClassVar[tuple[str, ...]]
    method: str
    steps: int | None = Field(None, ge=1)

    @property
    def adaptive(self) -> bool:
        """Whether the method chooses its own steps."""
        return self.method not in self.fixed_grid

    def refined(self, level: int = 1) -> Self:
        """See `IntegratorOptions`; a fixed grid gets twice the steps, `level` times, at equal tolerances."""
        if self.steps is None:
            return super().refined(level)
        return self._with(steps=self.steps * 2**level, max_nfe=self.max_nfe * 2**level)

    @model_validator(mode="after")
    def _steps_fit_method(self) -> Self:
        if self.adaptive and self.steps is not None:
            raise ValueError(
                f"`steps` is for fixed-grid methods and `{self.method}` chooses its own; leave it out, "
                f"or choose one of {', '.join(self.fixed_grid)}"
            )
        if not self.adaptive and self.steps is None:
            raise ValueError(f"`{self.method}` has a fixed grid and needs `steps`, for example steps=20")
        return self
