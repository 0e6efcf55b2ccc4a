"""A small prior made anew on the CPU: readers read, generators come nearer to the pool."""

import numpy as np
import pytest
import torch

from fed_gswgan.algorithms.fedavg_gan import Settings
from fed_gswgan.critics.wgan_gp import wasserstein_loss
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field.fit import pool_loss
from fed_gswgan.models.features import Features
from fed_gswgan.models.registry import build_generator
from fed_gswgan.models.trainer import sampler_of
from fed_gswgan.priors import training
from fed_gswgan.priors.strokes import draw_pool
from fed_gswgan.priors.training import (
    components_of,
    distorted,
    train_feature_network,
    train_generator,
    train_prior_critic,
)
from fed_gswgan.seeding import SeedStream

SEEDS = SeedStream(5)
SMALL = Settings(generator_width=4, latent_dim=3, critic_width=16)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(training, "READING_BATCH_SIZE", 48)
    monkeypatch.setattr(training, "BATCH_SIZE", 12)
    teacher = training.TEACHER.model_copy(update={"critic_width": 8})
    monkeypatch.setattr(training, "TEACHER", teacher)


def test_distortions_follow_from_their_generator_and_stay_images():
    images = draw_pool("5", 40, SEEDS)[0][:, None]
    first, again, other = (distorted(images, np.random.default_rng(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first.shape, first.dtype) == (images.shape, torch.float32)
    assert not torch.equal(first, other)
    assert (first.min(), first.max() <= 1) == (0, True)
    assert (first - images).abs().mean() > 0.02


def test_a_network_learns_to_read_drawings_that_it_was_not_shown(small_batches):
    pool, shares = draw_pool("017", 60, SEEDS), []
    network = train_feature_network(pool, 8, 40, SEEDS, shares.append)
    assert not network.training
    assert (len(shares), shares[-1]) == (40, 1.0)
    unseen = draw_pool("017", 30, SeedStream(99))
    with torch.no_grad():
        found = network(unseen.flatten(0, 1)[:, None]).argmax(1).view(3, 30)
    assert (found == torch.arange(3)[:, None]).float().mean() > 0.8
    same = train_feature_network(pool, 8, 3, SEEDS).state_dict()
    again = train_feature_network(pool, 8, 3, SEEDS).state_dict()
    assert all(torch.equal(same[name], again[name]) for name in same)


def test_components_are_those_of_the_network_over_the_pool(small_batches):
    pool = draw_pool("01", 20, SEEDS)
    network = train_feature_network(pool, 4, 2, SEEDS)
    found = components_of(network, pool, 5)
    assert found.hidden is network.hidden
    projected = found(pool.flatten(0, 1)[:, None])
    assert projected.mean(0) == pytest.approx(torch.zeros(5), abs=1e-4)
    assert projected.square().mean(0) == pytest.approx(found.variances_K, rel=1e-3)


def test_a_generator_comes_nearer_to_the_pool(small_batches):
    pool, shares = draw_pool("01", 60, SEEDS), []
    trained = train_generator(pool, SMALL, 60, SEEDS, shares.append)
    again = train_generator(pool, SMALL, 60, SEEDS).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained.state_dict().items())
    assert shares[-1] == 1.0
    fresh = build_generator(SMALL, DataSpec((1, 28, 28), 2), seed=0)
    labels = torch.arange(2).repeat_interleave(60)
    features = Features(7)

    def distance(generator):
        samples = sampler_of(generator, SMALL)(labels, 0)
        drawings = features(pool.flatten(0, 1)[:, None]).view(2, 60, -1)
        return pool_loss(features(samples).view(2, 60, -1), drawings).sum()

    assert distance(trained) < distance(fresh) - 1


def test_a_critic_tells_drawings_from_samples_of_the_finished_generator(small_batches):
    pool = draw_pool("01", 60, SEEDS)
    generator = build_generator(SMALL, DataSpec((1, 28, 28), 2), seed=0)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    critic = train_prior_critic(pool, generator, SMALL, SMALL, 40, SEEDS)
    labels = torch.arange(2).repeat_interleave(60)
    samples = sampler_of(generator, SMALL)(labels, 0)
    with torch.no_grad():
        scores = critic(pool.flatten(0, 1)[:, None], labels), critic(samples, labels)
    assert wasserstein_loss(*scores) < -0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
