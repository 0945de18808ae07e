"""What the files of every kind of run have in common, read once and made sense of."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar, cast

from torch import nn

from flowbench.data import Dataset, Split
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.series_dataset import SeriesDataset
from flowbench.errors import ConfigurationError, DamagedFileError, DataError
from flowbench.store import Run
from flowbench.training.state import Tensors
from flowbench.workflows.config import Configuration
from flowbench.workflows.dataset_rows import split_sizes

ConfigT = TypeVar("ConfigT", bound=Configuration)

#: What to do about files that do not belong together.
REMEDY = "one of them was changed, or the run is of another version of flowbench and has to be fitted again"
#: What runs are of, by whether it is series.
_KINDS = {False: "rows", True: "time series"}


@dataclass(frozen=True)
class StoredFiles(Generic[ConfigT]):
    """A run whose files are read when they are first asked for, each once.

    Properties and methods raise `DamagedFileError` for what this version cannot make sense of.
    """

    config_class: ClassVar[type[Configuration]]
    #: Whether the runs are on time series.
    of_series: ClassVar[bool]

    run: Run

    @cached_property
    def config(self) -> ConfigT:
        """The configuration; raises `ConfigurationError` for a run of the other kind."""
        if self.run.is_of_series != self.of_series:
            own, wanted = _KINDS[self.run.is_of_series], _KINDS[self.of_series]
            raise ConfigurationError(f"the run `{self.run.name}` is of {own}; this takes runs on {wanted}")
        try:
            return cast(ConfigT, self.config_class(**self.run.config))
        except ConfigurationError as error:
            raise DamagedFileError(
                f"the configuration in {self.run.path} was changed, or is of another version of flowbench: "
                f"{error}"
            ) from error

    @cached_property
    def dataset(self) -> Mapping[str, Any]:
        """What run.json says of the data set."""
        return self.run.dataset

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that the run was fitted on."""
        columns = self.dataset.get("columns")
        if not columns:
            raise DamagedFileError(
                f"{self.run.path / 'run.json'} does not name the columns that the run was fitted on; put "
                "back the file that it was, or fit anew"
            )
        return tuple(columns)

    @property
    @abstractmethod
    def typed(self) -> tuple[str, ...]:
        """The names of all columns of the table that the run reads as numbers."""

    @cached_property
    def types(self) -> dict[str, ColumnType]:
        """How the run's table has the values of its `typed` columns."""
        known = self.dataset.get("types", {})
        try:
            return {
                name: ColumnType.of_values(known[name]) if name in known else FLOAT64 for name in self.typed
            }
        except (ValueError, TypeError) as error:
            raise DamagedFileError(
                f"{self.run.path / 'run.json'}: `types` makes no sense: {error}"
            ) from error

    def check(self, dataset: Dataset | SeriesDataset, split: Split) -> None:
        """Raise `DataError` if data set or split are no longer those that the run recorded."""
        recorded = self.dataset.get("sha256")
        if not isinstance(recorded, str):
            raise DamagedFileError(
                f"{self.run.path / 'run.json'} does not say which data the run was begun with, so it cannot "
                "go on; put back the file that it was, or fit anew"
            )
        if recorded != dataset.provenance.sha256:
            raise DataError(
                f"the data set `{dataset.name}` has changed since the run {self.run.path} began; put the old "
                "one back, or fit anew"
            )
        begun, now = self.run.info.get("split"), split_sizes(split)
        if begun not in (None, now):
            raise DataError(
                f"the run {self.run.path} began with other parts of its table ({_sizes(begun)}) than are "
                f"drawn now ({_sizes(now)}): it is of another version of flowbench, or the table has "
                "changed; fit anew"
            )

    def load(self, module: nn.Module, tensors: Tensors, what: str) -> None:
        """Give `module` these tensors; raises `DamagedFileError` if they are not its own."""
        where = f"{what} in {self.run.path} does not fit its configuration"
        try:
            found = module.load_state_dict(tensors, strict=False)
        except RuntimeError as error:  # of shapes alone, where names are not strict
            raise DamagedFileError(f"{where}: {' '.join(str(error).split())}; {REMEDY}") from error
        for complaint, names in (("lacks", found.missing_keys), ("has no place for", found.unexpected_keys)):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise DamagedFileError(f"{where}: it {complaint} the tensor `{names[0]}`{more}; {REMEDY}")


def _sizes(parts: object) -> str:
    if not isinstance(parts, dict):
        return "unknown sizes"
    return ", ".join(f"{name} {number}" for name, number in parts.items())
