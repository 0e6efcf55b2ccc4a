import numpy as np
import pytest

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.models.registry import build_critic, build_generator, to_state_vector
from fed_gswgan.training.critic_update import critic_update
from fed_gswgan.training_config import CriticConfig, GeneratorConfig

GENERATOR = GeneratorConfig(generator_width=4, latent_dim=3)


@pytest.fixture
def update():
    images = np.random.default_rng(0).random((6, 1, 28, 28), dtype=np.float32)
    shard = ClientDataset(("f0001",), images, np.arange(6) % 3)

    def train(steps=2, rate=1e-2, seed=0):
        config = CriticConfig(critic_width=8, critic_steps=steps, critic_learning_rate=rate)
        critic = build_critic(config, DataSpec(IMAGE_SHAPE, 3), seed=0)
        generator = build_generator(GENERATOR, DataSpec(IMAGE_SHAPE, 3), seed=0)
        randomness = np.random.default_rng(seed)
        before = to_state_vector(critic), to_state_vector(generator)
        moved = critic_update(critic, generator, shard, 3, 4, config, GENERATOR, randomness)
        assert np.array_equal(to_state_vector(generator), before[1])
        assert to_state_vector(critic) == pytest.approx(before[0] + moved, abs=1e-6)
        return moved

    return train


def test_the_update_is_what_training_changed_and_the_generator_stays(update):
    assert np.linalg.norm(update()) > 0


def test_one_seed_gives_one_update(update):
    assert np.array_equal(update(), update())
    assert not np.array_equal(update(), update(seed=1))


def test_one_step_of_sgd_is_proportional_to_the_learning_rate(update):
    assert update(steps=1, rate=2e-3) == pytest.approx(2 * update(steps=1, rate=1e-3), abs=1e-6)
