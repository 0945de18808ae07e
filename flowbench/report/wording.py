"""The verdict on each data set, and its caveats, in sentences."""

from collections.abc import Sequence

from flowbench.report.grouping import ModelGroup, Section
from flowbench.report.numbers import (
    decimals_for,
    fixed,
    listed,
    plural,
    significant,
    with_error,
    with_half_width,
)
from flowbench.report.records import RunRecord
from flowbench.report.table_cautions import (
    Objection,
    about_cells,
    about_ends,
    about_periods,
    about_table,
    typed,
)
from flowbench.statistics.paired import CONFIDENCE, PairedDifference

#: With fewer test rows than this, an interval from their mean and spread is rough.
FEW_ROWS = 100
#: A density's mass on its grid may differ by this much from the share of its samples there, on top of the
#: sampling error of that share.
MASS_TOLERANCE = 0.01
#: From this share of the density on, the background beside the flow is worth a caution.
LARGE_BACKGROUND = 0.05
#: A sentence names at most this many beaten models.
NAMED_MODELS = 5
#: Up to this many models get a sentence each on the same undecided certificate; more share one.
TOLD_ONE_BY_ONE = 2


def verdict(section: Section) -> str:
    """Which model is best, by how much, and whether the test rows suffice to tell.

    If the likelihoods do not rank the models, the verdict says why and names no winner.
    """
    best = section.best
    if not best.nll.is_finite:
        return "No model gives every test row a finite likelihood, so none is better than another."
    objection = section.objection
    if len(section.models) > 1 and (objection or best.failed_certificates):
        return _void(section, objection)
    sentences = [_lead(section)] if len(section.models) > 1 else [_alone(section, objection)]
    if best.kl is not None and best.kl.is_finite:
        size = f"{with_error(best.kl)} nat (± standard error)"
        sentences.append(f"The KL divergence of {best.label} from the true density is {size}.")
    return " ".join(sentences)


def _void(section: Section, objection: Objection | None) -> str:
    """The verdict if the lowest NLL makes no winner."""
    best = section.best
    rows = _rows(best, "shared test row")
    scores = f"{best.label} scores lowest, {with_error(best.nll)} nats per row (± standard error, {rows})"
    if objection is None:
        return f"{scores}, but fails {_failed(best)}: until that is settled it beats no other model."
    return (
        f"These likelihoods do not rank the models: {objection.reason}. {scores}, which says "
        f"{objection.meaning}."
    )


def _alone(section: Section, objection: Objection | None) -> str:
    best = section.best
    rows = _rows(best, "test row")
    doubts = [f"fails {_failed(best)}"] if best.failed_certificates else []
    doubts += [f"that says {objection.meaning}: {objection.reason}"] if objection else []
    doubt = f", but {listed(doubts)}" if doubts else ""
    return f"{best.label} scores {with_error(best.nll)} nats per row (± standard error, {rows}){doubt}."


def _rows(model: ModelGroup, noun: str) -> str:
    """ "1,000 test rows", and the effective number of rows that have weights."""
    effective = model.nll.effective_rows
    also = "" if effective is None else f", weighted, as {effective:,.1f} equal ones"
    return plural(model.nll.rows, noun) + also


def _failed(model: ModelGroup) -> str:
    names = [name.replace("_", " ") for name in model.failed_certificates]
    return f"{'a certificate' if len(names) == 1 else 'certificates'} ({listed(names)})"


def _lead(section: Section) -> str:
    best = section.best.label
    rows = _rows(section.best, "shared test row")
    (second, difference), *others = list(zip(section.models, section.differences, strict=True))[1:]
    terms = f"nat per row ({CONFIDENCE:.0%} interval, {rows})"
    if difference is None and not second.nll.is_finite:
        return f"{best} is the only model that gives every test row a finite likelihood ({rows})."
    if difference is None:
        return f"{best} scores best, but {rows} cannot tell a difference from luck."
    size = f"{with_half_width(difference)} {terms}"
    if difference.is_resolved:
        sentences = [f"{best} beats {second.label} by {size}{_by_seeds(difference)}."]
    else:
        pair = f"{best} and {second.label}"
        sentences = [f"The difference between {pair} is not resolved: {best} leads by {size}."]
    compared = [(model.label, each) for model, each in others if each is not None]
    resolved = [f"{label} by {with_half_width(each)}" for label, each in compared if each.is_resolved]
    level = [label for label, each in compared if not each.is_resolved]
    if resolved:
        subject = "It also beats" if difference.is_resolved else f"{best} beats"
        if (more := len(resolved) - NAMED_MODELS) > 1:
            # Models stand in the order of their NLL.
            resolved = [*resolved[:NAMED_MODELS], f"{more} others by more, as the table shows"]
        sentences.append(f"{subject} {listed(resolved)}.")
    if level:
        sentences.append(f"Its lead over {listed(level)} is not resolved.")
    return " ".join(sentences)


def _by_seeds(difference: PairedDifference) -> str:
    if difference.seed_spread is None:
        return ""
    return f"; seeds move it by {fixed(difference.seed_spread, decimals_for(difference.half_width))}"


def cautions(section: Section, sections: Sequence[Section], unfinished: Sequence[RunRecord]) -> list[str]:
    """What a reader has to know before relying on the verdict, a sentence each."""
    return [
        *about_table(section.pitfalls, section.record.dataset),
        *about_cells(section.record.dataset),
        *about_ends([run.record.dataset for model in section.models for run in model.runs]),
        *about_periods([run.record.dataset for model in section.models for run in model.runs]),
        *_about_rows(section, sections),
        *_about_weights(section),
        *_about_seeds(section),
        *_about_likelihoods(section),
        *_about_unsettled(section),
        *_about_runs(section, unfinished),
    ]


def _lattices(section: Section) -> dict[str, object]:
    """The dequantised columns, by name, with the step and the origin of their cells."""
    return typed(dict, section.record.dataset.get("lattices"))


def _about_rows(section: Section, sections: Sequence[Section]) -> list[str]:
    notes = []
    rows = section.best.nll.effective_rows or len(section.x)
    if 1 < rows < FEW_ROWS and len(section.models) > 1:
        few = f"{rows:.0f} test rows only" + (", by their weights" if section.weights else "")
        notes.append(f"The intervals rest on {few}; take them as rough.")
    namesakes = [each for each in sections if each is not section and each.name == section.name]
    if any(each.sha256 == section.sha256 for each in namesakes):
        notes.append(
            "Other runs on this data set were scored on different test rows, columns, cells or weights. They "
            "are not comparable with these row by row, and stand in a section of their own."
        )
    if any(each.sha256 != section.sha256 for each in namesakes):
        notes.append(
            "Another data set of this report has the same name and other contents (see the sha256); "
            "the two are not comparable."
        )
    return notes


def _about_weights(section: Section) -> list[str]:
    effective = section.best.nll.effective_rows
    if effective is None:
        return []
    notes = [
        f"Rows count by their weights in `{section.weights}`, in training and in every mean and interval: "
        f"{plural(section.best.nll.rows, 'test row')} say as much as {effective:,.1f} of equal weight. "
        "Pictures show all rows alike."
    ]
    judged = section.best.mean_metric("judged_rows")
    if judged is not None:
        kept = f"{judged:,.0f} test rows"
        notes.append(
            f"Calibration and two-sample tests are of {kept}, kept with probabilities by their weights."
            if section.best.mean_metric("mmd") is not None
            else f"Weights leave {kept} to judge samples by, too few for two-sample tests."
        )
    return notes


def _about_seeds(section: Section) -> list[str]:
    if len(section.models) < 2:
        return []
    first, second = section.models[:2]
    difference = section.differences[1]
    if difference is None or first.nll_spread is None or second.nll_spread is None:
        return []
    # The standard error of the difference of the two means that comes from the seeds alone.
    error = (first.nll_spread**2 / len(first.runs) + second.nll_spread**2 / len(second.runs)) ** 0.5
    if not difference.is_resolved or difference.mean > 2 * error:
        return []
    decimals = decimals_for(error)
    return [
        f"Over the seeds, the lead of {first.label} over {second.label} has a standard error of "
        f"{fixed(error, decimals)} nat: other seeds could turn it round."
    ]


def _about_likelihoods(section: Section) -> list[str]:
    notes = []
    finest = min((each.half_width for each in section.differences if each), default=None)
    for model in section.models:
        if model.impossible_rows:
            rows = plural(model.impossible_rows, "test row")
            notes.append(f"{model.label} gives {rows} no finite likelihood: its mean cannot be compared.")
        notes += [
            f"{model.label} fails a certificate, {name.replace('_', ' ')}: {says}. Look there before "
            "its likelihoods are compared."
            for name, says in model.failed_certificates.items()
        ]
        error = model.max_metric("log_prob_error_largest")
        reach = finest or model.nll.standard_error
        # The random places in cells are independent from row to row, and part of the uncertainty already.
        if error is not None and reach is not None and error > reach and not _lattices(section):
            notes.append(
                f"A row's log-likelihood under {model.label} may be off by up to {significant(error)} nat, "
                f"more than the statistical uncertainty of {significant(reach)}: tighten the evaluation's "
                "tolerance, or set `evaluation.max_error`."
            )
        background = model.max_metric("background_share")
        if background is not None and background >= LARGE_BACKGROUND:
            notes.append(
                f"A Gaussian mixture and a standard normal beside the flow hold {background:.0%} of the "
                f"density of {model.label}: the table is close to a mixture, the flow has had too little "
                "time, or there are too few validation rows to trust it alone."
            )
        mass, share = model.mean_metric("grid_mass"), model.samples_on_grid
        if mass is None or share is None:
            continue
        if abs(mass - share.mean) > MASS_TOLERANCE + 4 * (share.standard_error or 0.0):
            notes.append(
                f"The density of {model.label} adds up to {fixed(mass, 3)} over the pictured grid, where "
                f"{fixed(share.mean, 3)} of its samples lie: it is too sharp for the cells of the grid, or "
                "its likelihoods and its samples do not belong together."
            )
    return notes


def _about_unsettled(section: Section) -> list[str]:
    """The undecided certificates: a sentence for each model, or one for all if there are many."""
    notes = []
    by_name: dict[str, list[tuple[str, str]]] = {}
    for model in section.models:
        for name, says in model.unsettled_certificates.items():
            by_name.setdefault(name.replace("_", " "), []).append((model.label, says))
    for name, found in by_name.items():
        if len(found) > TOLD_ONE_BY_ONE:
            labels = listed([label for label, _ in found])
            notes.append(
                f"The certificates for {name} of {labels} are not settled: their table has the figures."
            )
        else:
            notes += [
                f"The certificate of {label} for {name} is not settled: {says}." for label, says in found
            ]
    return notes


def _about_runs(section: Section, unfinished: Sequence[RunRecord]) -> list[str]:
    here = [
        each
        for each in unfinished
        if (each.dataset.get("name"), each.dataset.get("sha256")) == (section.name, section.sha256)
    ]
    notes = []
    if here:
        runs = listed([f"{each.name} ({each.text('status') or 'unfinished'})" for each in here])
        notes.append(f"Without results, and so not compared: {runs}.")
    if section.superseded:
        runs = listed([each.name for each in section.superseded])
        notes.append(f"Left out for a newer run with the same model, options and seed: {runs}.")
    return notes
