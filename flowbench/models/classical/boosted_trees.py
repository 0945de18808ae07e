"""Boosted trees for the mean and the spread of each column: NGBoost, a baseline that users know."""

import math
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.growing import GrowingBuffers
from flowbench.models.rows import Rows
from flowbench.statistics.gaussian_mixtures import Tell
from flowbench.statistics.weighting import mean_of

if TYPE_CHECKING:
    from ngboost import NGBRegressor
    from sklearn.tree import DecisionTreeRegressor

Floats = NDArray[np.float64]

#: The depth of the trees, as in the paper.
DEPTH = 3
SPLITS, LEAVES = 2**DEPTH - 1, 2**DEPTH
#: The share of the train rows that chooses the number of stages.
JUDGING_SHARE = 0.1
#: The share of a budget of time that the search for this number may take. The last fit, with all train rows,
#: takes about as long.
SEARCH_SHARE = 0.45
#: The least deviation of a column in model space. The trees are fitted to float32 rows, which resolve no
#: less.
LEAST_DEVIATION = 1e-5
#: The longest fit, in seconds, if the budget is in steps.
DEFAULT_SECONDS = 60.0


class BoostedTreesOptions(options.PartOptions):
    """At most `stages` of boosting for each column, each scaled by `learning_rate`.

    The search for the number of stages ends when the last `patience` of them brought nothing. At most
    `max_rows` training rows are used.
    """

    name: Literal["ngboost"] = "ngboost"
    stages: PositiveInt = 2000
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    patience: PositiveInt = 100
    max_rows: int = Field(default=100_000, ge=2)


class BoostedTrees(GrowingBuffers, Flow):
    """A normal for each column, whose mean and deviation depend on the context and on the columns before it.

    Mean and log-deviation are sums of regression trees, fitted by the natural gradient of the likelihood
    (NGBoost; Duan et al. 2020) with the package ngboost. A tenth of the training rows chooses the number of
    stages; then all rows are fitted with it. A column that nothing precedes has one mean and one deviation.
    The fit ends early if the budget of time does, and `remarks` says so. Without a budget of time the limit
    is a minute.

    The map x = mean + deviation z is triangular. It jumps where a tree splits, and its log-determinant is
    right everywhere else. It has no gradient with respect to the context.

    Rows that have weights count by these in the means and deviations, the trees, and the choice of the
    stages.

    The trees are kept as arrays, so a fitted model is scored without the package. Each tree is a full one of
    `DEPTH`; what is no split sends all rows to the left.
    """

    Options: ClassVar[type[options.PartOptions]] = BoostedTreesOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ("ngboost",)
    options: BoostedTreesOptions
    #: Mean and log-deviation of each column before the first stage, (d, 2).
    initial: Tensor
    #: The column that each stage belongs to, (k,).
    stage_columns: Tensor
    #: The input that each node asks for, (k, 2, SPLITS): the context's columns, then those of the rows.
    split_inputs: Tensor
    #: Rows above these go to the right, (k, 2, SPLITS).
    thresholds: Tensor
    #: What each leaf adds to the mean and to the log-deviation, (k, 2, LEAVES).
    leaf_values: Tensor

    def __init__(
        self,
        features: int,
        options: BoostedTreesOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.growing = ("stage_columns", "split_inputs", "thresholds", "leaf_values")
        self.seed = int(torch.randint(2**31, (), generator=generator))
        self.register_buffer("initial", torch.zeros(features, 2, dtype=torch.float64))
        self._keep([])

    @property
    def parameter_count(self) -> int:
        """The first mean and deviation of each column, and the splits and leaves of its trees."""
        splits = int(self.thresholds.isfinite().sum())
        return self.initial.numel() + 2 * splits + 2 * len(self.stage_columns)

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        few = rows[: self.options.max_rows].each(lambda part: part.double().cpu())
        inputs = self._inputs(few.x, few.context).numpy()
        weights = None if few.weights is None else (few.weights / few.weights.mean()).numpy()
        end = time.monotonic() + (DEFAULT_SECONDS if seconds is None else seconds)
        stages: list[_Stage] = []
        remarks = []
        for column in range(self.features):
            place = self.context_features + column
            y, before = inputs[:, place], inputs[:, :place]
            self.initial[column] = torch.from_numpy(_marginal(y, weights))
            if not place:
                continue
            share = (end - time.monotonic()) / (self.features - column)
            tell(f"ngboost, column {column + 1} of {self.features}")
            found = _boost(before, y, self.options, seed=self.seed, seconds=share, weights=weights)
            stages += (stage._replace(column=column) for stage in found.stages)
            if found.cut:
                remarks.append(
                    f"ngboost: column {column + 1} has {len(found.stages)} stages only, since {found.cut}"
                )
        self._keep(stages)
        self.remarks = tuple(remarks)

    def _keep(self, stages: Sequence["_Stage"]) -> None:
        k, like = len(stages), self.initial
        inputs = np.array([stage.inputs for stage in stages], dtype=np.int64).reshape(k, 2, SPLITS)
        thresholds = np.array([stage.thresholds for stage in stages], dtype=float).reshape(k, 2, SPLITS)
        values = np.array([stage.values for stage in stages], dtype=float).reshape(k, 2, LEAVES)
        columns = torch.tensor([stage.column for stage in stages], dtype=torch.int64, device=like.device)
        self.register_buffer("stage_columns", columns)
        self.register_buffer("split_inputs", torch.from_numpy(inputs).to(like.device))
        self.register_buffer("thresholds", torch.from_numpy(thresholds).to(like))
        self.register_buffer("leaf_values", torch.from_numpy(values).to(like))

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        inputs = self._inputs(x, context)
        normals = [self._normal(column, inputs) for column in range(self.features)]
        means, log_deviations = (torch.stack(part, 1) for part in zip(*normals, strict=True))
        return Mapped((x - means) / log_deviations.exp(), -log_deviations.sum(1))

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        inputs, log_det = self._inputs(z[:, :0], context), z.new_zeros(len(z))
        for column in range(self.features):
            mean, log_deviation = self._normal(column, inputs)
            drawn = mean + log_deviation.exp() * z[:, column]
            inputs, log_det = torch.cat([inputs, drawn.unsqueeze(1)], 1), log_det + log_deviation
        return Mapped(inputs[:, self.context_features :], log_det)

    def _sample_for_each(self, m: int, context: Tensor, generator: torch.Generator) -> Tensor:
        if self.features > 1:
            return super()._sample_for_each(m, context, generator)
        # The trees are asked once for a context, and not for each of its draws.
        mean, log_deviation = (part.view(-1, 1, 1) for part in self._normal(0, context))
        return mean + log_deviation.exp() * self._latin_hypercube(m, generator)

    def _inputs(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Context and rows side by side, (n, c + d), as the trees take them."""
        return x if context is None else torch.cat([context, x], 1)

    def _normal(self, column: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation, (n,) each, of a column given those of its `inputs` that come before it."""
        own = self.stage_columns == column
        asked, thresholds = self.split_inputs[own].flatten(0, 1), self.thresholds[own].flatten(0, 1)
        values = self.leaf_values[own].flatten(0, 1)
        trees = torch.arange(len(values), device=values.device)
        # scikit-learn's trees were fitted to float32.
        rows = inputs.float()
        node = torch.zeros(len(inputs), len(trees), dtype=torch.int64, device=values.device)
        for _ in range(DEPTH):
            right = rows.gather(1, asked[trees, node]) > thresholds[trees, node]
            node = 2 * node + 1 + right
        leaves = values[trees, node - SPLITS].view(len(inputs), len(trees) // 2, 2)
        mean, log_deviation = (self.initial[column] + leaves.sum(1)).to(inputs).unbind(1)
        return mean, log_deviation.clamp_min(math.log(LEAST_DEVIATION))


class _Stage(NamedTuple):
    """One stage of boosting of a column: a tree for its mean and one for its log-deviation."""

    column: int
    inputs: list[list[int]]
    thresholds: list[list[float]]
    values: list[list[float]]


class _Boosted(NamedTuple):
    """The stages of a column, and why there are no more of them, if they ended too early."""

    stages: list[_Stage]
    cut: str


def _marginal(y: Floats, weights: Floats | None) -> Floats:
    """The mean and the log-deviation `(2,)` of y `(n,)` by the `weights: (n,)` of the rows."""
    mean = mean_of(y, weights)
    return np.array([mean, math.log(max(mean_of((y - mean) ** 2, weights) ** 0.5, LEAST_DEVIATION))])


def _boost(
    x: Floats,
    y: Floats,
    chosen: BoostedTreesOptions,
    *,
    seed: int,
    seconds: float,
    weights: Floats | None = None,
) -> _Boosted:
    """The stages that fit y `(n,)` given x `(n, k)`, of rows with `weights: (n,)`."""
    judges, started = max(1, round(JUDGING_SHARE * len(y))), time.monotonic()
    if len(y) - judges < 2 or y[judges:].std() <= LEAST_DEVIATION:
        return _Boosted([], "its train rows are too few or hardly differ")
    losses: list[float] = []
    judging, learning = (
        None if weights is None else weights[part] for part in (np.s_[:judges], np.s_[judges:])
    )

    def judge(distribution: Any, held_out: Floats) -> float:
        losses.append(float(distribution.total_score(held_out, judging)))
        return losses[-1]

    search = _regressor(chosen.stages, chosen.learning_rate, seed)
    held_out = {"X_val": x[:judges], "Y_val": y[:judges], "val_loss_monitor": judge}
    end = started + SEARCH_SHARE * seconds
    cut = _fit_within(
        search,
        end,
        x[judges:],
        y[judges:],
        learning,
        **held_out,
        early_stopping_rounds=chosen.patience,
    )
    finite = np.isfinite(losses)
    if not finite.any():
        return _Boosted([], cut or "its likelihood is not finite")
    best = 1 + int(np.argmin(np.where(finite, losses, np.inf)))
    model = _regressor(best, chosen.learning_rate, seed)
    again = _fit_within(model, started + seconds, x, y, weights)
    stages: list[_Stage] = []
    for trees, scale in zip(model.base_models, model.scalings, strict=False):
        arrays = [_as_full_tree(tree, -chosen.learning_rate * scale) for tree in trees]
        inputs, thresholds, values = (list(part) for part in zip(*arrays, strict=True))
        if not np.isfinite(values).all():
            return _Boosted(stages, "its likelihood is not finite")
        stages.append(_Stage(0, inputs, thresholds, values))
    # A search that had its fill of stages that brought nothing was not cut short.
    return _Boosted(stages, again or (cut if len(losses) - best < chosen.patience else ""))


def _regressor(stages: int, rate: float, seed: int) -> "NGBRegressor":
    from sklearn.tree import DecisionTreeRegressor

    with warnings.catch_warnings():
        # ngboost's own learner, made on import, calls its criterion by a name that scikit-learn gives up.
        warnings.simplefilter("ignore", FutureWarning)
        from ngboost import NGBRegressor
    learner = DecisionTreeRegressor(max_depth=DEPTH, random_state=seed)
    return NGBRegressor(
        Base=learner, n_estimators=stages, learning_rate=rate, random_state=seed, verbose=False
    )


def _fit_within(
    model: "NGBRegressor", end: float, x: Floats, y: Floats, weights: Floats | None, **more: Any
) -> str:
    """Fit `model` until the clock shows `end`; it then keeps the stages that it has.

    Returns why the fit ended, if it ended early.
    """

    def watch(distribution: Any, rows: Floats, weights: Any) -> float:
        if time.monotonic() > end:
            raise TimeoutError
        return 0.0

    if weights is not None:
        # ngboost begins with the mean and the deviation of equal weights.
        def begin(*_: Any, **__: Any) -> None:
            model.init_params = _marginal(y, weights)

        model.fit_init_params_to_marginal = begin
    try:
        # Deviations may run off to 0 or to infinity; what is then not finite is dropped.
        with np.errstate(all="ignore"):
            model.fit(x, y, sample_weight=weights, train_loss_monitor=watch, **more)
    except TimeoutError:
        return "the time ran out"
    except ValueError as error:
        return f"the package ngboost failed: {' '.join(str(error).split())}"
    return ""


def _as_full_tree(tree: "DecisionTreeRegressor", factor: float) -> tuple[list[int], list[float], list[float]]:
    """The inputs and thresholds of the nodes, level by level, and the leaves' values times `factor`."""
    inputs, thresholds, values = [0] * SPLITS, [np.inf] * SPLITS, [0.0] * LEAVES
    parts = tree.tree_

    def place(node: int, at: int) -> None:
        if at >= SPLITS:
            values[at - SPLITS] = factor * float(parts.value[node, 0, 0])
        elif parts.children_left[node] < 0:
            place(node, 2 * at + 1)
        else:
            inputs[at], thresholds[at] = int(parts.feature[node]), float(parts.threshold[node])
            place(parts.children_left[node], 2 * at + 1)
            place(parts.children_right[node], 2 * at + 2)

    place(0, 0)
    return inputs, thresholds, values
