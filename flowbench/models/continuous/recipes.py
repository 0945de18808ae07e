"""How continuous flows are trained: the default recipe, and published ones."""

from typing import Any

from flowbench.models.density import Adaptation

#: Of solves while training.
TRAINING_TOLERANCES = {"atol": 1e-4, "rtol": 1e-4}

#: What makes a step dearer and better: SOAP, and each row with a draw from the base and its mirror image.
BETTER_STEPS = {
    "objective": {"name": "flow-matching", "antithetic": True, "late_share": 1.0},
    "optimizer": "soap",
    "batch_size": 2048,
    "learning_rate": 8e-3,
}


#: The phases of training.
PHASES: tuple[dict[str, Any], ...] = (
    {
        "objective": "flow-matching",
        "batch_size": 1024,
        "learning_rate": 4e-3,
        # With the rows as they are, the flow's own optimum is a spike on each of them.
        "smoothing": 0.5,
        # Regression on a noisy target bears rounded products; a solve would not.
        "matmul_precision": "bf16",
    },
)

#: What suits some data, or some budgets, better; of two, the second overrides the first.
ADAPTATIONS: tuple[Adaptation, ...] = (
    # Here too, so that they stay where only the method is given another name.
    Adaptation(options={"integrator": {"name": "native", **TRAINING_TOLERANCES}}),
    # A table's columns take long to learn: the rate stays high for most of the time (after a minute,
    # protein is better by 0.57 nat than with a decline from the start and POWER by 0.035; toys, whose
    # fits are near their end by then, are worse, rings by 0.007), and steps are fewer and better: SOAP
    # (after two minutes, protein is better by 0.20 nat than with Adam, and POWER by 0.023), and each row
    # twice (after one, protein is better by 0.30 and POWER by 0.044 than with twice as many rows).
    Adaptation("table", phase={**BETTER_STEPS, "decline": 0.25}),
    # Toys gain from such steps later (after two minutes, pinwheel is better by 0.002 nat and three others
    # level; after five, checkerboard by 0.005, two spirals by 0.0028, rings and pinwheel by 0.0015; after
    # one, they are worse).
    Adaptation("toy", 100, phase=BETTER_STEPS),
    # A wider network learns more of a table (after two minutes, protein is better by 0.27 nat and POWER
    # level; after five, protein by 0.31 and, with the larger batches, POWER by 0.017; after one, protein
    # by 0.14, but POWER is worse by 0.025).
    Adaptation(seconds=100, options={"field": {"name": "time-mlp", "width": 192}}),
    # With more steps their noise matters more; toys are near their end.
    Adaptation("table", 200, phase={"batch_size": 4096, "learning_rate": 1e-2}),
    Adaptation("toy", 200, phase={"batch_size": 4096, "learning_rate": 5e-3}),
)


def ffjord(kind: str) -> dict[str, Any]:
    """FFJORD's own recipe (Grathwohl et al. 2019, the released code's defaults) for a "toy" or a "table".

    Toys, not standardised: three layers of 64 tanh units, exact trace, 10,000 steps of batch 100. Tables:
    one layer of ten softplus units a feature, one Gaussian probe, batch 1000, stopping after 30 validations
    without progress; the code's stepwise decay of the learning rate is left out. Both by the continuous
    adjoint at the code's tolerances, with decoupled weight decay.
    """
    toy = kind == "toy"
    phase = {
        "objective": "likelihood",
        "batch_size": 100 if toy else 1000,
        "learning_rate": 1e-3,
        "weight_decay": 1e-5 if toy else 1e-6,
        "warmup_steps": 0,
        "decline": 0.0,
        "clip_norm": 0.0,
    }
    common = {"name": "torchdiffeq", "method": "dopri5", "gradient": "adjoint", "seminorm": False}
    if toy:
        flow = {
            "field": {
                "name": "concatsquash",
                "activation": "tanh",
                "hidden": (64, 64, 64),
                "time_length": 0.5,
            },
            "integrator": {**common, "atol": 1e-5, "rtol": 1e-5},
            "divergence": {"name": "exact"},
        }
        plan: dict[str, Any] = {"steps": 10_000, "validation_steps": 100, "patience": 0}
    else:
        flow = {
            "field": {
                "name": "concatsquash",
                "activation": "softplus",
                "hidden": (10,),
                "per_feature": True,
                "time_length": 1.0,
            },
            "integrator": {**common, "atol": 1e-8, "rtol": 1e-6},
            "divergence": {"name": "hutchinson", "distribution": "gaussian"},
        }
        plan = {"steps": 50_000, "validation_steps": 200, "patience": 0.12}
    return {
        "transforms": [] if toy else ["standardise"],
        "flow": {"name": "cnf", **flow},
        "plan": {"phases": [phase], "ema_decay": 0.0, **plan},
    }
