"""Options of models that are small enough for fits, scores and draws to take a second."""

#: Settings by the model, for `resolve`; a model that is not here is small by default.
SMALL_MODELS = {
    # It starts from a normal, so that its paths bend little and its solves take few steps.
    "cnf": ["flow.field.width=8", "flow.field.scales=1", "flow.field.mixture_rows=0"],
    "coupling": ["flow.transforms=2", "flow.hidden=[16]"],
    "made": ["flow.components=4", "flow.hidden=[16]"],
    "maf": ["flow.transforms=2", "flow.hidden=[16]"],
    "nsf": ["flow.transforms=2", "flow.hidden=[16]"],
    "ngboost": ["flow.stages=30", "flow.learning_rate=0.1"],
}
#: For tests that need no likelihood to more digits.
LOOSE_SOLVES = ["evaluation.integrator.atol=1e-4", "evaluation.integrator.rtol=1e-4"]
