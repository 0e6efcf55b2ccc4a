import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training import critic_training
from fed_gswgan.training.critic_training import (
    critic_optimizer,
    critic_step,
    draw_images,
    train_critic,
)
from fed_gswgan.training_config import AdamConfig, CriticConfig


def make_shard(labels):
    """A shard whose image ``i`` is grey of value ``i / 100``."""
    values = np.arange(len(labels), dtype=np.float32) / 100
    images = np.broadcast_to(values[:, None, None, None], (len(labels), 1, 28, 28)).copy()
    return WriterShard(("somebody",), images, np.array(labels, dtype=np.int64))


def drawn_indices(images_BCHW):
    return [round(float(image[0, 0, 0]) * 100) for image in images_BCHW]


def build_critic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLPCritic(num_classes=3, width=8)


def batches(count, size=4):
    """Sample batches of which batch ``n`` is grey of value ``(n + 1) / 10``."""
    values = (torch.arange(count) + 1) / 10
    samples = values.view(-1, 1, 1, 1, 1).expand(count, size, 1, 28, 28).contiguous()
    return samples, torch.arange(count * size).view(count, size) % 3


def trained(steps=5, seed=0, count=2, shard=None):
    critic, config = build_critic(), CriticConfig(critic_steps=steps)
    optimizer = critic_optimizer(critic, config, AdamConfig())
    shard = shard or make_shard([0, 1, 2, 0])
    randomness = np.random.default_rng(seed)
    train_critic(critic, optimizer, shard, *batches(count), config, randomness)
    return critic


def same_weights(first, second):
    return all(map(torch.equal, first.parameters(), second.parameters()))


def test_images_are_drawn_to_the_labels_of_the_batch():
    shard = make_shard([0, 1, 2, 1, 0, 1])
    labels = np.array([1, 0, 2, 1, 1, 0])
    for seed in range(20):
        drawn = drawn_indices(draw_images(shard, labels, np.random.default_rng(seed)))
        assert [shard.labels[index] for index in drawn] == labels.tolist()


def test_every_image_of_a_label_is_drawn_about_equally_often():
    shard = make_shard([0, 1, 1, 0, 1])
    labels = np.ones(600, dtype=np.int64)
    drawn = drawn_indices(draw_images(shard, labels, np.random.default_rng(0)))
    counts = [drawn.count(index) for index in (1, 2, 4)]
    assert sum(counts) == 600
    assert min(counts) > 150


def test_a_label_the_shard_lacks_gets_any_image_of_the_shard():
    labels = np.full(300, 7)
    drawn = drawn_indices(draw_images(make_shard([0, 1, 2]), labels, np.random.default_rng(0)))
    assert set(drawn) == {0, 1, 2}


def test_training_is_decided_by_its_random_generator():
    assert same_weights(trained(seed=1), trained(seed=1))
    assert not same_weights(trained(seed=1), trained(seed=2))


def test_steps_go_round_the_sample_batches(monkeypatch):
    seen = []

    def record(critic, images, samples, *others):
        seen.append(round(float(samples[0, 0, 0, 0]), 3))

    monkeypatch.setattr(critic_training, "set_piecewise_linear_gradient", record)
    critic, config = build_critic(), CriticConfig(critic_steps=5)
    optimizer = critic_optimizer(critic, config, AdamConfig())
    shard = make_shard([0, 1, 2])
    train_critic(critic, optimizer, shard, *batches(2), config, np.random.default_rng(0))
    assert seen == [0.1, 0.2, 0.1, 0.2, 0.1]


def test_training_never_modifies_the_shard_or_the_samples():
    shard = make_shard([0, 1, 2])
    images, labels = shard.images.copy(), shard.labels.copy()
    samples, sample_labels = batches(1)
    before = samples.clone()
    critic, config = build_critic(), CriticConfig(critic_steps=3)
    optimizer = critic_optimizer(critic, config, AdamConfig())
    train_critic(critic, optimizer, shard, samples, sample_labels, config, np.random.default_rng(0))
    assert np.array_equal(shard.images, images)
    assert np.array_equal(shard.labels, labels)
    assert torch.equal(samples, before)


def test_a_drawn_image_is_a_copy():
    shard = make_shard([0])
    draw_images(shard, np.array([0, 0]), np.random.default_rng(0)).fill_(1)
    assert shard.images.max() == 0


def test_training_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    trained()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_critic_learns_to_score_images_above_samples():
    shard = make_shard([0, 1, 2])  # nearly black, against samples of grey 0.1
    critic = trained(steps=60, count=1, shard=shard)
    samples, labels = batches(1)
    images = draw_images(shard, labels[0].numpy(), np.random.default_rng(1))
    with torch.no_grad():
        assert critic(images, labels[0]).mean() > critic(samples[0], labels[0]).mean() + 0.5


def test_one_step_follows_the_loss_by_hand_whatever_gradient_was_left_over():
    critic = nn.Linear(2, 1, bias=False)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    critic.weight.grad = torch.full((1, 2), 100.0)

    class Scored(nn.Module):
        def forward(self, images, labels):
            return critic(images.flatten(1)).squeeze(1)

    image, sample = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    config = CriticConfig(gradient_penalty=10.0, drift_penalty=0.5)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    labels, mix = torch.tensor([0]), torch.tensor([0.5])
    critic_step(Scored(), optimizer, image, sample, labels, mix, config)
    # wasserstein: sample - image                    = (-1,  1)
    # penalty:     10 x 2 (5 - 1) x (3, 4) / 5       = (48, 64)
    # drift:       0.5 x 2 x score 3 x image         = ( 3,  0)
    # weight:      (3, 4) - 0.1 x (50, 65)
    assert critic.weight.flatten().tolist() == pytest.approx([-2.0, -2.5])


def test_optimizer_takes_its_rate_and_moments_from_the_settings():
    config, adam = CriticConfig(critic_learning_rate=0.25), AdamConfig(adam_beta1=0.1)
    group = critic_optimizer(build_critic(), config, adam).param_groups[0]
    assert (group["lr"], group["betas"]) == (0.25, (0.1, 0.9))
