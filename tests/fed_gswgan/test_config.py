import dataclasses
import math

import pytest

from fed_gswgan.config import Config

# One value outside the range of every setting that has one.
OUT_OF_RANGE = {
    "dataset": "mnist",
    "classes": "some",
    "min-images-per-writer": 0,
    "writers-per-client": 0,
    "max-clients": -1,
    "generator": "mlp",
    "generator-width": 0,
    "latent-dim": 0,
    "latent-kind": "uniform",
    "generator-learning-rate": 0.0,
    "ema-halflife-rounds": -1.0,
    "critic": "resnet",
    "critic-width": 0,
    "critic-steps": 0,
    "critic-learning-rate": -1e-3,
    "gradient-penalty": -1.0,
    "drift-penalty": -1.0,
    "warm-start-steps": -1,
    "adam-beta1": 1.0,
    "adam-beta2": -0.1,
    "clipping": "row",
    "clipping-bound": 0.0,
    "noise-stddev": 0.0,
    "noise-source": "numpy",
    "neighboring-relation": "add-or-remove-one",
    "delta": 1.0,
    "max-epsilon": 0.0,
    "cohort-size": 0,
    "sampling-method": "revealed",
    "batch-size": 0,
    "critic-batches": -1,
    "min-replies": 0,
    "reply-timeout-seconds": 0.0,
    "downlink-codec": "int8",
    "uplink-codec": "bfloat16",
    "rounds": 0,
    "seed": -1,
    "checkpoint-every": 0,
    "samples-every": 0,
    "evaluation-samples": 1,
}
WITHOUT_RANGE = {"data-dir", "output-dir", "resume"}


def test_empty_table_gives_the_defaults():
    assert Config.from_run_config({}) == Config()


def test_table_of_a_config_builds_that_config():
    changed = {"rounds": 7, "noise-stddev": 3.5, "clipping": "message", "resume": True}
    config = Config.from_run_config(changed)
    assert config != Config()
    assert Config.from_run_config(config.to_run_config()) == config
    assert config.to_run_config() == Config.defaults() | changed


def test_table_holds_scalars_under_unique_kebab_case_keys():
    table = Config().to_run_config()
    roles = [role for role in dataclasses.fields(Config)]
    assert len(table) == sum(len(dataclasses.fields(role.type)) for role in roles)
    assert all(type(value) in (bool, int, float, str) for value in table.values())
    assert not [key for key in table if "_" in key or key != key.lower()]


def test_unknown_key_is_named():
    with pytest.raises(ValueError, match=r"^noise_stddev=1.0: no such setting; known: .*noise-std"):
        Config.from_run_config({"noise_stddev": 1.0})


def test_every_setting_with_a_range_is_in_the_table_below():
    assert set(OUT_OF_RANGE) | WITHOUT_RANGE == set(Config.defaults())


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE.items())
def test_range_error_names_the_setting_and_the_value(key, value):
    with pytest.raises(ValueError, match=rf"^{key}={value!r} must "):
        Config.from_run_config({key: value})


@pytest.mark.parametrize("key", [k for k, v in Config.defaults().items() if type(v) is float])
def test_nan_is_refused_by_every_float(key):
    with pytest.raises(ValueError, match=rf"^{key}=nan must "):
        Config.from_run_config({key: math.nan})


@pytest.mark.parametrize(("key", "default"), Config.defaults().items())
def test_value_of_another_type_is_refused_by_name(key, default):
    wrong = {bool: 1, int: 1.0, float: "1.0", str: 1}[type(default)]
    with pytest.raises(ValueError, match=rf"^{key}={wrong!r} must be of type "):
        Config.from_run_config({key: wrong})


@pytest.mark.parametrize("key", [k for k, v in Config.defaults().items() if type(v) is not bool])
def test_bool_is_neither_number_nor_text(key):
    with pytest.raises(ValueError, match=rf"^{key}=True must be of type "):
        Config.from_run_config({key: True})


def test_whole_number_serves_as_float():
    config = Config.from_run_config({"noise-stddev": 2, "reply-timeout-seconds": 30})
    assert type(config.sanitizer.noise_stddev) is float
    assert config.sanitizer.noise_stddev == 2.0
    assert config.cohort.reply_timeout_seconds == 30.0


def test_infinite_max_epsilon_is_the_one_infinity():
    assert Config.from_run_config({"max-epsilon": math.inf}).budget.max_epsilon == math.inf
    with pytest.raises(ValueError, match="max-epsilon=-inf must "):
        Config.from_run_config({"max-epsilon": -math.inf})


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().sanitizer.noise_stddev = 0.1
