"""The folder of a study: what was asked, the trials that are done, and what was found."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flowbench.errors import DamagedFileError, RunLockedError
from flowbench.store.atomic import file_errors
from flowbench.store.documents import from_json, read_json, to_json, write_json
from flowbench.store.findings import DOCUMENT, Findings, read_findings, write_findings
from flowbench.store.tensors import Tensors, read_tensors, write_tensors

INFO, LOCK, TRIALS, SCRAPS = "study.json", ".lock", "trials", "unfinished"


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study under `path`; whole files are replaced atomically.

    Methods raise `DamagedFileError` for files that are not as flowbench left them, and `ConfigurationError`
    for a folder that cannot be written to.
    """

    path: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out; raises `RunLockedError` if one is at work on the study."""
        with file_errors("write", self.path):
            for folder in (self.path / TRIALS, self.scraps):
                folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / LOCK, timeout=0):
                yield
        except Timeout:
            raise RunLockedError(f"another process is at work on the study in {self.path}") from None

    @property
    def info(self) -> dict[str, Any]:
        """What `write_info` wrote; empty for a new study."""
        return read_json(self.path / INFO) if (self.path / INFO).exists() else {}

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write study.json."""
        write_json(self.path / INFO, info)

    def has_trial(self, name: str) -> bool:
        """Whether the trial of this name is done."""
        return self._trial(name).exists()

    def write_trial(self, name: str, figures: Mapping[str, float], arrays: Tensors) -> None:
        """Keep what a trial gave: single numbers and arrays, by name."""
        write_tensors(self._trial(name), arrays, {"figures": to_json(dict(figures))})

    def read_trial(self, name: str) -> tuple[dict[str, float], Tensors]:
        """What `write_trial` kept."""
        path = self._trial(name)
        arrays, metadata = read_tensors(path)
        if "figures" not in metadata:
            raise DamagedFileError(f"{path} has no figures; remove it, and the trial is measured again")
        return from_json(metadata["figures"], str(path)), arrays

    @property
    def scraps(self) -> Path:
        """The folder of what trials keep that are not done."""
        return self.path / SCRAPS

    def drop_scraps(self) -> None:
        """Remove what unfinished trials kept, once all trials are done."""
        shutil.rmtree(self.scraps, ignore_errors=True)

    def write_findings(self, findings: Findings) -> None:
        """Keep what was found."""
        write_findings(self.path, findings)

    @property
    def findings(self) -> Findings | None:
        """What was found; None before all trials are done."""
        return read_findings(self.path) if (self.path / DOCUMENT).exists() else None

    def _trial(self, name: str) -> Path:
        return self.path / TRIALS / f"{name}.safetensors"
