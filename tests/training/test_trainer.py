"""The training loop: phases, averages, guards, interruption and exact resumption."""

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowbench.errors import ConfigurationError, IntegrationError, RunFailedError
from flowbench.models.density import Density, Flow
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.objectives.objective import LossTerms
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.registry import MODELS
from flowbench.training.criterion import RowCriterion
from flowbench.training.gradient import Gradient
from flowbench.training.judge import Judge, Judgement
from flowbench.training.plan import TrainingPlan
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows


def make_flow(name: str = "planar", **values: object) -> Flow:
    flow_class = MODELS.get(name)
    flow: Flow = flow_class(2, flow_class.Options(**values), torch.Generator().manual_seed(0))
    return flow


def cloud(n: int, seed: int = 0) -> Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([z[:, 0], z[:, 1] + z[:, 0] ** 2 / 2], 1)


class Figures(RowCriterion):
    """A criterion whose figures a test makes, from the rows and their log-densities under the flow."""

    def __init__(
        self,
        nll: Callable[[Tensor, Tensor], Tensor] = lambda x, log_prob: -log_prob,
        settle: Callable[[Tensor, Tensor], None] = lambda x, log_prob: None,
    ) -> None:
        super().__init__()
        self._nll = nll
        self._settle = settle

    def nll(self, examples: Rows, log_prob: Tensor) -> Tensor:
        return self._nll(examples.x, log_prob)

    def settle(self, examples: Rows, log_prob: Tensor) -> None:
        self._settle(examples.x, log_prob)


def make_trainer(
    flow: Flow | None = None,
    plan: dict[str, object] | None = None,
    reserve: Tensor | None = None,
    **hooks: object,
) -> Trainer[Density, Rows]:
    values = {"phases": [{"batch_size": 64}], "steps": 60, **(plan or {})}
    rows = TrainingRows(
        Rows(cloud(500)), Rows(cloud(200, seed=1)), None if reserve is None else Rows(reserve)
    )
    return Trainer(
        flow or make_flow(layers=4),
        TrainingPlan(**values),
        rows,
        generator=torch.Generator().manual_seed(2),
        **{"criterion": RowCriterion(), **hooks},  # type: ignore[arg-type]
    )


def options_of(gradient: Gradient[Density, Rows]) -> LikelihoodOptions:
    """The options of its objective, which is maximum likelihood."""
    options = gradient.objective.options
    assert isinstance(options, LikelihoodOptions)
    return options


def test_training_lowers_the_validation_nll_and_leaves_the_best_weights() -> None:
    seen: list[Progress] = []
    trainer = make_trainer(plan={"steps": 200}, on_validation=seen.append)
    assert trainer.run() == "finished"
    assert seen[-1].best_nll < seen[0].validation_nll - 0.1
    assert trainer.counters.step == 200
    final = -trainer.model.log_prob(trainer.examples.validation.x).double().mean().item()
    assert final == pytest.approx(min(p.validation_nll for p in seen), abs=1e-6)


def test_the_first_step_of_the_average_is_the_weights_themselves_but_for_a_tenth() -> None:
    trainer = make_trainer(plan={"steps": 1})
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    trainer.on_validation = lambda progress: weights.update(
        {key: value.clone() for key, value in trainer.model.state_dict().items()}
    )
    trainer.run()
    for key, start in before.items():
        # At step 0 the decay is (0 + 1) / (0 + 10).
        expected = start + 0.9 * (weights[key] - start)
        assert torch.allclose(trainer.ema[key], expected, atol=1e-6)


def test_stops_early_when_validation_stands_still() -> None:
    plan = {"steps": 1000, "validation_steps": 5, "patience": 0.1, "phases": [{"learning_rate": 1e-12}]}
    trainer = make_trainer(plan=plan)
    assert trainer.run() == "stopped early"
    assert trainer.counters.step < 300


def lucky_start() -> Callable[[Tensor, Tensor], Tensor]:
    """Figures of the 200 validation rows that are best at the first validation; other rows' are their own."""
    validations = iter(range(1000))
    return lambda x, log_prob: log_prob * 0 + next(validations) if len(x) == 200 else -log_prob


def test_further_rows_let_the_last_weights_take_the_place_of_lucky_ones() -> None:
    fresh = cloud(400, seed=3)
    trainer = make_trainer(
        plan={"steps": 200, "patience": 0}, reserve=fresh, criterion=Figures(lucky_start())
    )
    start = -trainer.model.log_prob(fresh).mean().item()
    trainer.run()
    assert all(torch.equal(trainer.model.state_dict()[key], last) for key, last in trainer.ema.items())
    assert -trainer.model.log_prob(fresh).mean().item() < start - 0.1


def test_without_further_rows_the_validation_rows_have_the_last_word() -> None:
    trainer = make_trainer(plan={"patience": 0}, criterion=Figures(lucky_start()))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.run()
    assert all(torch.equal(trainer.model.state_dict()[key], value) for key, value in before.items())


def test_what_follows_from_the_weights_is_settled_by_the_best() -> None:
    judged: list[Tensor] = []
    trainer = make_trainer(
        plan={"phases": [{"learning_rate": 0.5}]},
        reserve=cloud(400, seed=3),
        criterion=Figures(settle=lambda x, log_prob: judged.append(log_prob)),
    )
    trainer.run()
    assert len(judged) == 1
    assert torch.equal(judged[-1], trainer.model.log_prob(cloud(400, seed=3)).double())


@pytest.mark.parametrize(
    ("decline", "drift", "outcome"),
    [
        (1.0, 0.0, "finished"),
        (1.0, 1.0, "stopped early"),
        (0.0, 0.0, "stopped early"),
    ],
)
def test_under_a_cosine_only_a_clear_loss_stops_early(decline: float, drift: float, outcome: str) -> None:
    """Figures that scatter about a best first one by a tenth, drifting off or not."""
    random = torch.Generator().manual_seed(0)
    first = iter([True])

    def scattered(x: Tensor, log_prob: Tensor) -> Tensor:
        if next(first, False):
            return log_prob * 0
        return drift + 0.01 + torch.randn(len(x), generator=random, dtype=torch.float64)

    plan = {"steps": 100, "validation_steps": 5, "patience": 0.3, "phases": [{"decline": decline}]}
    assert make_trainer(plan=plan, criterion=Figures(scattered)).run() == outcome


def test_an_interrupted_run_keeps_its_best_weights() -> None:
    trainer = make_trainer(plan={"steps": 1000})
    trainer.should_stop = lambda: trainer.counters.step >= 120
    assert trainer.run() == "interrupted"
    assert trainer.counters.step == 120
    assert math.isfinite(trainer.counters.best_nll)
    kept = trainer.model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in trainer.best.items())
    assert any(not torch.equal(kept[name], tensor) for name, tensor in trainer.ema.items())


def test_the_terms_of_a_loss_are_told() -> None:
    flow = make_flow("cnf", field={"name": "time-mlp", "width": 16, "scales": 0})
    seen: list[Progress] = []
    phases = [{"objective": "regularised-likelihood", "batch_size": 32}]
    plan = {"phases": phases, "steps": 4, "validation_steps": 2}
    trainer = make_trainer(flow, plan, on_validation=seen.append)
    trainer.run()
    weights = trainer.plan.phases[0].objective
    for progress in seen[1:]:
        terms = progress.terms
        costs = weights.kinetic_energy * terms["kinetic_energy"]
        costs += weights.jacobian_frobenius * terms["jacobian_frobenius"]
        assert progress.loss == pytest.approx(terms["nll"] + costs, rel=1e-5)


def test_two_phases_change_the_objective() -> None:
    flow = make_flow("cnf", field={"name": "time-mlp", "width": 16, "scales": 0})
    seen: list[str] = []
    phases = [
        {"objective": "flow-matching", "share": 2, "batch_size": 32},
        {"objective": "likelihood", "batch_size": 32},
    ]
    trainer = make_trainer(
        flow,
        {"phases": phases, "steps": 12, "validation_steps": 2},
        on_validation=lambda progress: seen.append(progress.objective),
    )
    trainer.run()
    assert seen[1] == "flow-matching"
    assert seen[-1] == "likelihood"


def test_what_a_phase_learnt_last_is_judged_before_the_next_begins() -> None:
    seen: list[Progress] = []
    phases = [{"batch_size": 64, "learning_rate": 1e-2, "decline": 0}, {"batch_size": 64}]
    trainer = make_trainer(plan={"phases": phases, "steps": 40, "validation_steps": 1000})
    began: list[dict[str, Tensor]] = []

    class Watched(Likelihood):
        def __call__(
            self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
        ) -> LossTerms:
            if not began:
                assert trainer.counters.rate_scale == 1
                began.append({name: value.clone() for name, value in model.state_dict().items()})
            return super().__call__(model, batch, generator, spent)

    trainer.gradients[1].objective = Watched(options_of(trainer.gradients[1]))
    averages: list[dict[str, Tensor]] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        averages.append(dict(trainer.ema))

    trainer.on_validation = note
    trainer.counters = trainer.counters.replace(rate_scale=0.5)
    trainer.run()
    assert [progress.step for progress in seen] == [0, 20, 40]
    assert [progress.phase for progress in seen] == [0, 0, 1]
    assert seen[1].validation_nll < seen[0].validation_nll
    assert all(torch.equal(began[0][name], tensor) for name, tensor in averages[1].items())


class StepClock(Stopwatch):
    """A clock that only `advance` moves."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    def wall(self) -> float:
        return self.seconds


def test_no_phase_is_skipped_for_what_was_done_before_the_first_step() -> None:
    clock = StepClock(5.0)

    class Slow(Likelihood):
        def __call__(
            self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
        ) -> LossTerms:
            clock.advance(1.0)
            return super().__call__(model, batch, generator, spent)

    def nll(x: Tensor, log_prob: Tensor) -> Tensor:
        clock.advance(3.0 if clock.seconds == 5.0 else 0.0)
        return -log_prob

    improved: list[float] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        improved.append(trainer.counters.improved_at)

    phases = [{"batch_size": 64, "share": 1}, {"batch_size": 64, "share": 3}]
    seen: list[Progress] = []
    trainer = make_trainer(
        plan={"phases": phases, "seconds": 20.5, "steps": None, "patience": 0},
        reserve=cloud(400, seed=3),
        on_validation=note,
        clock=clock,
        criterion=Figures(nll),
    )
    for gradient in trainer.gradients:
        gradient.objective = Slow(options_of(gradient))
    trainer.run()
    assert trainer.counters.began_at == 8.0
    assert improved[0] == 0.0
    # A quarter of the 12 or so that are left.
    assert max(progress.step for progress in seen if progress.phase == 0) in {3, 4}
    assert trainer.counters.step in {12, 13}


def test_training_that_no_validation_can_judge_fails() -> None:
    short = {"name": "native", "atol": 1e-9, "rtol": 1e-9, "max_nfe": 20}
    flow = make_flow("cnf", field={"name": "concatsquash"}, integrator=short)
    matching = [{"objective": "flow-matching", "batch_size": 64}]
    trainer = make_trainer(flow, {"phases": matching, "steps": 8})
    with pytest.raises(RunFailedError, match=r"no validation gave a finite NLL.*max_nfe"):
        trainer.run()
    trainer = make_trainer(criterion=Figures(lambda x, log_prob: log_prob / 0))
    with pytest.raises(RunFailedError, match=r"some have no finite log-likelihood; look for extreme"):
        trainer.run()
    trainer = make_trainer(plan={"steps": 8})
    trainer.examples.validation.x[3] = math.nan
    with pytest.raises(RunFailedError, match=r"some have no finite log-likelihood; look for extreme"):
        trainer.run()


def test_the_time_of_the_final_choice_counts() -> None:
    settled: list[float] = []
    clock = Stopwatch()
    trainer = make_trainer(
        reserve=cloud(400, seed=3),
        criterion=Figures(settle=lambda x, log_prob: settled.append(clock.wall())),
        clock=clock,
    )
    trainer.run()
    assert trainer.counters.wall_seconds >= settled[0]


def test_a_fixed_grid_is_not_exploited() -> None:
    """Weights that suit two steps of Euler are not taken for better ones."""
    steps = {"name": "native", "method": "euler", "steps": 2}
    tight = PerRowOptions(atol=1e-6, rtol=1e-6)

    def exact_nll(flow: Flow) -> float:
        return -flow.for_evaluation(tight).log_prob(cloud(200, seed=1).double()).mean().item()

    flow = make_flow("cnf", field={"name": "time-mlp", "width": 16, "scales": 0}, integrator=steps)
    matching = [{"objective": "flow-matching", "batch_size": 256, "learning_rate": 1e-2}]
    make_trainer(flow, {"phases": matching, "steps": 100}).run()
    before = exact_nll(flow)
    exploited = copy.deepcopy(flow)
    plan = {"phases": [{"batch_size": 256, "learning_rate": 3e-2}], "steps": 60, "validation_steps": 20}
    make_trainer(flow, plan).run()
    assert exact_nll(flow) < before + 1e-3
    trainer = make_trainer(exploited, plan)
    trainer.judge.model = copy.deepcopy(exploited)
    trainer.run()
    assert exact_nll(exploited) > before + 0.02


def faulty(fails: Callable[[int], bool], error: Exception | None = None) -> type[Likelihood]:
    """Maximum likelihood that breaks down at the calls for which `fails` holds."""

    class Faulty(Likelihood):
        calls = 0

        def __call__(
            self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
        ) -> LossTerms:
            Faulty.calls += 1
            loss = super().__call__(model, batch, generator, spent)
            if not fails(Faulty.calls):
                return loss
            if error is not None:
                raise error
            return LossTerms(loss.total * math.nan)

    return Faulty


@pytest.mark.parametrize("error", [None, IntegrationError("the solve met its cap")])
def test_a_breakdown_rolls_back_and_lowers_the_rate(error: Exception | None) -> None:
    trainer = make_trainer(plan={"steps": 100})
    trainer.gradients[0].objective = faulty(lambda call: call == 37, error)(LikelihoodOptions())
    assert trainer.run() == "finished"
    assert trainer.counters.rollbacks == 1
    assert trainer.counters.rate_scale == 0.5
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.state_dict().values())


def test_a_hopeless_run_fails_with_a_diagnosis_and_the_best_weights() -> None:
    trainer = make_trainer(plan={"steps": 100, "max_rollbacks": 2})
    trainer.gradients[0].objective = faulty(lambda call: call > 30)(LikelihoodOptions())
    with pytest.raises(RunFailedError, match=r"`likelihood` failed at step \d+, after 2 returns.*not finite"):
        trainer.run()
    assert all(torch.equal(trainer.model.state_dict()[key], best) for key, best in trainer.best.items())


@pytest.mark.parametrize("name", MODELS.names())
def test_resumes_bit_for_bit(name: str) -> None:
    """Stopped after any validation and rebuilt from the packed state, the weights end up the same."""
    values = {"field": {"name": "time-mlp", "width": 16, "scales": 2}} if name == "cnf" else {}

    def trainer() -> Trainer[Density, Rows]:
        flow = make_flow(name, **values)
        flow.initialise(cloud(500))
        # Beyond 20 steps, by when SOAP has turned its bases twice.
        plan = {**flow.default_plan("toy"), "steps": 24, "validation_steps": 8}
        return make_trainer(flow, plan)

    states: list[TrainingState] = []
    whole = trainer()
    whole.on_validation = lambda progress: states.append(whole.state())
    whole.run()
    expected = whole.model.state_dict()
    for state in states:
        resumed = trainer()
        resumed.load(TrainingState.unpack(*state.pack()))
        resumed.run()
        assert all(torch.equal(expected[key], tensor) for key, tensor in resumed.model.state_dict().items())
        assert resumed.counters.best_nll == whole.counters.best_nll


def test_what_is_not_known_yet_is_told_as_no_number() -> None:
    seen: list[Progress] = []
    trainer = make_trainer(plan={"steps": 10}, on_validation=seen.append)
    trainer.run()
    assert seen[0].step == 0
    for name in ("loss", "learning_rate", "seconds_left"):
        assert math.isnan(getattr(seen[0], name))
        assert math.isfinite(getattr(seen[-1], name))


class Planted(Judge[Density, Rows]):
    """Finds fault with the last weights, and takes fewer evaluations for the best."""

    trainer: Trainer[Density, Rows]

    def __call__(self, weights: dict[str, Tensor], examples: Rows) -> Judgement:
        found = super().__call__(weights, examples)
        is_best = weights is self.trainer.best
        return dataclasses.replace(found, each_nll=found.each_nll + 100, nfe=10 if is_best else 20)


def test_a_resumed_run_tells_what_the_last_weights_took() -> None:
    """It judges the best weights anew to compare with, and does not tell of these."""
    seen: list[Progress] = []
    whole = make_trainer(plan={"validation_steps": 20})
    states: list[TrainingState] = []
    whole.on_validation = lambda progress: states.append(whole.state())
    whole.run()
    trainer = make_trainer(plan={"validation_steps": 20}, on_validation=seen.append)
    trainer.judge = Planted(trainer.model, trainer.criterion, chunk=200)
    trainer.judge.trainer = trainer
    trainer.load(states[1])
    trainer.run()
    assert [(progress.step, progress.nfe) for progress in seen] == [(40, 20), (60, 20)]


def test_a_validation_that_failed_took_no_known_number_of_evaluations() -> None:
    short = {"name": "native", "atol": 1e-9, "rtol": 1e-9, "max_nfe": 20}
    flow = make_flow("cnf", field={"name": "concatsquash"}, integrator=short)
    seen: list[Progress] = []
    matching = [{"objective": "flow-matching", "batch_size": 64}]
    trainer = make_trainer(flow, {"phases": matching, "steps": 2}, on_validation=seen.append)
    with pytest.raises(RunFailedError):
        trainer.run()
    assert {progress.nfe for progress in seen} == {None}


def test_a_run_that_stopped_early_has_no_more_to_learn_when_it_resumes() -> None:
    plan = {"steps": 1000, "validation_steps": 5, "patience": 0.1, "phases": [{"learning_rate": 1e-12}]}
    whole = make_trainer(plan=plan)
    states: list[TrainingState] = []
    whole.on_validation = lambda progress: states.append(whole.state())
    assert whole.run() == "stopped early"
    resumed = make_trainer(plan=plan)
    resumed.load(TrainingState.unpack(*states[-1].pack()))
    assert resumed.run() == "stopped early"
    assert resumed.counters.step == whole.counters.step


def test_a_budget_of_time_that_is_spent_is_spent_after_resuming() -> None:
    trainer = make_trainer(plan={"seconds": 1000, "steps": None}, reserve=cloud(400, seed=3))
    spent = {"step": 5, "wall_seconds": 950.0, "held_back": 60.0, "nll": 4.0, "best_nll": 4.0}
    trainer.load(dataclasses.replace(trainer.state(), counters=trainer.counters.replace(**spent)))
    assert trainer.run() == "finished"
    assert trainer.counters.step == 5


def test_two_phases_resume_bit_for_bit_where_the_first_stood_still() -> None:
    phases = [{"batch_size": 64, "learning_rate": 1e-12, "share": 1}, {"batch_size": 64, "share": 2}]
    # Nothing new since step 0, so that the first phase is stale where it ends, but not before.
    plan = {"phases": phases, "steps": 30, "validation_steps": 3, "patience": 0.32}

    def clear(x: Tensor, log_prob: Tensor) -> Tensor:
        return x[:, 0].double() * 0 + whole_or_resumed[-1].counters.step

    whole = make_trainer(plan=plan, criterion=Figures(clear))
    whole_or_resumed = [whole]
    states: list[TrainingState] = []
    whole.on_validation = lambda progress: states.append(whole.state())
    assert whole.run() == "stopped early"
    assert whole.counters.phase == 1
    assert {state.counters.step for state in states} >= {0, 9, 10}
    for state in states:
        resumed = make_trainer(plan=plan, criterion=Figures(clear))
        whole_or_resumed.append(resumed)
        resumed.load(TrainingState.unpack(*state.pack()))
        assert resumed.run() == "stopped early"
        assert resumed.counters.replace(wall_seconds=0, cpu_seconds=0, validated_at=0, began_at=0) == (
            whole.counters.replace(wall_seconds=0, cpu_seconds=0, validated_at=0, began_at=0)
        )
        assert all(torch.equal(whole.ema[key], tensor) for key, tensor in resumed.ema.items())


def test_training_needs_a_continuous_flow_for_flow_matching() -> None:
    with pytest.raises(ConfigurationError, match="needs a continuous flow; train `planar` with"):
        make_trainer(plan={"phases": [{"objective": "flow-matching"}]})


def test_products_are_rounded_in_steps_only() -> None:
    def precision() -> str:
        return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]

    class Watched(Likelihood):
        def __call__(
            self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
        ) -> LossTerms:
            in_steps.add(precision())
            return super().__call__(model, batch, generator, spent)

    in_steps: set[str] = set()
    outside: set[str] = set()
    before = precision()
    phase = {"batch_size": 64, "matmul_precision": "bf16"}
    trainer = make_trainer(plan={"steps": 5, "phases": [phase]})
    trainer.gradients[0].objective = Watched(options_of(trainer.gradients[0]))
    trainer.on_validation = lambda progress: outside.add(precision())
    trainer.run()
    assert in_steps == {"bf16"}
    assert outside == {before} == {precision()}
