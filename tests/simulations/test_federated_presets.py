import tomllib
from pathlib import Path

import pytest

from fed_gswgan.config import Config
from simulations.federated_presets import METHODS, SHARED
from simulations.table4 import participation_flops

CONFIGS = Path(__file__).parents[2] / "simulations" / "configs"


def config_of(name: str, preset: str = "small") -> Config:
    return Config.from_table({**SHARED[preset], **METHODS[preset][name].settings})


def test_the_small_preset_gives_every_method_s_clients_as_much_to_compute():
    flops = []
    for name in METHODS["small"]:
        config = config_of(name)
        participations = config.shared.rounds * config.shared.cohort_size
        assert config.own.warm_start_steps == 0  # which would not be counted
        flops.append(participations * participation_flops(config, num_classes=10))
    assert flops == pytest.approx([flops[0]] * len(flops), rel=0.02)


@pytest.mark.parametrize(
    ("file", "preset"), [("fed-emnist-digits.toml", "small"), ("paper-fed-emnist.toml", "full")]
)
def test_a_config_is_its_preset_s_gs_wgan(file, preset):
    config = Config.from_table(tomllib.loads((CONFIGS / file).read_text()))
    assert config == config_of("gs-wgan", preset)


@pytest.mark.parametrize("preset", METHODS)
def test_every_method_of_a_preset_has_valid_settings(preset):
    for method in METHODS[preset].values():
        config = Config.from_table({**SHARED[preset], **method.settings})
        assert config.shared.dataset == "fed-emnist"
