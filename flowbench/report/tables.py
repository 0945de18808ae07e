"""The tables of a report as text; the page and the Markdown file show the same ones."""

from collections.abc import Sequence

from flowbench.report.grouping import FittedRun, ModelGroup, Section
from flowbench.report.numbers import (
    DASH,
    count,
    decimals_for,
    fixed,
    moment,
    plural,
    probability,
    seconds,
    shared_decimals,
    significant,
    with_error,
    with_interval,
)
from flowbench.report.ranking import Ranking
from flowbench.report.records import LOST, RunRecord
from flowbench.statistics.paired import CONFIDENCE
from flowbench.store import Certificate
from flowbench.store.text_table import TextTable

SHA256_SHOWN = 12
COLUMNS_SHOWN = 12


def likelihood_table(section: Section) -> TextTable:
    """Test NLL of each model, its difference to the best one, and the KL divergence from a known truth."""
    repeated = any(len(model.runs) > 1 for model in section.models)
    toy = any(model.kl is not None for model in section.models)
    models = section.models
    nll_decimals = shared_decimals(model.nll.standard_error for model in models)
    columns = {
        "model": [_label(model) for model in models],
        "test NLL (nats)": [with_error(model.nll, nll_decimals) for model in models],
        f"difference to the best [{CONFIDENCE:.0%}]": _difference_cells(section),
    }
    if len(models) > 1:
        columns["bootstrap"] = _bootstrap_cells(section)
        columns["p (Holm)"] = [probability(each.p_adjusted) if each else "" for each in section.differences]
    if toy:
        # The smallest divergence matters most, so its error decides the digits.
        errors = [model.kl.standard_error for model in models if model.kl and model.kl.standard_error]
        decimals = decimals_for(min(errors, default=None))
        columns["KL(true || model)"] = [with_error(model.kl, decimals) for model in models]
    if repeated:
        decimals = shared_decimals(model.nll_spread for model in models)
        columns["spread over seeds"] = [fixed(model.nll_spread, decimals) for model in models]
        if len(models) > 1:
            spreads = [each.seed_spread if each else None for each in section.differences[1:]]
            columns["difference's spread over seeds"] = ["", *(fixed(each, decimals) for each in spreads)]
        columns["runs"] = [str(len(model.runs)) for model in models]
    rows = list(zip(*columns.values(), strict=True))
    if section.entropy is not None:
        floor = {"model": "entropy (floor)", "test NLL (nats)": fixed(section.entropy, nll_decimals)}
        rows.append(tuple(floor.get(name, "") for name in columns))
    return TextTable(
        title="Held-out likelihood",
        header=tuple(columns),
        rows=tuple(rows),
        numeric=(False, *(True for _ in rows[0][1:])),
        notes=_likelihood_notes(section, repeated),
        marked=0 if section.best.nll.is_finite else None,
    )


def _label(model: ModelGroup) -> str:
    """A model's label, with the certificates that it fails."""
    failed = ", ".join(_plain(name) for name in model.failed_certificates)
    return f"{model.label} (fails: {failed})" if failed else model.label


def _plain(name: str) -> str:
    return name.replace("_", " ")


def certificate_table(section: Section) -> TextTable | None:
    """The values of the models' certificates, for each the worst of the runs; None if there are none."""
    names = dict.fromkeys(
        name for model in section.models for run in model.runs for name in run.results.certificates
    )
    if not names:
        return None
    rows = tuple(
        (model.label, *(_certificate_cell(model.certificate(name)) for name in names))
        for model in section.models
    )
    notes = (
        "Normalisation: how far the density's integral is from 1. Round trip: how far the worst row ends "
        "from its start, in standard deviations of the data or the base. Jacobian: the map's log-determinant "
        "by autodiff against the model's. Batch invariance: rows scored together and alone. Solver regime: "
        "how far a finer solve moves the test NLL. Arithmetic: what rounding adds to a row. Not settled: too "
        "uncertain to certify anything, or to accuse. A dash: it does not apply.",
    )
    header = ("model", *map(_plain, names))
    return TextTable("Certificates", header, rows, (False, *(True for _ in names)), notes)


def _certificate_cell(certificate: Certificate | None) -> str:
    if certificate is None:
        return DASH
    figures = significant(certificate.value)
    if not certificate.failed:
        return figures if certificate.settled else f"{figures}, not settled"
    # A solve that does not converge fails even below the bound; the certificate's text says so.
    above = f": above {significant(certificate.bound)}" if certificate.value > certificate.bound else ""
    return f"{figures}, fails{above}"


def _difference_cells(section: Section) -> list[str]:
    decimals = shared_decimals(each.half_width for each in section.differences if each)
    compared = section.best.nll.is_finite and len(section.models) > 1
    others = [with_interval(each, decimals) if each else DASH for each in section.differences[1:]]
    return ["best" if compared else DASH, *others]


def _bootstrap_cells(section: Section) -> list[str]:
    decimals = shared_decimals(each.half_width for each in section.differences if each)
    return [
        f"[{fixed(each.bootstrap_low, decimals)}, {fixed(each.bootstrap_high, decimals)}]" if each else ""
        for each in section.differences
    ]


def _likelihood_notes(section: Section, repeated: bool) -> tuple[str, ...]:
    kind = f"Mean, weighted by `{section.weights}`," if section.weights else "Mean"
    notes = [
        f"{kind} over {plural(len(section.x), 'test row')}, in nats and data units, ± standard error; "
        "lower is better."
    ]
    if len(section.models) > 1:
        notes.append(
            "Differences are paired row by row. Each interval, of t and of the bootstrap, stands alone; p is "
            "corrected for all pairs of models (Holm 1979)."
        )
    if repeated:
        notes.append(
            "A model's likelihoods are averaged over its runs first, so standard errors and intervals speak "
            "of the test rows; the spread is the standard deviation of the NLL over the runs, that of a "
            "difference over the seeds that both models have."
        )
    elif len(section.models) > 1:
        notes.append("One run per model: how far the NLL moves with the seed was not measured.")
    return tuple(notes)


def cost_table(section: Section) -> TextTable:
    """The cost of each model and the numerical errors of its likelihoods; costs are means over the runs."""
    gridded = any(model.mean_metric("grid_mass") is not None for model in section.models)
    backed = any(model.max_metric("background_share") is not None for model in section.models)
    header = (
        "model",
        "parameters",
        "training CPU (s)",
        "training wall (s)",
        "evaluation CPU (s)",
        "nfe",
        "error of a row (nats): median",
        "largest",
        *(("background",) if backed else ()),
        *(("mass on the grid", "samples on the grid") if gridded else ()),
    )
    rows = tuple(
        (
            model.label,
            count(model.mean_metric("parameters")),
            seconds(model.mean_metric("cpu_seconds")),
            seconds(model.mean_metric("wall_seconds")),
            seconds(model.mean_metric("evaluation_cpu_seconds")),
            count(model.mean_metric("nfe")),
            significant(model.max_metric("log_prob_error_median")),
            significant(model.max_metric("log_prob_error_largest")),
            *((significant(model.max_metric("background_share")),) if backed else ()),
            *(_grid_cells(model) if gridded else ()),
        )
        for model in section.models
    )
    notes = [
        "nfe: evaluations of the velocity field for one likelihood solve; a dash: the model solves no "
        "equation. Error of a row: how far its log-likelihood may be off, by the solver, by rounding and by "
        "what is drawn, places in the cells of dequantised columns and probes of an estimated divergence."
    ]
    if backed:
        notes.append(
            "Background: the largest share, over the runs, of a model's density that a Gaussian mixture of "
            "the train rows and a standard normal hold beside the flow; validation rows chose it."
        )
    if gridded:
        notes.append(
            "Mass on the grid: the model's density summed over the pictured grid. It should equal the share "
            "of the model's samples there, and be 1 where the grid holds them all."
        )
    return TextTable("Cost and checks", header, rows, (False, *(True for _ in header[1:])), tuple(notes))


def _grid_cells(model: ModelGroup) -> tuple[str, str]:
    share = model.samples_on_grid
    return fixed(model.mean_metric("grid_mass"), 4), fixed(share.mean if share else None, 4)


def run_table(section: Section) -> TextTable:
    """Every run behind the section, one row each."""
    header = (
        "run",
        "model",
        "seed",
        "status",
        "test NLL (nats)",
        "validation NLL",
        "CPU (s)",
        "wall (s)",
        "started (UTC)",
    )
    runs = [(model.label, run) for model in section.models for run in model.runs]
    decimals = shared_decimals(run.nll.standard_error for _, run in runs)
    rows = tuple(_run_row(label, run, decimals) for label, run in runs)
    return TextTable("Runs", header, rows, (False, False, True, False, True, True, True, True, False))


def _run_row(label: str, run: FittedRun, decimals: int) -> tuple[str, ...]:
    record = run.record
    return (
        record.name,
        label,
        _seed(record),
        record.text("status") or DASH,
        with_error(run.nll, decimals),
        fixed(record.metric("validation_nll"), decimals),
        seconds(record.metric("cpu_seconds")),
        seconds(record.metric("wall_seconds")),
        moment(record.text("started")),
    )


def unfinished_table(unfinished: Sequence[RunRecord]) -> TextTable:
    """Runs without results: their status, how far they came, and why they ended."""
    header = (
        "run",
        "data set",
        "model",
        "seed",
        "status",
        "last step",
        "last validation NLL",
        "started (UTC)",
        "reason",
    )
    rows = []
    for record in unfinished:
        validations = record.series("validation_nll")
        step = record.history[-1].get("step") if record.history else None
        rows.append(
            (
                record.name,
                str(record.dataset.get("name", DASH)),
                record.model,
                _seed(record),
                record.text("status") or DASH,
                count(step if isinstance(step, int | float) else None),
                fixed(validations[-1][1] if validations else None, 3),
                moment(record.text("started")),
                record.text("error") or (LOST if record.has_lost_results else DASH),
            )
        )
    numeric = (False, False, False, True, False, True, True, False, False)
    return TextTable("Runs without results", header, tuple(rows), numeric)


def rank_table(ranking: Ranking) -> TextTable:
    """Average ranks over the data sets of a report."""
    rows = tuple((model, fixed(rank, 2)) for model, rank in zip(ranking.models, ranking.ranks, strict=True))
    friedman = "" if ranking.p_value is None else f" That all are alike: p = {significant(ranking.p_value)}."
    notes = [
        f"Ranks by test NLL, 1 for the best, over {plural(len(ranking.datasets), 'data set')}: "
        f"{', '.join(ranking.datasets)}.{friedman}",
        f"Two models have to differ by {fixed(ranking.critical_difference, 2)} or more to be told apart "
        "(Nemenyi, in Demšar 2006); a bar joins those that are not.",
    ]
    if ranking.uneven:
        notes.append(f"Not trained for as long on all of the data sets: {', '.join(ranking.uneven)}.")
    return TextTable("Over all data sets", ("model", "average rank"), rows, (False, True), tuple(notes))


def facts(section: Section) -> list[tuple[str, str]]:
    """The data set and its split, as pairs (term, value), without those that are unknown."""
    dataset, record = section.record.dataset, section.record
    split = record.info.get("split")
    parts = split if isinstance(split, dict) else {}
    names = [name for name in ("train", "validation", "test") if _is_count(parts.get(name))]
    rows = dataset.get("rows")
    shape = f"{count(rows)} rows × " if _is_count(rows) else ""
    shown = list(section.columns[:COLUMNS_SHOWN])
    if len(section.columns) > len(shown):
        shown.append(f"and {len(section.columns) - len(shown)} more")
    runs = [run for model in section.models for run in model.runs]
    seeds = sorted({run.record.seed for run in runs if run.record.seed is not None})
    pairs = [
        ("what", str(dataset.get("description", ""))),
        ("source", str(dataset.get("source", ""))),
        ("sha256", section.sha256[:SHA256_SHOWN]),
        ("licence", str(dataset.get("licence", ""))),
        ("published test NLL", ", ".join(_published(dataset.get("published")))),
        ("table", f"{shape}{plural(len(section.columns), 'column')}: {', '.join(shown)}"),
        ("categories", ", ".join(section.categorical)),
        ("given", ", ".join(name for name in section.given if name not in section.categorical)),
        ("split", ", ".join(f"{count(parts[name])} {name}" for name in names)),
        ("scored", plural(len(section.x), "test row")),
        ("weights", _weights(section)),
        ("seeds", ", ".join(map(str, seeds))),
    ]
    return [(term, value) for term, value in pairs if value]


def _published(figures: object) -> list[str]:
    """Figures of papers on the same test rows, as `run.json` has them."""
    found = []
    for each in figures if isinstance(figures, list) else []:
        if isinstance(each, dict) and isinstance(each.get("nll"), float):
            found.append(f"{each.get('model')} {fixed(each['nll'], 2)} ({each.get('source')})")
    return found


def _weights(section: Section) -> str:
    effective = section.best.nll.effective_rows
    if effective is None:
        return ""
    return f"by the column {section.weights}; the scored rows say as much as {effective:,.1f} equal ones"


def _seed(record: RunRecord) -> str:
    return DASH if record.seed is None else str(record.seed)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
