"""The commands as functions of frames, arrays and names, for a notebook or a script."""

import hashlib
import html
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError, FlowbenchError
from flowbench.frames import as_frame, to_arrow, write_frame
from flowbench.options import PartOptions
from flowbench.store import Metric, Results, Run
from flowbench.training.progress import Progress, Throttle
from flowbench.workflows.compare import Comparison, comparison_configs
from flowbench.workflows.compare import compare as compare_runs
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.fit import fit as fit_run
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.sampling import sample
from flowbench.workflows.schema_options import apply_schema
from flowbench.workflows.scoring import ScoredTable, score
from flowbench.workflows.stored_run import load_model

if TYPE_CHECKING:
    from flowbench.models.density_model import DensityModel

Floats = NDArray[np.float64]
Tell = Callable[[str], None]
#: Kinds of frames that `FittedRun.sample` makes.
Frames = Literal["pandas", "polars", "pyarrow"]

#: Seconds between two lines on the progress of a fit.
INTERVAL = 5.0
#: Of a frame's sha256, the digits that its file is named by.
DIGITS = 12
#: The metrics that a fitted run shows of itself, and what they are called there.
SHOWN = {"test_nll": "test NLL", "kl_to_truth": "KL(true || model)"}


def _silent(text: str) -> None:
    """Hear a line, and say nothing."""


@dataclass(frozen=True)
class FittedRun:
    """A fitted model, with the folder in which everything about it is stored.

    `run` is that folder, and `home` the working folder. `sample` returns frames of the kind `frames`.
    """

    run: Run
    home: Home = field(default_factory=Home)
    frames: Frames = "pandas"

    def score(self, data: Any) -> ScoredTable:
        """Log-likelihoods of the rows of `data`, with the error of each, and what is wrong with some.

        `data` is as in `fit`, with the columns that the model was fitted on. Raises as
        `flowbench.workflows.scoring.score` does.
        """
        if isinstance(data, str | Path):
            return score(self.run, str(data), home=self.home)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            write_frame(to_arrow(data), path)
            return score(self.run, str(path), home=self.home)

    def log_prob(self, data: Any) -> Floats:
        """Log-likelihoods `(n,)` of the rows of `data`, nats, data units; NaN where there is none."""
        return self.score(data).log_prob

    def sample(self, n: int = 1, *, given: Any = None, seed: int = 0) -> Any:
        """Draw `n` rows as a frame: the table's columns, then `log_prob` and `log_prob_error`, nats.

        A conditional model needs `given`: a value for each given column, or data as in `fit` that have these
        columns. `n` rows are then drawn for each of their rows. Raises as
        `flowbench.workflows.sampling.sample` does.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            if given is not None and not isinstance(given, str | Mapping):
                given = str(given) if isinstance(given, Path) else write_frame(to_arrow(given), path)
            sample(self.run, n, given=given, seed=seed, home=self.home).save(path, self.run)
            return nw.read_parquet(path, backend=self.frames).to_native()

    @property
    def model(self) -> "DensityModel":
        """The model itself, as it learnt: see `flowbench.load_model`."""
        return load_model(self.run)

    @property
    def metrics(self) -> dict[str, float]:
        """Every figure of the fit by name; empty if it was interrupted."""
        results = self._results()
        return {} if results is None else {name: each.value for name, each in results.metrics.items()}

    def _results(self) -> Results | None:
        return self.run.read_results() if self.run.has_results else None

    def describe(self) -> dict[str, str]:
        """What the run is, in a few words each."""
        info, dataset = self.run.info, self.run.dataset
        given = ", ".join(dataset.get("given", ()))
        told = {
            "model": str(info.get("model", "")),
            "data": str(dataset.get("name", "")),
            "columns": ", ".join(dataset.get("columns", ())) + (f" given {given}" if given else ""),
            "status": self.run.status,
        }
        results = self._results()
        if results is not None:
            for name, text in SHOWN.items():
                if name in results.metrics:
                    error = results.metrics.get(f"{name}_standard_error", Metric(math.nan, "nats"))
                    told[text] = f"{results.metrics[name].value:.4f} ± {error.value:.4f} nats"
            failed = [name for name, each in results.certificates.items() if not each.passed]
            told["certificates"] = f"not passed: {', '.join(failed)}" if failed else "all passed"
        return told | {"folder": str(self.run.path)}

    def __repr__(self) -> str:
        told = self.describe()
        width = max(map(len, told))
        return "\n".join(["FittedRun", *(f"  {name:<{width}}  {text}" for name, text in told.items())])

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.describe().items()
        )
        return f"<table>{''.join(rows)}</table>"


def fit(
    data: Any,
    model: str | PartOptions | None = None,
    *,
    given: Sequence[str] = (),
    time_budget: float | None = None,
    steps: int | None = None,
    preset: str = "default",
    options: Mapping[str, Any] | None = None,
    schema: str | Path | None = None,
    seed: int | None = None,
    name: str | None = None,
    folder: str | Path = ".",
    tell: Tell = _silent,
) -> FittedRun:
    """Learn the density of `data`, as the command `fit` does, and store all that is learnt.

    Parameters
    ----------
    data
        The name or the path of a data set, as for the command; a pandas, polars or pyarrow frame, of which
        the index is left out; or an array `(n, d)`, whose columns are called x0, x1, ... A frame or an array
        is first written into `datasets/` of the `folder`, so that the run can be resumed and compared.
        A configuration that `flowbench.workflows.config.resolve` made holds everything; it takes the place of
        all but `name`, `folder` and `tell`.
    model
        A model of the registry ("cnf" by default), or the options of one, such as
        `PlanarFlow.Options(layers=8)`. Options that it does not set have the defaults of the model's name. A
        part among them, such as a velocity field, is taken whole.
    given
        Columns that the density is given: it learns p(others | given).
    time_budget, steps
        Seconds of training, or optimiser steps; 60 seconds by default.
    preset
        "default", or a published recipe of the model, such as "ffjord" for "cnf".
    options
        Further options by dotted name, such as {"flow.field.width": 128}. The other arguments override them.
    schema
        A file with what the columns are, as `flowbench datasets check --schema` writes it. `tell` hears what
        it settles.
    seed
        Seed of the weights and the batches; 0 by default.
    name
        Name of the run's folder; by default the data's and the model's.
    folder
        The working folder, with `datasets/` and `runs/` in it.
    tell
        Hears a line on the progress of the fit every few seconds, such as `print`.

    What is wrong with the table is said by `warnings.warn` before training. Raises as
    `flowbench.workflows.fit.fit` does.
    """
    home = Home(Path(folder))
    own = _overrides(options, given, time_budget, steps, seed)
    if isinstance(data, RunConfig):
        if own or model is not None or schema is not None or preset != "default":
            raise ConfigurationError(
                "a configuration holds everything: beside it, `fit` takes `name`, `folder` and `tell` alone"
            )
        return FittedRun(fit_run(data, home=home, name=name, watch=_watch(tell)), home)
    if isinstance(model, PartOptions):
        own = {"flow": _told(model), **own}
        model = model.name
    with _kept(data, home) as kept:
        config = resolve(kept.name, model, preset=preset, overrides=own)
        if schema is not None:
            (config,) = apply_schema([config], Path(schema), home.datasets, tell)
        run = fit_run(config, home=home, name=name, watch=_watch(tell, kept))
    return FittedRun(run, home, kept.kind)


def compare(
    data: Any,
    models: str | Sequence[str] = ("cnf", "planar", "gaussian"),
    *,
    given: Sequence[str] = (),
    time_budget: float | None = None,
    steps: int | None = None,
    seeds: int = 1,
    options: Mapping[str, Any] | None = None,
    schema: str | Path | None = None,
    name: str | None = None,
    folder: str | Path = ".",
    tell: Tell = _silent,
) -> Comparison:
    """Fit each of the `models` to `data`, as `fit` does, and write a report, as the command `compare` does.

    Each model is fitted `seeds` times, with the seeds 0, 1, ... Runs that are there already are taken. The
    report, in `reports/` of the `folder`, is called `name`; the page is `Comparison.report.html`. Raises as
    `flowbench.workflows.compare.compare` does.
    """
    home = Home(Path(folder))
    chosen = [models] if isinstance(models, str) else list(models)
    own = _overrides(options, given, time_budget, steps, None)
    with _kept(data, home) as kept:
        configs = comparison_configs([kept.name], chosen, range(seeds), overrides=own)
        if schema is not None:
            configs = apply_schema(configs, Path(schema), home.datasets, tell)
        place = home.report_path(name, [Path(kept.name).stem])
        watch = _watch(tell, kept)
        return compare_runs(configs, place, home=home, watch=lambda config: watch, on_warning=_warn)


def open_run(name: str, folder: str | Path = ".") -> FittedRun:
    """The run called `name` in `runs/` of the working `folder`; raises `UnknownNameError` without one."""
    home = Home(Path(folder))
    return FittedRun(home.run(name), home)


def _overrides(
    options: Mapping[str, Any] | None,
    given: str | Sequence[str],
    time_budget: float | None,
    steps: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """The configuration values that the arguments stand for, which override `options`."""
    names = [given] if isinstance(given, str) else list(given)
    own = {"plan.seconds": time_budget, "plan.steps": steps, "seed": seed, "data.given": names or None}
    return {**(options or {}), **{name: value for name, value in own.items() if value is not None}}


def _told(options: PartOptions) -> dict[str, Any]:
    """What options say that were made in Python: the values that were set, and the parts among them whole."""
    values = options.model_dump(mode="json")
    return {"name": options.name, **{name: values[name] for name in options.model_fields_set}}


def _watch(tell: Tell, kept: "_Kept | None" = None) -> Watch:
    due = Throttle(INTERVAL)

    def start(run: Run) -> None:
        if kept is not None:
            kept.used = True
        tell(f"run folder: {run.path}")

    def progress(now: Progress) -> None:
        if due.is_due():
            left = f"; {now.seconds_left:.0f} s left" if math.isfinite(now.seconds_left) else ""
            told = f"validation NLL {now.validation_nll:.4f} nats, best {now.best_nll:.4f}"
            tell(f"step {now.step:,}: {told}{left}")

    return Watch(
        on_choice=tell,
        on_progress=progress,
        on_stage=tell,
        on_start=start,
        on_warning=_warn,
    )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


def _kind(name: str) -> Frames:
    """The kind of frames that samples of data of a kind come as; pandas for those that are not made here."""
    return next((kind for kind in get_args(Frames) if kind == name), "pandas")


@dataclass
class _Kept:
    """The name or path by which data are read, their kind of frame, and whether a run uses them."""

    name: str
    kind: Frames = "pandas"
    used: bool = False


@contextmanager
def _kept(data: Any, home: Home) -> Iterator[_Kept]:
    """Keep `data` where a run finds them again.

    A frame or an array is written into `datasets/`, under a name that its columns and values decide. If an
    error ends the block before a run uses it, a file that was not there before is removed.
    """
    if isinstance(data, str | Path):
        yield _Kept(str(data))
        return
    frame = as_frame(data)
    table = to_arrow(frame)
    home.datasets.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.datasets, prefix=".frame-") as folder:
        written = Path(write_frame(table, Path(folder) / "frame.parquet"))
        name = f"frame-{hashlib.sha256(written.read_bytes()).hexdigest()[:DIGITS]}"
        path = home.datasets / f"{name}.parquet"
        is_new = not path.exists()
        if is_new:
            written.rename(path)
    kept = _Kept(name, _kind(frame.implementation.value))
    try:
        yield kept
    except FlowbenchError:
        if is_new and not kept.used:
            path.unlink(missing_ok=True)
        raise
