"""Tables of the results of `flowbench evaluate`: two-sample tests and calibration."""

from flowbench.report.grouping import ModelGroup, Section
from flowbench.report.numbers import DASH, fixed, probability
from flowbench.report.tables import COLUMNS_SHOWN
from flowbench.store.text_table import TextTable

#: Two-sample statistics by the name of their metric.
STATISTICS = {
    "c2st": "C2ST accuracy",
    "mmd": "MMD²",
    "sliced_wasserstein": "sliced Wasserstein",
    "energy_distance": "energy distance",
}
FLOOR = "train rows (floor)"


def sample_table(section: Section) -> TextTable | None:
    """Two-sample tests of each model's draws against held-out rows; None if no run was evaluated.

    A last row tests train rows in place of draws.
    """
    models = _evaluated(section, "mmd")
    if not models:
        return None
    header = ("model", *STATISTICS.values(), "closer to a train row than held-out rows are")
    rows = [
        (
            model.label,
            *(_with_p_value(model, name) for name in STATISTICS),
            _with_p_value(model, "memorisation", "memorisation_closer"),
        )
        for model in models
    ]
    floor = (_with_p_value(models[0], f"{name}_floor") for name in STATISTICS)
    rows.append((FLOOR, *floor, ""))
    low, high = (_metric(models[0], f"c2st_null_{end}") for end in ("low", "high"))
    notes = [
        "Each statistic with its p-value in brackets, that of a value as large where both sets of rows are "
        "alike; in the model space of each, where every column has one unit: behind other transforms they "
        "are not comparable. The floor is that of train rows against the same held-out rows.",
        f"C2ST: how often a classifier tells draws from held-out rows; by chance, about {fixed(low, 3)} to "
        f"{fixed(high, 3)}. The last column: the probability that a draw is closer to its nearest train row "
        "than a held-out row to its own; above 1/2, with a small p-value, a model repeats its train rows.",
        *_which_run(models),
    ]
    numeric = (False, *(True for _ in header[1:]))
    return TextTable("Samples against held-out rows", header, tuple(rows), numeric, tuple(notes))


def calibration_table(section: Section) -> TextTable | None:
    """Coverage of highest-density regions, and p-values of uniform quantiles; None without an evaluation."""
    models = _evaluated(section, "hdr_coverage_90")
    if not models:
        return None
    levels = (50, 90, 95, 99)
    header = (
        "model",
        *(f"in the {level}% region" for level in levels),
        "regions, p",
        "base columns, p",
        "base radius, p",
    )
    tests = ("density_rank", "column_quantile", "radial_quantile")
    rows = tuple(
        (
            model.label,
            *(_share(model, f"hdr_coverage_{level}") for level in levels),
            *(probability(_metric(model, f"{name}_p_value")) for name in tests),
        )
        for model in models
    )
    notes = (
        "The share of held-out rows inside the region of highest density that should hold so many, with its "
        "95% interval: fewer, and the model is too sure of itself; more, and it is too broad.",
        "p: that quantiles as far from uniform come by chance (Kolmogorov and Smirnov; over columns, "
        "Bonferroni), of the rows' ranks among draws by density, of each column of their base points, and of "
        "their distance from the base's middle. In place of rows that a flow's background holds stand draws "
        "of the base. A dash: a density without a base.",
        *_which_run(models),
    )
    return TextTable("Calibration", header, rows, (False, *(True for _ in header[1:])), notes)


def forecast_table(section: Section) -> TextTable | None:
    """How well conditional models foretell each column; None without an evaluation of one."""
    models = _evaluated(section, "crps_1")
    if not models:
        return None
    shown = section.columns[:COLUMNS_SHOWN]
    header = ("model", *(f"CRPS of {name}" for name in shown), "PIT, p")
    rows = tuple(
        (
            model.label,
            *(_with_error(model, f"crps_{number}") for number in range(1, len(shown) + 1)),
            probability(_metric(model, "pit_p_value")),
        )
        for model in models
    )
    notes = [
        "CRPS: the continuous ranked probability score of a column given the others that are given, in its "
        "own units, with its standard error over rows; lower is better (Gneiting and Raftery 2007).",
        "PIT, p: that the places of held-out values among a row's own draws are as far from uniform by "
        "chance (Kolmogorov and Smirnov; Bonferroni over columns).",
    ]
    if len(section.columns) > len(shown):
        notes.append(f"Left out: {len(section.columns) - len(shown)} more columns.")
    return TextTable(
        "Forecasts", header, rows, (False, *(True for _ in header[1:])), (*notes, *_which_run(models))
    )


def _with_error(model: ModelGroup, name: str) -> str:
    value, error = _metric(model, name), _metric(model, f"{name}_standard_error")
    if value is None:
        return DASH
    return f"{value:.4g} ± {error:.1g}" if error is not None else f"{value:.4g}"


def _evaluated(section: Section, metric: str) -> list[ModelGroup]:
    return [model for model in section.models if _metric(model, metric) is not None]


def _metric(model: ModelGroup, name: str) -> float | None:
    return model.runs[0].record.metric(name)


def _with_p_value(model: ModelGroup, test: str, statistic: str = "") -> str:
    value, p_value = _metric(model, statistic or test), _metric(model, f"{test}_p_value")
    if value is None or p_value is None:
        return DASH
    return f"{fixed(value, 4)} ({probability(p_value, 1)})"


def _share(model: ModelGroup, name: str) -> str:
    share, low, high = (_metric(model, name + end) for end in ("", "_low", "_high"))
    return DASH if share is None else f"{fixed(share, 3)} [{fixed(low, 3)}, {fixed(high, 3)}]"


def _which_run(models: list[ModelGroup]) -> tuple[str, ...]:
    repeated = any(len(model.runs) > 1 for model in models)
    return ("Of several runs of a model, the one with the lowest seed.",) if repeated else ()
