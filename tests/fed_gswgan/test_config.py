import dataclasses
import math
import re

import pytest

from fed_gswgan.config import Config

# One value outside the range of every setting that has one.
OUT_OF_RANGE = {
    "dataset": "mnist",
    "classes": "some",
    "min-images-per-writer": 0,
    "writers-per-client": 0,
    "max-clients": -1,
    "virtual-clients": -1,
    "swapped-share": 1.5,
    "algorithm": "fedavg",
    "generator-steps": 0,
    "server-learning-rate": 0.0,
    "release-use": "momentum",
    "field-rounds": 0,
    "field-steps": 0,
    "field-width": 0,
    "field-learning-rate": 0.0,
    "field-batch-size": 0,
    "generator-steps-per-release": 0,
    "generator": "mlp",
    "generator-width": 1,
    "latent-dim": 0,
    "latent-kind": "uniform",
    "generator-learning-rate": 0.0,
    "generator-learning-rate-end-factor": 1.5,
    "ema-halflife-steps": -1.0,
    "sample-contrast": 0.0,
    "critic": "resnet",
    "critic-width": 0,
    "class-embedding-stddev": -1.0,
    "critic-state": "forgetful",
    "critic-steps": 0,
    "critic-learning-rate": -1e-3,
    "critic-compute": "float16",
    "gradient-penalty": -1.0,
    "drift-penalty": -1.0,
    "warm-start-steps": -1,
    "adam-beta1": 1.0,
    "adam-beta2": -0.1,
    "clipping": "row",
    "clipping-bound": 0.0,
    "noise-stddev": 0.0,
    "noise-source": "numpy",
    "dct-frequencies": 29,
    "neighboring-relation": "add-or-remove-one",
    "delta": 1.0,
    "max-epsilon": 0.0,
    "max-participations": -1,
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
WITHOUT_RANGE = {"data-dir", "output-dir", "resume", "writers-file"}


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("generator-width", 0),
        ("clipping-bound", 1e30),
        ("clipping-bound", 1e-30),
        ("clipping-bound", math.inf),
        ("noise-stddev", 1e-9),
        ("noise-stddev", 1e9),
        ("noise-stddev", math.inf),
    ],
)
def test_both_ends_of_a_range_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"^{key}={re.escape(repr(value))} must "):
        Config.from_run_config({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("generator-width", 2),
        ("clipping-bound", 1e29),
        ("clipping-bound", 1e-29),
        ("noise-stddev", 2e-9),
        ("noise-stddev", 9e8),
    ],
)
def test_what_is_just_inside_is_allowed(key, value):
    assert Config.from_run_config({key: value}).to_run_config()[key] == value


def test_more_replies_than_a_cohort_of_fixed_size_has_are_refused():
    with pytest.raises(ValueError, match=r"^min-replies=5 must be <= cohort-size=4"):
        Config.from_run_config({"cohort-size": 4, "min-replies": 5})
    for allowed in (
        {"cohort-size": 4, "min-replies": 4},
        {"cohort-size": 4, "min-replies": 5, "sampling-method": "poisson"},  # 4 in the mean
    ):
        assert Config.from_run_config(allowed).cohort.min_replies == allowed["min-replies"]


def test_noise_that_float16_cannot_hold_is_refused():
    # Six deviations above the bound: 1 + 6 x 10917.1 = 65503.6, and 65504.2 at 10917.2.
    table = {"uplink-codec": "float16", "clipping-bound": 1.0}
    with pytest.raises(ValueError, match=r"^uplink-codec=float16 .*noise-stddev=10917.2 "):
        Config.from_run_config(table | {"noise-stddev": 10917.2})
    assert Config.from_run_config(table | {"noise-stddev": 10917.1}).codec.uplink_codec == "float16"
    with pytest.raises(ValueError, match="float16"):
        Config.from_run_config(table | {"clipping-bound": 1e4, "noise-stddev": 2.0})
    for codec in ("float32", "uint8"):
        Config.from_run_config({"uplink-codec": codec, "noise-stddev": 1e6})


def test_float16_to_the_devices_does_not_limit_the_noise():
    table = {"downlink-codec": "float16", "noise-stddev": 1e6}
    assert Config.from_run_config(table).codec.downlink_codec == "float16"


def test_few_bits_need_the_noise_that_their_range_spans():
    for codec in ("uint4", "uint2", "uint1"):
        table = {"uplink-codec": codec}
        with pytest.raises(ValueError, match=rf"^uplink-codec={codec} needs noise-stddev >= 1, is"):
            Config.from_run_config(table | {"noise-stddev": 0.99})
        assert Config.from_run_config(table | {"noise-stddev": 1.0}).codec.uplink_codec == codec


def test_more_virtual_clients_than_ids_have_digits_for_are_refused():
    assert Config.from_run_config({"virtual-clients": 100_000}).data.virtual_clients == 100_000
    with pytest.raises(ValueError, match="virtual-clients=100001 must be <= 100000"):
        Config.from_run_config({"virtual-clients": 100_001})
