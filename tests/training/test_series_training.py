"""The training loop on series: every model learns, and resumes bit for bit."""

import numpy as np
import pytest
import torch

from flowbench.data.series_toys import Oscillators
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.series_model import SeriesModel
from flowbench.registry import SERIES_MODELS
from flowbench.training.plan import TrainingPlan
from flowbench.training.series_examples import SeriesCriterion, SeriesExamples
from flowbench.training.state import TrainingState
from flowbench.training.trainer import Trainer

SIZES = {
    "latent-ode": {"latent": 2, "width": 8, "units": 8},
    "ode-rnn": {"units": 8, "width": 8, "dynamics": 8},
    "gp": {},
}


def trainer(name: str, steps: int, validation_steps: int) -> Trainer[SeriesModel, SeriesBatch]:
    toy, series = Oscillators().draw(60, 0), []
    for each in map(toy.series, range(60)):
        values = torch.tensor(np.column_stack([each.values, each.values**2])).float()
        values[::3, 1] = torch.nan
        series.append((torch.tensor(each.times / 10).float(), values))
    examples = SeriesExamples(SeriesBatch.of(series[:40]), SeriesBatch.of(series[40:]))
    model_class = SERIES_MODELS.get(name)
    options = model_class.Options(**SIZES.get(name, {"units": 8, "width": 8}))
    model = model_class(2, options, torch.Generator().manual_seed(0))
    model.initialise(examples.train)
    (phase,) = model.default_phases
    plan = TrainingPlan(
        phases=[{**phase, "batch_size": 8, "warmup_steps": 2, "learning_rate": 2e-2}],
        steps=steps,
        validation_steps=validation_steps,
    )
    generator = torch.Generator().manual_seed(2)
    return Trainer(model, plan, examples, generator=generator, criterion=SeriesCriterion())


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_every_model_learns(name: str) -> None:
    seen: list[float] = []
    whole = trainer(name, 20, 10)
    whole.on_validation = lambda progress: seen.append(progress.validation_nll)
    assert whole.run() == "finished"
    assert len(seen) == 3
    assert seen[-1] < seen[0]
    assert (whole.last_judgement.nfe is not None) == (name == "latent-ode")


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_every_model_resumes_bit_for_bit(name: str) -> None:
    states: list[TrainingState] = []
    whole = trainer(name, 6, 2)
    whole.on_validation = lambda progress: states.append(whole.state())
    whole.run()
    expected = whole.model.state_dict()
    assert len(states) == 4
    for state in states[1:3]:
        resumed = trainer(name, 6, 2)
        resumed.load(TrainingState.unpack(*state.pack()))
        resumed.run()
        assert all(torch.equal(expected[key], tensor) for key, tensor in resumed.model.state_dict().items())
        assert resumed.counters.best_nll == whole.counters.best_nll
