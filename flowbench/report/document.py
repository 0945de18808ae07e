"""The numbers of a report as plain values: what `report.json` holds.

Schema, version 1. Log-likelihoods, NLL, KL and entropy are in nats and data units; times in seconds. A
number that is unknown or not finite is null; NaN is never written.

    schema_version  1
    title           text
    created         ISO 8601, UTC
    confidence      of every interval: 0.95
    datasets        one for each data set and set of test rows:
        name, source, sha256, licence, description, columns, given, categories, rows,
        split {train, validation, test}
        published   figures of papers on the same test rows, each {model, nll, source}, or null
        test_rows   number of rows that every model below was scored on
        weights     the column that weights the rows, or null
        effective_test_rows     number of equally weighted rows that say as much, or null without weights
        entropy     of the true density, or null
        verdict     text;  cautions  list of texts
        models      best first:
            label, model, options (only those in which its namesakes differ are in the label)
            runs                    names of the runs that are averaged
            seeds                   their seeds
            test_nll, test_nll_standard_error           over rows, of the average over runs
            test_nll_spread         standard deviation over runs, or null for one run
            difference_to_best      null for the best, else, paired, {mean, standard_error, low, high,
                                    rows, bootstrap_low, bootstrap_high, p_value, p_adjusted (Holm),
                                    seed_spread}
            kl_to_truth, kl_to_truth_standard_error
            impossible_rows         test rows without a finite likelihood
            parameters, cpu_seconds, wall_seconds, evaluation_cpu_seconds, nfe, grid_mass   means over runs
            samples_on_grid         share of the samples on the pictured grid; grid_mass should equal it
            certificates            by name, the worst of the runs: {value, bound, units, passed, settled,
                                     text}
            log_prob_error_median, log_prob_error_largest   of the rows' log_prob, the largest over runs
        runs        each {name, model, seed, status, started, finished, command, versions, test_nll,
                    test_nll_standard_error, metrics {name: {value, units}}}; here and below, status is that
                    of run.json, or "killed" where that says "running" and no process is at work
        superseded  names of runs left out for a newer one with the same model, options and seed
    ranking         null for fewer than three data sets, else {models, ranks, datasets, critical_difference,
                    p_value, uneven}: average ranks by test NLL of the models that all have, best first;
                    uneven ones had other budgets on some
    unfinished      runs without results, each {name, model, dataset, seed, status, started, error}
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flowbench.report.grouping import FittedRun, ModelGroup, Section
from flowbench.report.ranking import Ranking
from flowbench.report.records import RunRecord
from flowbench.statistics.paired import CONFIDENCE, Estimate, PairedDifference

SCHEMA_VERSION = 1

Values = dict[str, Any]


def describe_report(
    title: str,
    created: str,
    sections: Sequence[tuple[Section, str, Sequence[str]]],
    ranking: Ranking | None,
    unfinished: Sequence[RunRecord],
) -> Values:
    """The whole report as plain values; `sections` come with their verdicts and cautions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": title,
        "created": created,
        "confidence": CONFIDENCE,
        "datasets": [_section(*each) for each in sections],
        "ranking": asdict(ranking) if ranking else None,
        "unfinished": [
            {
                "name": record.name,
                "model": record.model,
                "dataset": record.dataset.get("name"),
                "seed": record.seed,
                **{key: record.info.get(key) for key in ("status", "started", "error")},
            }
            for record in unfinished
        ],
    }


def _section(section: Section, verdict: str, cautions: Sequence[str]) -> Values:
    dataset = section.record.dataset
    return {
        **{key: dataset.get(key) for key in ("name", "source", "sha256", "licence", "description", "rows")},
        "published": dataset.get("published"),
        "columns": list(section.columns),
        "given": [name for name in section.given if name not in section.categorical],
        "categories": list(section.categorical),
        "split": section.record.info.get("split"),
        "test_rows": len(section.x),
        "weights": section.weights or None,
        "effective_test_rows": section.best.nll.effective_rows,
        "entropy": section.entropy,
        "verdict": verdict,
        "cautions": list(cautions),
        "models": [
            _model(model, difference)
            for model, difference in zip(section.models, section.differences, strict=True)
        ],
        "runs": [_run(run) for model in section.models for run in model.runs],
        "superseded": [record.name for record in section.superseded],
    }


def _model(model: ModelGroup, difference: PairedDifference | None) -> Values:
    means = ("parameters", "cpu_seconds", "wall_seconds", "evaluation_cpu_seconds", "nfe", "grid_mass")
    return {
        "label": model.label,
        "model": model.runs[0].record.model,
        "options": dict(model.runs[0].record.options),
        "runs": [run.record.name for run in model.runs],
        "seeds": [run.record.seed for run in model.runs],
        **_estimate("test_nll", model.nll),
        "test_nll_spread": model.nll_spread,
        "difference_to_best": None if difference is None else _difference(difference),
        **_estimate("kl_to_truth", model.kl),
        "impossible_rows": model.impossible_rows,
        **{name: model.mean_metric(name) for name in means},
        "certificates": _certificates(model),
        "samples_on_grid": model.samples_on_grid.mean if model.samples_on_grid else None,
        **{name: model.max_metric(name) for name in ("log_prob_error_median", "log_prob_error_largest")},
    }


def _certificates(model: ModelGroup) -> Values:
    names = dict.fromkeys(name for run in model.runs for name in run.results.certificates)
    return {name: vars(found) for name in names if (found := model.certificate(name))}


def _run(run: FittedRun) -> Values:
    keys = ("seed", "status", "started", "finished", "command", "versions")
    metrics = run.results.metrics
    return {
        "name": run.record.name,
        "model": run.record.model,
        **{key: run.record.info.get(key) for key in keys},
        **_estimate("test_nll", run.nll),
        "metrics": {name: {"value": each.value, "units": each.units} for name, each in metrics.items()},
    }


def _estimate(name: str, estimate: Estimate | None) -> Values:
    return {
        name: estimate.mean if estimate else None,
        f"{name}_standard_error": estimate.standard_error if estimate else None,
    }


def _difference(difference: PairedDifference) -> Values:
    return vars(difference)
