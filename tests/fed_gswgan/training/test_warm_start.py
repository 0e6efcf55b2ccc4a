import numpy as np
import pytest
import torch

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training.critic_training import critic_optimizer
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training.warm_start import warm_start
from fed_gswgan.training_config import AdamConfig, CriticConfig


@pytest.fixture
def shard():
    images = np.random.default_rng(5).random((4, 1, 28, 28), dtype=np.float32)
    return WriterShard(("somebody",), images, np.array([0, 1, 2, 0], dtype=np.int64))


def warm(shard, steps, seed=0, critic_steps=2, start=None):
    """Return a critic after its warm start, its optimizer and the spent random generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = MLPCritic(num_classes=3, width=8)
    if start is not None:
        with torch.no_grad():
            critic.score.weight.fill_(start)
    config = CriticConfig(warm_start_steps=steps, critic_steps=critic_steps)
    optimizer = critic_optimizer(critic, config, AdamConfig())
    randomness = np.random.default_rng(seed)
    warm_start(critic, optimizer, shard, 3, config, AdamConfig(), randomness)
    return critic, optimizer, randomness


def same_weights(first, second):
    return all(map(torch.equal, first.parameters(), second.parameters()))


def test_zero_steps_change_neither_critic_nor_optimizer_nor_randomness(shard):
    critic, optimizer, randomness = warm(shard, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert same_weights(critic, MLPCritic(num_classes=3, width=8))
    assert optimizer.state_dict()["state"] == {}
    assert randomness.random() == np.random.default_rng(0).random()


def test_warm_start_is_decided_by_its_random_generator(shard):
    assert same_weights(warm(shard, 2, seed=1)[0], warm(shard, 2, seed=1)[0])
    assert not same_weights(warm(shard, 2, seed=1)[0], warm(shard, 2, seed=2)[0])


@pytest.mark.parametrize("critic_steps", [1, 20])
def test_every_generator_step_is_five_updates_of_the_critic_however_rounds_train(
    shard, critic_steps
):
    _, optimizer, _ = warm(shard, 3, critic_steps=critic_steps)
    assert {int(state["step"]) for state in optimizer.state.values()} == {15}


@pytest.fixture
def generator_steps(monkeypatch):
    """Gradient norms of the steps of the generator that is thrown away."""
    norms, step = [], GeneratorTrainer.step

    def counted(trainer, *inputs):
        norms.append(step(trainer, *inputs))
        return norms[-1]

    monkeypatch.setattr(GeneratorTrainer, "step", counted)
    return norms


def test_the_critic_is_warmed_against_a_generator_that_learns_too(shard, generator_steps):
    warm(shard, 3)
    assert len(generator_steps) == 3
    assert min(generator_steps) > 0


def test_a_critic_that_diverged_neither_stops_its_client_nor_steps_the_generator(
    shard, generator_steps
):
    critic, _, _ = warm(shard, 2, start=float("nan"))
    assert critic.score.weight.isnan().all()
    assert generator_steps == []


def test_warm_start_leaves_the_shard_and_the_global_generators_alone(shard):
    images = shard.images.copy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    warm(shard, 2)
    assert np.array_equal(shard.images, images)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
