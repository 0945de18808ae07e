"""How a configuration is put together, checked and kept."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from flowbench.errors import ConfigurationError, UnknownNameError
from flowbench.models.continuous.fields.time_mlp import TimeMLPOptions
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.registry import MODELS
from flowbench.store.rung import Rung
from flowbench.workflows.config import RunConfig, resolve, with_evaluation
from flowbench.workflows.config_values import parse_setting


@pytest.mark.parametrize("model", MODELS.names())
@pytest.mark.parametrize("preset", ["default", "ffjord"])
@pytest.mark.parametrize("dataset", ["moons", "wine"])
def test_every_preset_survives_toml(model: str, preset: str, dataset: str) -> None:
    if preset != "default" and preset not in MODELS.get(model).presets:
        with pytest.raises(UnknownNameError, match=f"unknown preset `ffjord` for model `{model}`"):
            resolve(dataset, model, preset=preset)
        return
    config = resolve(dataset, model, preset=preset)
    values = tomllib.loads(tomli_w.dumps(config.to_values()))
    assert RunConfig(**values) == config
    assert values == config.to_values()


def test_command_line_over_file_over_preset(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('[plan]\nsteps = 10\n[flow]\nname = "planar"\nlayers = 5\ninitial_scale = 0.5\n')
    config = resolve("moons", file=file, overrides={"plan.steps": 20}, settings=["flow.layers=6"])
    assert config.flow.name == "planar"
    assert config.flow.layers == 6
    assert config.flow.initial_scale == 0.5
    assert config.plan.steps == 20
    assert config.plan.phases[0].learning_rate == MODELS.get("planar").default_phases[0]["learning_rate"]


def test_a_budget_replaces_that_of_the_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('[data]\ndataset = "moons"\n[plan]\nseconds = 60.0\npatience = 0.5\n')
    for over in ({"overrides": {"plan.steps": 20}}, {"settings": ["plan.steps=20"]}):
        plan = resolve(file=file, **over).plan
        assert (plan.steps, plan.seconds, plan.patience) == (20, None, 0.5)
    plan = resolve(file=file, overrides={"plan.steps": 20}, settings=["plan.seconds=9"]).plan
    assert (plan.steps, plan.seconds) == (20, 9)
    assert resolve(file=file, settings=["plan.patience=0.1"]).plan.seconds == 60


def test_settings_count_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('[flow.field]\nname = "time-mlp"\nwidth = 64\n')
    settings = ["flow.field.width=32", "flow.field=time-mlp"]
    assert resolve("moons", file=file, settings=settings).flow.field.width == 32


def test_choosing_another_part_drops_the_options_of_the_first() -> None:
    config = resolve("moons", "cnf", settings=["flow.field.name=concatsquash", "flow.divergence=hutchinson"])
    assert config.flow.field.name == "concatsquash"
    assert config.flow.divergence.probes == 1


@pytest.mark.parametrize(
    "own",
    [
        {"evaluation.integrator": {"name": "native", "method": "rk4", "steps": 20}},
        {"evaluation.integrator": {"name": "native"}, "evaluation.divergence": "hutchinson"},
        {"evaluation.dtype": "float32"},
    ],
)
def test_a_solver_of_a_ladder_can_be_set_whatever_the_run_has(own: dict[str, object]) -> None:
    config = resolve("moons", overrides=own)
    for rung in (Rung("per-row", "tsit5", "float64", 1e-4), Rung("native", "rk4", "float32", 40)):
        found = with_evaluation(config, rung.settings).evaluation
        assert {**found.integrator.model_dump(), **rung.options} == found.integrator.model_dump()
        assert (found.dtype, found.divergence.name) == (rung.dtype, "exact")
    for setting in ("evaluation.integrator.atol=1e-9", "evaluation.integrator={atol=1e-9, rtol=1e-8}"):
        found = with_evaluation(config, [setting]).evaluation.integrator
        assert (found.name, found.atol) == (config.evaluation.integrator.name, 1e-9)
    with pytest.raises(ConfigurationError, match="evaluation's options alone"):
        with_evaluation(config, ["plan.steps=3"])


def test_naming_the_default_solver_or_its_method_keeps_its_tolerance() -> None:
    for setting in ("flow.integrator=native", "flow.integrator.method=tsit5"):
        integrator = resolve("moons", settings=[setting]).flow.integrator
        assert (integrator.name, integrator.rtol) == ("native", 1e-4)


def test_a_run_without_a_budget_gets_a_minute() -> None:
    assert resolve("moons").plan.seconds == 60
    assert resolve("moons", overrides={"plan.steps": 5}).plan.seconds is None
    assert resolve("moons", "gaussian").plan.seconds is None


@pytest.mark.parametrize("dataset", ["moons", "wine"])
def test_a_long_budget_gets_a_wider_flow_and_larger_batches_unless_told(dataset: str) -> None:
    def config(seconds: object, *settings: str) -> RunConfig:
        return resolve(dataset, overrides={"plan.seconds": seconds}, settings=settings)

    starts = sorted(each.seconds for each in ContinuousFlow.adaptations if each.seconds)
    short, long = config(starts[0] - 1), config(starts[-1])
    wide = long.flow.field.width
    assert short.flow.field.width == TimeMLPOptions().width < wide
    assert short.plan.phases[0].batch_size < long.plan.phases[0].batch_size
    assert config(starts[-1], "flow.field.width=7").flow.field.width == 7
    assert config(starts[-1], "flow.field.scales=2").flow.field.width == wide
    assert config(starts[-1], "flow.field=time-mlp").flow.field.width == wide
    assert config(starts[-1], "flow.field=potential").flow.field.width == 32
    with pytest.raises(ConfigurationError, match=r"`plan\.seconds`"):
        config("long")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("flow.feild.width=3", r"unknown option `flow\.feild`; allowed here: .*`field`"),
        ("flow.field.widht=3", r"unknown option `flow\.field\.widht`; allowed here: .*`width`"),
        ("flow.field.width=-1", r"`flow\.field\.width`: must be greater than or equal to 1; got -1"),
        ("flow.field.width=big", r"`flow\.field\.width`: must be a valid integer"),
        ("flow.field.name=mlp", r"unknown velocity field `mlp`; .*available: time-mlp, concatsquash"),
        ("evaluation.integrator.atol=0", r"`evaluation\.integrator\.atol`: must be greater than 0; got 0"),
        ("plan.steps=nan", r"`plan\.steps`"),
        ("plan.seconds=0", r"`plan\.seconds`: must be greater than 0; got 0"),
        ("plan.phases=[{objective='likelihood'", r"`--set plan\.phases=.*the value is not valid TOML"),
        ('flow.field={name="time-mlp', r"`--set flow\.field=.*the value is not valid TOML"),
        ("split.test=0.5", r"must add up to 1; they make 1\.4"),
        ("device=tpu", r"`device`"),
        ("nothing", r"`--set` takes part\.option=value"),
        ("=3", r"`--set` takes part\.option=value"),
    ],
)
def test_a_wrong_option_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve("moons", "cnf", settings=[setting])


@given(
    path=st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=1, max_size=4),
    value=st.one_of(
        st.integers(-(2**62), 2**62), st.booleans(), st.floats(allow_nan=False), st.text(max_size=20)
    ),
)
def test_settings_take_toml_values(path: list[str], value: object) -> None:
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    parsed: object = parse_setting(f"{'.'.join(path)}={text}")
    for part in path:
        assert isinstance(parsed, dict)
        parsed = parsed[part]
    assert parsed == value


def test_bare_words_are_strings() -> None:
    assert parse_setting("flow.field.activation = softplus") == {
        "flow": {"field": {"activation": "softplus"}}
    }
