"""The tables and sentences of a report on time series."""

from flowbench.report.numbers import DASH, count, decimals_for, fixed, seconds, significant, with_interval
from flowbench.report.series_sections import SeriesGroup, SeriesSection
from flowbench.statistics.paired import PairedDifference
from flowbench.store.text_table import TextTable

BEST = "best"


def series_verdict(section: SeriesSection) -> str:
    """Which model has the lowest NLL, and whether that is sure, in words."""
    best, *others = section.groups
    n = len(best.nll)
    if not others:
        return f"{best.label} has a test NLL of {_per_value(best)} over {n:,} test series."
    if n < 2:
        return (
            f"{best.label} has the lowest test NLL, {fixed(best.metric('test_nll_per_value'), 3)} nats a "
            "value, on a single test series, which says nothing of others."
        )
    behind = [
        group.label
        for group, each in zip(section.groups[1:], section.differences[1:], strict=True)
        if each is not None and each.is_resolved
    ]
    level = [group.label for group in others if group.label not in behind]
    text = f"{best.label} has the lowest test NLL, {_per_value(best)}, over {n:,} test series."
    if behind:
        text += f" It is ahead of {', '.join(behind)} beyond chance, paired over series."
    if level:
        text += f" These series do not tell it from {', '.join(level)}."
    return text


def _per_value(group: SeriesGroup) -> str:
    bound = " at most" if group.is_bound else ""
    error = group.metric("test_nll_per_value_standard_error")
    decimals = decimals_for(error)
    value = fixed(group.metric("test_nll_per_value"), decimals)
    return f"{value} ± {fixed(error, decimals)} nats a value{bound}"


def series_cautions(section: SeriesSection) -> list[str]:
    """What a reader has to know before comparing."""
    found = []
    bounds = [group.label for group in section.groups if group.is_bound]
    if bounds and len(bounds) < len(section.groups):
        found.append(
            f"The NLL of {', '.join(bounds)} is an upper bound, and the others' are exact: the bound may be "
            "behind where the model is not."
        )
    causal = [group.label for group in section.groups if group.records[0].info.get("looks_ahead") is False]
    if causal and len(causal) < len(section.groups):
        found.append(
            f"For interpolation, {', '.join(causal)} use earlier observations alone; the others use later "
            "ones too."
        )
    if (n := len(section.results.ids)) < 50:
        what = "There is only 1 test series" if n == 1 else f"There are only {n} test series"
        found.append(f"{what}, so intervals over series are wide.")
    records = [record for group in section.groups for record in group.records]
    budgets = {(each.options.get("plan.seconds"), each.options.get("plan.steps")) for each in records}
    if len(budgets) > 1:
        found.append("The models were trained with different budgets.")
    if len({str(sorted(dict(each.info.get("split") or {}).items())) for each in records}) > 1:
        found.append("The models were trained on different numbers of series.")
    for name in ("interpolation", "extrapolation"):
        if not section.held_out_alike(name):
            found.append(f"For {name}, other values were held out of some models, so they are not compared.")
    found += [str(note) for note in section.record.dataset.get("notes", [])]
    return found


def series_facts(section: SeriesSection) -> list[tuple[str, str]]:
    """The data set in pairs (term, text)."""
    dataset, info = section.record.dataset, section.record.info
    split = info.get("split") or {}
    pairs = [
        ("source", str(dataset.get("source", ""))),
        ("description", str(dataset.get("description", ""))),
        ("series", f"{dataset.get('series', 0):,}, with {dataset.get('observations', 0):,} observations"),
        ("split", ", ".join(f"{number:,} {part}" for part, number in split.items())),
        ("series and time", f"{dataset.get('id_column')} and {dataset.get('time_column')}"),
        ("columns", ", ".join(section.results.columns)),
        ("sha256", str(dataset.get("sha256", ""))),
    ]
    return [(term, text) for term, text in pairs if text]


def likelihood_table(section: SeriesSection) -> TextTable:
    """The test NLL of each model, and how far it is behind the best."""
    rows = []
    for number, (group, difference) in enumerate(zip(section.groups, section.differences, strict=True)):
        draws = group.metric("draws")
        kind = "exact" if not group.is_bound else f"bound, {count(draws)} draws"
        rows.append(
            (
                group.label,
                _per_value(group).removesuffix(" at most").removesuffix(" nats a value"),
                fixed(float(group.nll.mean()), 2),
                BEST if number == 0 else _behind(difference),
                kind,
                significant(group.metric("bound_error_median")),
                significant(group.metric("solver_error_largest")),
                fixed(group.metric("kl_to_truth"), 3),
            )
        )
    return TextTable(
        "Test log-likelihood",
        (
            "model",
            "NLL a value ± s.e.",
            "NLL a series",
            "above the best, a series [95%]",
            "likelihood",
            "error of the draws",
            "largest solver error",
            "KL to truth",
        ),
        tuple(rows),
        (False, True, True, True, False, True, True, True),
        (
            "Nats, data units, given the times; a value is a cell that is not missing. Differences are "
            "paired over test series. The error of the draws is the median over series of the standard error "
            "of a bound. KL to truth is known for series that were drawn from a known process.",
        ),
        0,
    )


def _behind(difference: PairedDifference | None) -> str:
    if difference is None:
        return DASH
    text = with_interval(difference, decimals_for(difference.half_width))
    return text if difference.is_resolved else f"{text}, not told apart"


def prediction_table(section: SeriesSection, name: str, what: str) -> TextTable | None:
    """Errors and coverage on held-out values; None where nothing was held out."""
    if getattr(section.results, name) is None:
        return None
    rows = []
    differences = section.error_differences(name)
    for number, (group, difference) in enumerate(zip(section.groups, differences, strict=True)):
        rows.append(
            (
                group.label,
                fixed(group.metric(f"{name}_rmse"), 4),
                "first" if number == 0 else _behind(difference),
                fixed(group.metric(f"{name}_nll"), 4),
                fixed(group.metric(f"{name}_crps"), 4),
                _percent(group.metric(f"{name}_coverage_90")),
                _percent(group.metric(f"{name}_coverage_50")),
            )
        )
    values = section.groups[0].metric(f"{name}_values")
    return TextTable(
        f"{name.capitalize()}: {what}",
        (
            "model",
            "RMSE",
            "squared error above the first [95%]",
            "NLL a value",
            "CRPS",
            "in the 90% band",
            "in the 50% band",
        ),
        tuple(rows),
        (False, *[True] * 6),
        (
            f"Over {count(values)} held-out values. RMSE and CRPS are in standard deviations of each column "
            "over the train series; the difference of squared errors is in variances of the held-out values, "
            "averaged within a series and paired over series. The NLL is of each value by itself, nats.",
        ),
    )


def _percent(value: float | None) -> str:
    return fixed(None if value is None else 100 * value, 1) + "%"


def cost_table(section: SeriesSection) -> TextTable:
    """Sizes and times."""
    rows = [
        (
            group.label,
            count(group.metric("parameters")),
            seconds(group.metric("cpu_seconds")),
            seconds(group.metric("wall_seconds")),
            seconds(group.metric("evaluation_cpu_seconds")),
            str(len(group.records)),
            ", ".join(record.name for record in group.records),
        )
        for group in section.groups
    ]
    header = ("model", "parameters", "training, CPU s", "wall s", "evaluation, CPU s", "fits", "runs")
    return TextTable("Cost", header, tuple(rows), (False, *[True] * 5, False))
