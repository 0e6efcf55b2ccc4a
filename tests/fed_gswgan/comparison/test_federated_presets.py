import tomllib
from pathlib import Path

import pytest

from fed_gswgan.comparison.client_compute import participation_flops
from fed_gswgan.comparison.federated_presets import METHODS, SHARED
from fed_gswgan.config import Config

CONFIG = Path(__file__).parents[3] / "simulations" / "configs" / "fed-emnist-digits.toml"


def config_of(name: str) -> Config:
    return Config.from_run_config({**SHARED["small"], **METHODS["small"][name].settings})


def test_the_small_preset_gives_every_method_s_clients_as_much_to_compute():
    flops = []
    for name in METHODS["small"]:
        config = config_of(name)
        participations = config.run.rounds * config.cohort.cohort_size
        assert config.critic.warm_start_steps == 0  # which would not be counted
        flops.append(participations * participation_flops(config, num_classes=10))
    assert flops == pytest.approx([flops[0]] * len(flops), rel=0.01)


def test_the_config_of_the_readme_is_the_small_preset_s_gs_wgan():
    assert Config.from_run_config(tomllib.loads(CONFIG.read_text())) == config_of("gs-wgan")


@pytest.mark.parametrize("preset", METHODS)
def test_every_method_of_a_preset_has_valid_settings(preset):
    for method in METHODS[preset].values():
        config = Config.from_run_config({**SHARED[preset], **method.settings})
        assert config.data.dataset == "fed-emnist"
