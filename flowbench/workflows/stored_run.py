"""A run as the workflows see it: what its files hold, read once and made sense of."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from flowbench.data.periods import Period
from flowbench.encoding.circle import Circle, periods_of
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.support_map import SupportMap
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.models.density_model import DensityModel
from flowbench.models.givens import Givens
from flowbench.models.rows import Rows
from flowbench.store import Run
from flowbench.training.state import Tensors, TrainingState, from_arrays, to_arrays
from flowbench.workflows.config import Configuration, RunConfig
from flowbench.workflows.machine import is_there
from flowbench.workflows.preparation import build_encoder, build_givens, build_mass, build_model
from flowbench.workflows.stored_files import REMEDY, StoredFiles

#: What the names of the encoder's tensors begin with, among the weights and in the state of training.
_IN_MODEL, _IN_STATE, _GIVENS_IN_STATE = "encoder.", "encoder/", "givens/"
#: The largest relative difference between a number and the nearest one in single precision.
SINGLE = float(np.finfo(np.float32).eps) / 2
#: In the state, the seconds that went into the fit of the encoder.
_SECONDS = "encoder_seconds"

Part = TypeVar("Part")


@dataclass(frozen=True)
class SavedState:
    """What a run goes on from: the state of training, if one was saved, and the encoder that it began with.

    `seconds`, wall and CPU, went into the fit of the encoder; None where its transforms are not fitted yet.
    """

    training: TrainingState | None
    encoder: TableEncoder
    givens: Givens | None
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class StoredRun(StoredFiles[RunConfig]):
    """A run on the rows of a table."""

    config_class: ClassVar[type[Configuration]] = RunConfig
    of_series: ClassVar[bool] = False

    @property
    def typed(self) -> tuple[str, ...]:
        """The columns, those that the density is given last."""
        return (*self.columns, *self.given)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the columns that the run's density is given."""
        return tuple(self.dataset.get("given", ()))

    @property
    def order(self) -> tuple[str, ...]:
        """All columns, in the order of the table if the run has learnt categories, else the givens last."""
        return tuple(self.dataset.get("order", self.typed))

    @property
    def categorical(self) -> tuple[str, ...]:
        """Those of the given columns whose probability mass the run has learnt."""
        return tuple(self.dataset.get("categorical", ()))

    @property
    def atoms(self) -> dict[str, list[float]]:
        """The atoms of columns, by name; the last of the given columns tell which one a row holds."""
        return dict(self.dataset.get("atoms", {}))

    @cached_property
    def periods(self) -> dict[str, Period]:
        """The periods of the periodic columns, given ones too, by name."""
        try:
            return periods_of(self.dataset.get("periodic", {}))
        except (ValueError, TypeError, AttributeError) as error:
            raise self._not_as_written("periodic", error) from error

    @property
    def states(self) -> tuple[str, ...]:
        """Those of the given columns that tell which atom a row holds; no table has them."""
        return self.given[len(self.given) - len(self.atoms) :]

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that a table needs, those that the density is given last."""
        return tuple(name for name in self.typed if name not in self.states)

    @cached_property
    def levels(self) -> dict[str, list[float]]:
        """The levels of those of the given columns that have some, by name."""
        found = self.dataset.get("levels", {})
        if not isinstance(found, dict) or not set(self.categorical) <= set(found) <= set(self.given):
            raise DamagedFileError(
                f"{self.run.path / 'run.json'}: `levels` are not those of the categories that the run is "
                f"given; {REMEDY}"
            )
        return found

    @cached_property
    def model(self) -> DensityModel:
        """The fitted model, on the CPU."""
        arrays, metadata = self.run.load_model()
        if metadata.get("columns") != ",".join(self.columns):
            raise DamagedFileError(
                f"the model in {self.run.path} is of the columns {metadata.get('columns')}, where run.json "
                f"names {', '.join(self.columns)}; {REMEDY}"
            )
        tensors = self._as_named_now(from_arrays(arrays))
        try:
            model = build_model(
                self.config,
                build_encoder(self.config, self.columns, atoms=self.atoms),
                build_givens(self.config, self.given, self.levels, self.periods),
                build_mass(self.categorical, self.levels),
            )
        except ConfigurationError as error:
            raise DamagedFileError(
                f"the configuration in {self.run.path} cannot be built for {len(self.columns)} columns: "
                f"{error}; {REMEDY}"
            ) from error
        self.load(model, tensors, "the model")
        return model

    def rows_of(self, x: NDArray[np.float64]) -> Rows:
        """The model's rows with the values `x: (n, k)` of the columns `read`, and the states of atoms."""
        whole, features = torch.from_numpy(self._at_known_values(x)), len(self.columns)
        own = whole[:, :features]
        if not self.given:
            return Rows(own)
        return Rows(own, torch.cat([whole[:, features:], self.model.encoder.atoms.states(own)], 1))

    def _at_known_values(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows `x: (n, k)` of the columns `read`, in which what rounds to an atom or a level is one.

        A table in single precision holds 0.1 as another number than one in double precision does.
        """
        x = x.copy()
        for place, name in enumerate(self.read):
            known = np.unique([*self.levels.get(name, ()), *self.atoms.get(name, ())])
            if len(known):
                after = np.searchsorted((known[1:] + known[:-1]) / 2, x[:, place])
                is_near = np.abs(x[:, place] - known[after]) <= SINGLE * np.abs(known[after])
                x[is_near, place] = known[after[is_near]]
        return x

    def model_on_device(self) -> DensityModel:
        """The fitted model, its flow on the device that it learnt on, where there is one here."""
        if is_there(self.config.device):
            self.model.flow.to(self.config.device)
        return self.model

    def load_state(self) -> SavedState:
        """What a run goes on from; where none was saved, the dequantiser that it was begun with alone."""
        arrays, metadata = self.run.load_resume() if self.run.has_resume else ({}, {})
        training = TrainingState.unpack(arrays, metadata) if arrays else None
        givens = build_givens(self.config, self.given, self.levels, self.periods)
        if not any(name.startswith(_IN_STATE) for name in arrays):
            # None was saved yet, or by a version that did not save the encoder.
            encoder = build_encoder(
                self.config,
                self.columns,
                self._described_dequantiser(),
                self._described_support(),
                self.atoms,
                self._described("periodic", Circle.of_values),
            )
            return SavedState(training, encoder, givens)
        encoder = build_encoder(self.config, self.columns, atoms=self.atoms)
        for part, prefix in ((encoder, _IN_STATE), (givens, _GIVENS_IN_STATE)):
            own = {n.removeprefix(prefix): array for n, array in arrays.items() if n.startswith(prefix)}
            if part is not None:
                self.load(part, from_arrays(own), "the encoder in the state")
        try:
            wall, cpu = map(float, json.loads(metadata[_SECONDS]))
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedFileError(f"the saved state of {self.run.path} is incomplete; fit anew") from error
        return SavedState(training, encoder, givens, (wall, cpu))

    def save_state(self, state: TrainingState, model: DensityModel, seconds: tuple[float, float]) -> None:
        """Replace the state to go on from; `seconds`, wall and CPU, went into the fit of the encoders."""
        arrays, metadata = state.pack()
        own = {_IN_STATE + name: array for name, array in to_arrays(model.encoder.state_dict()).items()}
        if model.givens is not None:
            own |= {_GIVENS_IN_STATE + n: array for n, array in to_arrays(model.givens.state_dict()).items()}
        self.run.save_resume(arrays | own, metadata | {_SECONDS: json.dumps(seconds)})

    def save_model(self, model: DensityModel) -> None:
        """Replace the fitted model."""
        self.run.save_model(to_arrays(model.state_dict()), {"columns": ",".join(model.columns)})

    def _described_dequantiser(self) -> Dequantiser:
        """The dequantiser that run.json describes."""
        return self._described("lattices", Dequantiser.of_values)

    def _described_support(self) -> SupportMap:
        """The support that run.json describes."""
        return self._described("support", SupportMap.of_values)

    def _described(self, key: str, read: Callable[[Sequence[str], Mapping[str, Any]], Part]) -> Part:
        """What `read` makes of the values under a `key` of the data set in run.json."""
        try:
            return read(self.columns, self.dataset.get(key, {}))
        except (ConfigurationError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._not_as_written(key, error) from error

    def _not_as_written(self, key: str, error: Exception) -> DamagedFileError:
        return DamagedFileError(
            f"{self.run.path / 'run.json'}: `{key}` of the data set are not as flowbench writes them: "
            f"{type(error).__name__}: {error}"
        )

    def _as_named_now(self, tensors: Tensors) -> Tensors:
        """The tensors of a model by their present names.

        A run from before its encoder was saved has the transforms' by themselves, and the dequantiser's in
        run.json alone.
        """
        if any(name.startswith(_IN_MODEL) for name in tensors):
            return tensors
        cells = self._described_dequantiser().state_dict()
        return {
            _IN_MODEL + name if name.startswith("transforms.") else name: tensor
            for name, tensor in tensors.items()
        } | {f"{_IN_MODEL}dequantiser.{name}": tensor for name, tensor in cells.items()}


def load_model(run: Run) -> DensityModel:
    """The fitted model of a run, as it learnt: float32, with the solver of its training.

    `DensityModel.for_evaluation` gives the form that scores rows. Raises `DamagedFileError` if the weights
    do not fit the configuration.
    """
    return StoredRun(run).model
