"""What solvers with one step for all rows can be told."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from flowbench import options


class SteppedOptions(options.PartOptions):
    """Method, accuracy and cap on evaluations; `steps` is how many equal ones a fixed-grid method takes."""

    fixed_grid: ClassVar[tuple[str, ...]]
    method: str
    atol: float = Field(1e-5, gt=0)
    rtol: float = Field(1e-5, gt=0)
    steps: int | None = Field(None, ge=1)
    max_nfe: int = Field(10_000, ge=1)

    @property
    def adaptive(self) -> bool:
        """Whether the method chooses its own steps."""
        return self.method not in self.fixed_grid

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
