import numpy as np
import torch

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_critic, build_generator, to_state_vector
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from fed_gswgan.training_config import AdamConfig, CriticConfig, GeneratorConfig

CONFIG = GeneratorConfig(generator_width=4, latent_dim=3)


def trainer():
    critic = build_critic(CriticConfig(critic_width=8), DataSpec(IMAGE_SHAPE, 3), seed=0)
    return AveragedCriticTrainer(
        build_generator(CONFIG, DataSpec(IMAGE_SHAPE, 3), seed=0), critic, CONFIG, AdamConfig()
    )


def test_the_critic_moves_by_learning_rate_times_the_mean_update():
    moved = trainer()
    before = to_state_vector(moved.critic)
    update = np.ones_like(before)
    moved.move_critic(update, 0.5)
    assert np.allclose(to_state_vector(moved.critic), before + 0.5)


def test_training_raises_the_critics_score_of_the_samples_and_leaves_the_critic():
    trained = trainer()
    before = to_state_vector(trained.critic)
    latents = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 3

    def score():
        with torch.no_grad():
            return float(trained.critic(trained.samples(latents, labels), labels).mean())

    start = score()
    norm = trained.train_generator(40, 16, 3, np.random.default_rng(0))
    assert score() > start
    assert norm > 0
    assert np.array_equal(to_state_vector(trained.critic), before)


def test_a_checkpoint_must_hold_the_critic_too():
    assert set(trainer().networks()) == {"generator", "ema", "critic"}
