"""Carries out a study: trial by trial, from where it was stopped, to its findings and its page."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowbench.errors import ConfigurationError
from flowbench.registry import STUDIES
from flowbench.report.claim_page import write_claim_page
from flowbench.report.claims_index import write_claims_index
from flowbench.store.findings import Findings
from flowbench.store.study_folder import StudyFolder
from flowbench.studies.study import Budget, Claim, Measurement, Study, Tell, Workspace
from flowbench.workflows.environment import describe_host, describe_versions, source_commit
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads


@dataclass(frozen=True)
class StudyWatch:
    """What the caller of a study wants to hear, and how it asks for an end.

    `on_trial` hears how many trials are done, of how many, and the name of the one that begins.
    """

    on_trial: Callable[[int, int, str], None] = lambda done, total, name: None
    on_progress: Tell = lambda text: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Reproduction:
    """A study that was carried out: its `folder`, and its `findings` and `page`, both None if stopped."""

    folder: Path
    findings: Findings | None
    page: Path | None


def claims() -> list[Claim]:
    """Every claim that can be reproduced."""
    return [STUDIES.get(name).claim for name in STUDIES.names()]


def reproduce(
    name: str,
    budget: Budget = "default",
    *,
    home: Home | None = None,
    data: Path | None = None,
    command: Sequence[str] = (),
    watch: StudyWatch | None = None,
) -> Reproduction:
    """Measure the claim called `name` and write its page into `reports/claims/`.

    Each trial is stored in `claims/` of `home` as soon as it is done, and not measured again. `data` is the
    folder of the claim's data, if it reads files; otherwise they are looked for in `datasets/` of `home`.
    Raises `UnknownNameError` for an unknown claim, `ConfigurationError` for `data` that is not read, and
    `RunLockedError` if another process measures the claim.
    """
    home, watch = home or Home(), watch or StudyWatch()
    kind: type[Study] = STUDIES.get(name)
    wanted = kind.reads(budget)
    if data is not None and wanted is None:
        raise ConfigurationError(f"`{name}` reads no files at the budget `{budget}`; leave out `--data`")
    stem = f"{name}-{budget}"
    folder = StudyFolder(home.path / "claims" / stem)
    study = kind(Workspace(home.datasets / wanted if wanted and data is None else data, folder.scraps))
    with folder.lock(), cpu_threads(1):
        trials = study.trials(budget)
        info = folder.info
        if not info or not all(folder.has_trial(trial.name) for trial in trials):
            info = _begin(info, study.claim, budget, command)
            folder.write_info(info)
            if others := info["commits"][:-1]:
                watch.on_progress(f"trials of {', '.join(map(str, others))} are kept; this is another commit")
        for done, trial in enumerate(trials):
            if folder.has_trial(trial.name):
                continue
            if watch.should_stop():
                return Reproduction(folder.path, None, None)
            watch.on_trial(done, len(trials), trial.name)
            measurement = study.measure(trial, budget, watch.on_progress)
            folder.write_trial(trial.name, measurement.figures, dict(measurement.arrays))
        measured = [(trial, Measurement(*folder.read_trial(trial.name))) for trial in trials]
        findings = study.conclude(measured, budget)
        folder.write_findings(findings)
        folder.drop_scraps()
        folder.write_info({"finished": _now()} | info)
    pages = home.reports / "claims"
    page = write_claim_page(folder, pages / stem)
    write_claims_index(_measured(home), pages)
    return Reproduction(folder.path, findings, page)


def _begin(info: dict[str, Any], claim: Claim, budget: Budget, command: Sequence[str]) -> dict[str, Any]:
    """What a page tells of the circumstances; `commits` are those that trials were measured at, up to now."""
    commit = source_commit()
    kept = {name: value for name, value in info.items() if name != "finished"}
    return (
        {"started": _now()}
        | kept
        | {
            "claim": asdict(claim),
            "budget": budget,
            "command": list(command),
            "versions": describe_versions(),
            "commits": [*(each for each in info.get("commits", []) if each != commit), commit],
            "host": describe_host(),
        }
    )


def _measured(home: Home) -> list[StudyFolder]:
    """The studies of a home whose pages are written, in the order of the registry and of their budgets."""
    stems = [f"{name}-{budget}" for name in STUDIES.names() for budget in ("quick", "default", "full")]
    written = [stem for stem in stems if (home.reports / "claims" / stem / "index.html").exists()]
    return [StudyFolder(home.path / "claims" / stem) for stem in written]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
