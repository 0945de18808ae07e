import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowbench.report.grouping import Section, group_runs
from flowbench.report.numbers import DASH
from flowbench.report.records import read_runs
from flowbench.report.tables import certificate_table, cost_table, likelihood_table
from flowbench.report.wording import cautions, verdict
from flowbench.store import Certificate, Metric, Results, Run

RunMaker = Callable[..., Run]


def sections_of(*runs: Run) -> tuple[Section, ...]:
    return group_runs(read_runs(runs))


def edit(results: Results, **scored: Any) -> Results:
    return dataclasses.replace(results, scored=dataclasses.replace(results.scored, **scored))


def test_models_on_the_same_rows_are_compared_best_first(make_run: RunMaker) -> None:
    (section,) = sections_of(make_run("gaussian"), make_run("cnf"), make_run("planar"))
    assert [model.label for model in section.models] == ["cnf", "planar", "gaussian"]
    best, planar = (model.runs[0].results.scored.log_prob for model in section.models[:2])
    difference = section.differences[1]
    assert section.differences[0] is None
    assert difference is not None
    assert difference.mean == pytest.approx(np.mean(best - planar))
    assert verdict(section).startswith("cnf beats planar by 0.")
    assert "nat per row (95% interval, 1,000 shared test rows)" in verdict(section)


def test_kl_to_the_truth_is_estimated_on_the_test_rows(make_run: RunMaker) -> None:
    (section,) = sections_of(make_run("cnf"), make_run("planar"))
    scored = section.models[1].runs[0].results.scored
    kl = section.models[1].kl
    assert kl is not None
    assert scored.true_log_prob is not None
    assert kl.mean == pytest.approx(np.mean(scored.true_log_prob - scored.log_prob))
    assert section.entropy is not None
    assert "KL divergence of cnf from the true density" in verdict(section)


def test_the_order_of_rows_does_not_matter(make_run: RunMaker, results_of: Callable[..., Results]) -> None:
    results = results_of("planar")
    order = np.random.default_rng(0).permutation(len(results.scored.row))
    scored = results.scored
    shuffled = edit(
        results,
        row=scored.row[order],
        x=scored.x[order],
        log_prob=scored.log_prob[order],
        true_log_prob=None if scored.true_log_prob is None else scored.true_log_prob[order],
    )
    cnf = make_run("cnf")
    (plain,) = sections_of(cnf, make_run("planar"))
    (mixed,) = sections_of(cnf, make_run("planar", name="shuffled", results=shuffled))
    assert mixed.differences == plain.differences


@pytest.mark.parametrize(
    "other",
    [
        {"first_row": 7},
        {"test_rows": 900},
        {"sha256": "00" * 32},
        {"columns": ["x", "z"]},
        {"dataset": "other"},
    ],
    ids=str,
)
def test_other_rows_are_never_paired(make_run: RunMaker, other: dict[str, object]) -> None:
    sections = sections_of(make_run("cnf"), make_run("planar", **other))
    assert [len(section.models) for section in sections] == [1, 1]
    for section in sections:
        assert verdict(section).startswith(f"{section.best.label} scores ")
        said = " ".join(cautions(section, sections, []))
        assert ("not comparable" in said) == ("dataset" not in other)


def test_moved_rows_with_the_same_ids_are_never_paired(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("planar")
    moved = results.scored.x.copy()
    moved[3, 1] = np.nextafter(moved[3, 1], np.inf)
    assert len(sections_of(make_run("cnf"), make_run("planar", results=edit(results, x=moved)))) == 2


def test_seeds_are_averaged_row_by_row_and_their_spread_is_kept_apart(make_run: RunMaker) -> None:
    (section,) = sections_of(
        *(make_run(model, seed=seed) for model in ("planar", "cnf") for seed in (2, 0, 1))
    )
    model = section.models[0]
    assert [run.record.seed for run in model.runs] == [0, 1, 2]
    rows = np.mean([run.log_prob for run in model.runs], axis=0)
    assert model.nll.mean == pytest.approx(-rows.mean())
    assert model.nll.standard_error == pytest.approx(rows.std(ddof=1) / np.sqrt(1000))
    nlls = [-run.log_prob.mean() for run in model.runs]
    assert model.nll_spread == pytest.approx(np.std(nlls, ddof=1))
    table = likelihood_table(section)
    assert "spread over seeds" in table.header
    assert table.rows[0][table.header.index("runs")] == "3"
    each = [-run.log_prob.mean() for run in section.models[1].runs]
    spread = table.rows[1][table.header.index("difference's spread over seeds")]
    assert float(spread) == pytest.approx(np.std(np.subtract(each, nlls), ddof=1), abs=1e-3)


def test_a_lead_that_other_seeds_could_turn_round_is_called_that(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    runs = []
    for model, shifts in (("cnf", (0.0, 0.4)), ("planar", (0.0, 0.0))):
        for seed, shift in enumerate(shifts):
            results = results_of("cnf")
            level = 0.001 * (model == "planar")
            shifted = edit(results, log_prob=results.scored.log_prob + shift - level)
            runs.append(make_run(model, seed=seed, results=shifted))
    (section,) = sections_of(*runs)
    assert section.differences[1] is not None
    assert section.differences[1].is_resolved
    assert any("other seeds could turn it round" in each for each in cautions(section, [section], []))


def test_a_repeat_with_the_same_seed_is_no_second_seed(make_run: RunMaker) -> None:
    old = make_run("cnf", name="old", info={"started": "2026-01-01T00:00:00+00:00"})
    new = make_run("cnf", name="new", info={"started": "2026-02-01T00:00:00+00:00"})
    (section,) = sections_of(new, old, new)
    assert [run.record.name for run in section.best.runs] == ["new"]
    assert [record.name for record in section.superseded] == ["old"]
    assert any("old" in each for each in cautions(section, [section], []))


def test_other_options_make_another_model(make_run: RunMaker) -> None:
    layers = [make_run("planar", name=f"planar-{n}", options={"layers": n, "tidy": True}) for n in (8, 32)]
    (section,) = sections_of(make_run("cnf"), *layers)
    labels = {model.label for model in section.models}
    assert labels == {"cnf", "planar (flow.layers=8)", "planar (flow.layers=32)"}


def test_another_part_is_named_alone_and_its_own_options_only_where_they_differ(make_run: RunMaker) -> None:
    solvers = [
        {"name": "rk4", "steps": 8},
        {"name": "dopri5", "rtol": 1e-5, "atol": 1e-5},
        {"name": "dopri5", "rtol": 1e-4, "atol": 1e-5},
    ]
    runs = [make_run("cnf", name=f"{k}", options={"solver": solver}) for k, solver in enumerate(solvers)]
    (section,) = sections_of(*runs)
    assert {model.label for model in section.models} == {
        "cnf (rk4)",
        "cnf (dopri5, flow.solver.rtol=1e-05)",
        "cnf (dopri5, flow.solver.rtol=0.0001)",
    }


def test_options_too_long_to_name_are_replaced_by_the_run(make_run: RunMaker) -> None:
    runs = [make_run("planar", name=f"run-{k}", options={"note": "x" * 100 + str(k)}) for k in (1, 2)]
    (section,) = sections_of(*runs)
    assert {model.label for model in section.models} == {"planar (run-1)", "planar (run-2)"}


def test_a_difference_within_the_luck_of_the_rows_is_not_resolved(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("cnf")
    noise = 0.5 * np.random.default_rng(3).standard_normal(1000)
    noise += 0.01 - noise.mean()
    level = edit(results, log_prob=results.scored.log_prob - noise)
    (section,) = sections_of(make_run("cnf"), make_run("planar", results=level), make_run("gaussian"))
    text = verdict(section)
    assert text.startswith(
        "The difference between cnf and planar is not resolved: cnf leads by 0.010 ± 0.031"
    )
    assert "cnf beats gaussian by" in text


def test_seeds_are_paired_and_told_apart(make_run: RunMaker, results_of: Callable[..., Results]) -> None:
    def shifted(by: float) -> Results:
        results = results_of("cnf")
        return edit(results, log_prob=results.scored.log_prob - by)

    runs = [make_run("cnf", seed=seed) for seed in (0, 1)]
    runs += [
        make_run("planar", seed=seed, results=shifted(by)) for seed, by in ((0, 0.5), (1, 0.7), (2, 9.0))
    ]
    (section,) = sections_of(*runs)
    difference = section.differences[1]
    assert difference is not None
    first, second = (run.nll.mean for run in section.models[0].runs)
    # planar is the same model both times; seed 2 has no partner.
    expected = np.std([0.5 - first, 0.7 - second], ddof=1)
    assert difference.seed_spread == pytest.approx(expected)
    assert f"seeds move it by {expected:.3f}"[:22] in verdict(section)


def test_a_model_without_a_finite_likelihood_comes_last(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("planar")
    broken = results.scored.log_prob.copy()
    broken[:2] = -np.inf
    (section,) = sections_of(make_run("planar", results=edit(results, log_prob=broken)), make_run("gaussian"))
    assert [model.label for model in section.models] == ["gaussian", "planar"]
    assert section.differences == (None, None)
    assert "only model that gives every test row a finite likelihood" in verdict(section)
    assert any("planar gives 2 test rows no finite" in each for each in cautions(section, [section], []))
    assert likelihood_table(section).rows[1][1:3] == ("∞", "–")


def test_one_test_row_settles_nothing(make_run: RunMaker) -> None:
    (section,) = sections_of(*(make_run(model, test_rows=1) for model in ("cnf", "planar")))
    assert "cannot tell a difference from luck" in verdict(section)


def test_doubtful_likelihoods_are_named(make_run: RunMaker, results_of: Callable[..., Results]) -> None:
    results = results_of("cnf")
    metrics = results.metrics | {"log_prob_error_largest": Metric(0.7, "nats"), "grid_mass": Metric(0.9, "1")}
    doubtful = dataclasses.replace(results, metrics=metrics)
    (section,) = sections_of(make_run("cnf", results=doubtful), make_run("gaussian"))
    said = cautions(section, [section], [])
    assert any("under cnf may be off by up to 0.70 nat" in each for each in said)
    assert any("density of cnf adds up to 0.900" in each for each in said)
    assert not any("gaussian" in each for each in said)


def test_a_density_that_is_mostly_its_background_is_named(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("cnf")

    def with_share(share: float) -> Results:
        return dataclasses.replace(
            results, metrics=results.metrics | {"background_share": Metric(share, "1")}
        )

    runs = make_run("cnf", results=with_share(0.62)), make_run("gaussian")
    (section,) = sections_of(*runs)
    assert any("hold 62% of the density of cnf" in each for each in cautions(section, [section], []))
    table = cost_table(section)
    shares = [row[table.header.index("background")] for row in table.rows]
    assert sorted(shares) == ["0.62", DASH]
    (section,) = sections_of(make_run("cnf", seed=2, results=with_share(0.0005)))
    assert not any("of the density of cnf" in each for each in cautions(section, [section], []))


def test_a_failed_certificate_stands_beside_the_likelihood(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("cnf")
    failed = Certificate(0.02, 0.01, "1", False, "the density adds up to 1.02")
    broken = dataclasses.replace(results, certificates=results.certificates | {"normalisation": failed})
    (section,) = sections_of(make_run("cnf", results=broken), make_run("planar"), make_run("cnf", seed=1))
    assert likelihood_table(section).rows[0][0] == "cnf (fails: normalisation)"
    table = certificate_table(section)
    assert table is not None
    assert table.header == ("model", "normalisation", "round trip")
    assert table.rows[0] == ("cnf", "0.020, fails: above 0.010", "3.0e−6")
    assert table.rows[1] == ("planar", "0.00020", "3.0e−6")
    unsure = Certificate(0.005, 0.1, "1", False, "the density adds up to 1.005, too uncertain", False)
    wild = Certificate(1e-5, 1e-3, "nats", False, "the rows' errors do not shrink")
    found = results.certificates | {"normalisation": unsure, "round_trip": wild}
    unclear = dataclasses.replace(results, certificates=found)
    (told,) = sections_of(make_run("cnf", seed=2, results=unclear))
    assert likelihood_table(told).rows[0][0] == "cnf (fails: round trip)"
    table = certificate_table(told)
    assert table is not None
    assert table.rows[0][1:] == ("0.0050, not settled", "1.0e−5, fails")
    assert any("normalisation is not settled" in each for each in cautions(told, [told], []))
    kinds = ("cnf", "planar", "gaussian")
    (crowd,) = sections_of(*(make_run(kind, seed=3, results=unclear) for kind in kinds))
    (said_once,) = [each for each in cautions(crowd, [crowd], []) if "not settled" in each]
    assert all(kind in said_once for kind in kinds)
    assert not section.models[1].failed_certificates
    said = cautions(section, [section], [])
    assert any("cnf fails a certificate, normalisation: the density adds up to 1.02" in each for each in said)


def test_pitfalls_of_the_table_are_told(make_run: RunMaker) -> None:
    run = make_run("cnf")
    run.update_info(
        pitfalls={
            "relations": [["a", "b", "c"]],
            "repeating": {f"t{k}": 1440 for k in range(8)},
            "repeated_test_rows": 12,
        }
    )
    (section,) = sections_of(run)
    said = " ".join(cautions(section, [section], []))
    assert "The columns a, b and c determine one another" in said
    assert "t5 (1,440 values) and 2 more columns" in said
    assert "12 rows can also be found among the train rows" in said


#: What makes a comparison meaningless, with what the headline says of it.
VOID = {
    "relations": ([["a", "b"]], "a and b determine one another", "follows the surface"),
    "atoms": ({"b": [[0.0, 0.402], [1.0, 0.013]]}, "40% of the rows have b = 0 exactly", "narrow its spikes"),
    "repeating": ({"t": 341}, "values repeat in t", "narrow its spikes"),
    "repeated_test_rows": (120, "12% of the test rows are also train rows", "by heart"),
}


@pytest.mark.parametrize("pitfall", VOID)
def test_a_headline_names_no_winner_where_likelihoods_mean_nothing(make_run: RunMaker, pitfall: str) -> None:
    value, reason, meaning = VOID[pitfall]
    cnf, planar = make_run("cnf"), make_run("planar")
    for run in (cnf, planar):
        run.update_info(pitfalls={pitfall: value})
    (section,) = sections_of(cnf, planar)
    text = verdict(section)
    nll = f"{section.best.nll.mean:.2f}"[:4]
    assert text.startswith(f"These likelihoods do not rank the models: {reason}")
    assert f"cnf scores lowest, {nll}" in text and meaning in text
    assert "beat" not in text and "KL" not in text
    table = likelihood_table(section)
    assert [row[0] for row in table.rows[:2]] == ["cnf", "planar"] and table.rows[0][1].startswith(nll)
    (alone,) = sections_of(cnf)
    text = verdict(alone)
    assert text.startswith(f"cnf scores {nll}") and f": {reason}" in text and meaning in text
    assert "KL divergence of cnf" in text
    assert len(text) < 400


def test_values_that_repeat_leave_the_winner_where_there_are_many(make_run: RunMaker) -> None:
    runs = [make_run(model) for model in ("cnf", "planar")]
    for run in runs:
        rows = run.info["dataset"]["rows"]
        run.update_info(pitfalls={"repeating": {"t": rows // 2}})
    (section,) = sections_of(*runs)
    assert verdict(section).startswith("cnf beats planar by")
    assert any("Values repeat in t" in each for each in cautions(section, [section], []))


def test_few_repeated_test_rows_or_those_of_cells_leave_the_winner(make_run: RunMaker) -> None:
    few = [make_run(model, name=f"few-{model}") for model in ("cnf", "planar")]
    for run in few:
        run.update_info(pitfalls={"repeated_test_rows": 10})
    (section,) = sections_of(*few)
    assert verdict(section).startswith("cnf beats planar by")
    whole = [make_run(model, name=f"whole-{model}") for model in ("cnf", "planar")]
    for run in whole:
        lattices = {name: {"step": 1.0, "origin": 0.0} for name in run.info["dataset"]["columns"]}
        described = {**run.info["dataset"], "lattices": lattices}
        run.update_info(dataset=described, pitfalls={"repeated_test_rows": 900})
    (section,) = sections_of(*whole)
    assert verdict(section).startswith("cnf beats planar by")
    described["lattices"].popitem()
    for run in whole:
        run.update_info(dataset=described)
    (section,) = sections_of(*whole)
    assert verdict(section).startswith("These likelihoods do not rank the models: 90% of the test rows")


def test_a_best_model_that_fails_a_certificate_wins_nothing(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    results = results_of("cnf")
    failed = Certificate(0.02, 0.01, "1", False, "the density adds up to 1.02")
    broken = dataclasses.replace(results, certificates=results.certificates | {"batch_invariance": failed})
    cnf = make_run("cnf", results=broken)
    (section,) = sections_of(cnf, make_run("planar"))
    assert verdict(section).startswith("cnf scores lowest, ")
    assert "but fails a certificate (batch invariance): until that is settled it beats no" in verdict(section)
    (alone,) = sections_of(cnf)
    assert ", but fails a certificate (batch invariance)." in verdict(alone)
    # A certificate of another model takes nothing from the best.
    worse = dataclasses.replace(results_of("planar"), certificates=broken.certificates)
    (section,) = sections_of(make_run("cnf", name="fine"), make_run("planar", name="failed", results=worse))
    assert verdict(section).startswith("cnf beats planar by")


def test_the_run_that_knows_of_atoms_speaks_for_those_that_do_not(make_run: RunMaker) -> None:
    old, new = make_run("cnf"), make_run("planar")
    old.update_info(pitfalls={"relations": [], "repeating": {}, "repeated_test_rows": 0})
    new.update_info(pitfalls={"relations": [], "atoms": {"b": [[0.0, 0.4]]}})
    (section,) = sections_of(old, new)
    assert "b = 0 exactly" in verdict(section)
    (section,) = sections_of(old)
    assert verdict(section).endswith("nat (± standard error).") and "but" not in verdict(section)


def test_atoms_and_copies_are_told(make_run: RunMaker) -> None:
    run = make_run("cnf")
    run.update_info(
        pitfalls={"atoms": {"b": [[0.0, 0.4], [2.5, 0.012]], "c": [[-1, 1]]}, "copied_rows": 1712}
    )
    (section,) = sections_of(run)
    said = cautions(section, [section], [])
    assert any(
        "same value: b = 0 (40%), b = 2.5 (1.2%) and c = -1 (100%). A density has no mass at a point" in each
        for each in said
    )
    assert (
        "1,712 of 10,000 rows repeat others digit by digit; copies are kept in one part of the split." in said
    )


@pytest.mark.parametrize(
    "pitfalls",
    [
        "?",
        {"relations": "ab", "atoms": 3, "repeating": [1], "repeated_test_rows": "9", "copied_rows": None},
        {"relations": [3, []], "atoms": {"b": 1, "c": [2, [3], ["x", 1], [float("inf"), 1]]}},
        {"atoms": [[0, 1]], "repeated_test_rows": -5, "copied_rows": -3},
    ],
    ids=str,
)
def test_pitfalls_that_are_none_say_nothing(make_run: RunMaker, pitfalls: object) -> None:
    run = make_run("cnf")
    run.update_info(pitfalls=pitfalls)
    (section,) = sections_of(run)
    assert not [each for each in cautions(section, [section], []) if "row" in each or "value" in each]
    assert verdict(section).startswith("cnf scores")


def test_dequantised_columns_are_told_and_their_runs_kept_apart(
    make_run: RunMaker, results_of: Callable[..., Results]
) -> None:
    lattices = {f"t{k}": {"step": 0.5, "origin": 0.0} for k in range(8)}
    results = results_of("cnf")
    errors = {"log_prob_error_largest": Metric(0.7, "nats"), "log_prob_error_median": Metric(1e-3, "nats")}
    results = dataclasses.replace(results, metrics=results.metrics | errors)
    cells, points = make_run("cnf", results=results), make_run("gaussian")
    cells.update_info(dataset={**cells.info["dataset"], "lattices": lattices})
    first, second = sections_of(cells, points)
    assert {first.record.model, second.record.model} == {"cnf", "gaussian"}
    section = first if first.record.model == "cnf" else second
    said = " ".join(cautions(section, [section], []))
    assert "Values are evenly spaced in t0 (by 0.5)" in said and "t5 (by 0.5) and 2 more columns" in said
    # One row's places in its cell are off by chance, and their mean is not.
    assert "may be off" not in said
    cells.update_info(dataset={**cells.info["dataset"], "lattices": {"t": "?"}})
    (strange,) = sections_of(cells)
    assert "t (by an unknown step)" in " ".join(cautions(strange, [strange], []))


def test_runs_of_old_have_no_certificates(make_run: RunMaker, results_of: Callable[..., Results]) -> None:
    old = dataclasses.replace(results_of("cnf"), certificates={})
    (section,) = sections_of(make_run("cnf", results=old))
    assert certificate_table(section) is None
