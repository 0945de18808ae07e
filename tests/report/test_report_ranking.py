"""Ranks over data sets, against the worked example of the paper and against scipy."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from flowbench.report.figures.rank_lines import draw_ranks
from flowbench.report.figures.style import figure_style
from flowbench.report.grouping import ModelGroup, Section, group_runs
from flowbench.report.ranking import Ranking, rank_models
from flowbench.report.records import read_runs
from flowbench.report.tables import rank_table
from flowbench.store import Results, Run


@pytest.fixture
def sections(
    make_run: Callable[..., Run], results_of: Callable[..., Results]
) -> Callable[..., list[Section]]:
    def make(nlls: dict[str, list[float]], *names: str) -> list[Section]:
        """One section for each data set, the models' NLLs on it as given."""
        runs = []
        for model, values in nlls.items():
            for number, nll in enumerate(values):
                results = results_of("cnf", first_row=1000 * number)
                constant = np.full_like(results.scored.log_prob, -nll)
                scored = dataclasses.replace(results.scored, log_prob=constant)
                changed = dataclasses.replace(results, scored=scored)
                runs.append(make_run(model, results=changed, name=f"{model}-{number}"))
                dataset = runs[-1].info["dataset"]
                own = {"name": names[number] if names else f"data-{number}", "sha256": f"{number:064x}"}
                runs[-1].update_info(dataset={**dataset, **own})
        return list(group_runs(read_runs(runs)))

    return make


def test_ranks_and_friedman(sections: Callable[..., list[Section]]) -> None:
    nlls = {"cnf": [1.0, 1.1, 3.0, 0.5], "planar": [2.0, 1.0, 2.0, 0.9], "gaussian": [3.0, 3.0, 2.5, 0.9]}
    ranking = rank_models(sections(nlls))
    assert ranking is not None
    assert ranking.models == ("planar", "cnf", "gaussian")
    assert ranking.ranks == pytest.approx((1.625, 1.75, 2.625))
    assert ranking.p_value == pytest.approx(friedmanchisquare(*nlls.values()).pvalue)
    # q = 2.343 for three models.
    assert ranking.critical_difference == pytest.approx(2.343 * (12 / 24) ** 0.5, abs=1e-3)
    assert ranking.groups == [(0, 2)]


def test_few_data_sets_or_models_rank_nothing(sections: Callable[..., list[Section]]) -> None:
    two = sections({"cnf": [1.0, 2.0], "planar": [2.0, 3.0]})
    assert rank_models([]) is None
    assert rank_models(two) is None
    # The same data set in another split is no third one.
    assert rank_models([*two, dataclasses.replace(two[0])]) is None


def test_more_rows_of_a_toy_are_no_other_data_set(sections: Callable[..., list[Section]]) -> None:
    three = {"cnf": [1.0, 2.0, 3.0], "planar": [2.0, 3.0, 4.0]}
    assert rank_models(sections(three, "moons", "rings", "moons")) is None


def test_models_that_had_other_budgets_are_named(sections: Callable[..., list[Section]]) -> None:
    found = sections({"cnf": [1.0, 1.1, 3.0], "planar": [2.0, 1.0, 2.0], "gaussian": [3.0, 3.0, 3.0]})

    def longer(model: ModelGroup) -> ModelGroup:
        (run,) = model.runs
        record = dataclasses.replace(run.record, options={**run.record.options, "plan.seconds": "600.0"})
        return dataclasses.replace(model, runs=(dataclasses.replace(run, record=record),))

    models = tuple(each if each.label == "cnf" else longer(each) for each in found[1].models)
    found[1] = dataclasses.replace(found[1], models=models)
    ranking = rank_models(found)
    # A Gaussian is not trained at all.
    assert ranking is not None and ranking.uneven == ("planar",)
    assert rank_table(ranking).notes[-1] == "Not trained for as long on all of the data sets: planar."


def test_groups_are_those_within_the_critical_difference() -> None:
    """Demsar (2006), figure 1b: ranks 1.964, 2.0, 2.893 and 3.143, critical difference 1.25."""
    ranking = Ranking(tuple("abcd"), (1.964, 2.0, 2.893, 3.143), ("x",) * 14, 1.25, 0.03)
    assert ranking.groups == [(0, 3)]
    apart = dataclasses.replace(ranking, ranks=(1.0, 2.0, 2.9, 4.0))
    assert apart.groups == [(0, 1), (1, 2), (2, 3)]
    assert dataclasses.replace(ranking, ranks=(1.0, 2.5, 4.0, 5.5)).groups == []


def test_the_diagram_names_every_model() -> None:
    ranking = Ranking(("cnf", "planar", "gaussian"), (1.2, 2.0, 2.8), ("x",) * 5, 1.0, 0.03)
    with figure_style():
        picture = draw_ranks(ranking, alt="ranks", key="ranks")
    for text in ("cnf  1.20", "planar  2.00", "gaussian  2.80", "critical difference 1.00"):
        assert text in picture.svg


def test_a_data_set_on_which_likelihoods_rank_nothing_is_left_out(
    sections: Callable[..., list[Section]],
) -> None:
    found = sections({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 3.0, 4.0, 1.0]})
    for model in found[3].models:
        for run in model.runs:
            run.record.info["pitfalls"] = {"atoms": {"x": [[0.0, 0.4]]}}  # type: ignore[index]
    ranking = rank_models(found)
    assert ranking is not None
    assert ranking.datasets == ("data-0", "data-1", "data-2")
    assert ranking.ranks == (1.0, 2.0)
