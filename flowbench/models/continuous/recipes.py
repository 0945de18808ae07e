"""Training recipes of continuous flows: the default recipe and published ones."""

from typing import Any

from flowbench.models.training_defaults import Adaptation

#: Tolerances of solves during training.
TRAINING_TOLERANCES = {"atol": 1e-4, "rtol": 1e-4}

#: Settings whose steps cost more and learn more: the optimiser SOAP, and antithetic pairs, in which each row
#: is taken with a draw from the base and with its mirror image.
BETTER_STEPS = {
    "objective": {"name": "flow-matching", "antithetic": True, "late_share": 1.0},
    "optimizer": "soap",
    "batch_size": 2048,
    "learning_rate": 8e-3,
}


#: The phases of training, before `ADAPTATIONS`.
PHASES: tuple[dict[str, Any], ...] = (
    {
        "objective": "flow-matching",
        "batch_size": 1024,
        "learning_rate": 4e-3,
        # Noise is added to the rows where they are few (`flowbench.training.smoothing`). Without it, the flow
        # that minimises the loss has a spike on each row.
        "smoothing": 0.5,
        # Regression on a noisy target tolerates rounded matrix products; an ODE solve would not.
        "matmul_precision": "bf16",
    },
)

#: Changes for a kind of data, or for a budget; where two set the same value, the later one holds.
ADAPTATIONS: tuple[Adaptation, ...] = (
    # The training tolerances stand here too, so that they stay when only the method is changed by name.
    Adaptation(options={"integrator": {"name": "native", **TRAINING_TOLERANCES}}),
    # Tables take long to learn, so the learning rate stays high for most of the time, and steps cost more and
    # learn more. Measured: benchmarks/DEFAULTS.md#rate-and-decline and #soap-and-antithetic-pairs.
    Adaptation("table", phase={**BETTER_STEPS, "decline": 0.25}),
    # Toys gain from such steps only with a longer budget. Measured:
    # benchmarks/DEFAULTS.md#soap-and-antithetic-pairs.
    Adaptation("toy", 100, phase=BETTER_STEPS),
    # With a longer budget a wider network pays off. Measured: benchmarks/DEFAULTS.md#width.
    Adaptation(seconds=100, options={"field": {"name": "time-mlp", "width": 192}}),
    # In a long fit the noise of the gradients limits the result, so batches are larger. On toys such a fit is
    # nearly converged, so the learning rate stays lower.
    Adaptation("table", 200, phase={"batch_size": 4096, "learning_rate": 1e-2}),
    Adaptation("toy", 200, phase={"batch_size": 4096, "learning_rate": 5e-3}),
)


def ffjord(kind: str) -> dict[str, Any]:
    """FFJORD's own recipe for a "toy" or a "table", as configuration values.

    The values are the defaults of the code released with Grathwohl et al. (2019). For toys: columns are not
    standardised, the field has three layers of 64 tanh units, the trace is exact, and training takes 10,000
    steps of batch 100. For tables: the field has one layer of ten softplus units a feature, the trace is
    estimated with one Gaussian probe, the batch is 1000, and training stops after 30 validations without
    progress. The code's stepwise decay of the learning rate is left out. Both recipes use the continuous
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
